"""Observer: the text log of a sweep.

Each event is one ``write``, so that lines of parallel slots never mix.
:mod:`junky_core.logs.parser` reads the log back. Line forms of the original tool
are kept.

    Thread-1_0: job 0 on cpu
    Thread-1_0: (('a', 50), ('b', 0.1))
    Thread-1_0: new maximum score 0.6129: OVERALL MAXIMUM
    Thread-1_0: finished: score 0.6129, 1.234 s
    Thread-1 finished: cpu (1 job)
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from junky_core.events import (
    AttemptFailed,
    Event,
    JobFailed,
    JobFinished,
    JobStarted,
    Notice,
    ScoreReported,
    SlotClosed,
    SweepEnded,
    SweepStarted,
)
from junky_core.job.forks import OwnProcess
from junky_core.jobs import Direction
from junky_core.values.texts import MAX_TOLD, cut, visible
from junky_core.values.user_text import repr_of
from junky_core.values.wording import count as number_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["FileWriter", "LogWriter", "StdoutWriter", "SweepLog", "params_text"]

# Reasons of a slot that ran out of jobs, not of one that failed.
_ORDINARY_ENDS = frozenset({"", "done", "finished", "completed", "no more jobs"})


class LogWriter(Protocol):
    """Where the log's text goes."""

    def write(self, text: str) -> None:
        """Write ``text``, which consists of complete lines, at once."""

    def close(self) -> None:
        """Release the file; a later ``write`` may open it again."""


class StdoutWriter:
    """Writes to ``sys.stdout`` as it is at each write: a notebook's, a redirected one."""

    def write(self, text: str) -> None:
        """Write ``text`` and flush."""
        stream = sys.stdout
        if stream is None:  # pythonw, a daemon
            return
        try:
            stream.write(text)
        except UnicodeEncodeError:  # an ASCII terminal
            stream.write(text.encode("ascii", "backslashreplace").decode("ascii"))
        stream.flush()

    def close(self) -> None:
        """Do nothing: the stream is not ours."""


class FileWriter:
    """Appends to a UTF-8 file, which is opened at the first write.

    After a failed write (disk full), the next one opens the file again. If the file
    was deleted, the next write restores it, with its folder.

    Args:
        path: The file; its folder must exist.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._stream: TextIO | None = None

    def write(self, text: str) -> None:
        """Append ``text``."""
        if self._stream is None:
            self._stream = self._open()
        elif os.fstat(self._stream.fileno()).st_nlink == 0:
            self._stream = self._brought_back(self._stream)
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            self.close()
            raise

    def _open(self) -> TextIO:
        # Line-buffered: readers see each line at once, and a kill loses none.
        return self._path.open(
            "a+", encoding="utf-8", errors="backslashreplace", buffering=1, newline="\n"
        )

    def _brought_back(self, deleted: TextIO) -> TextIO:
        """Restore a deleted file: its content can be read as long as it is open."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        stream = self._open()
        with deleted:
            deleted.seek(0)
            shutil.copyfileobj(deleted, stream)
        return stream

    def close(self) -> None:
        """Close the file."""
        stream, self._stream = self._stream, None
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.close()


class SweepLog:
    """Writes the text log. Thread-safe.

    A failed write does not affect the sweep: its exception is kept in
    ``last_error``, and the next event is written again.

    Args:
        writer: Where to write; ``sys.stdout`` by default.

    Attributes:
        last_error: The exception of the last write, ``None`` if it succeeded.

    Example:
        >>> SweepLog().on_event(JobStarted(job=0, key="", params={"a": 50}, name="Thread-1_0",
        ...                                slot=1, device="cpu", attempt=1))
        Thread-1_0: job 0 on cpu
        Thread-1_0: (('a', 50),)
    """

    def __init__(self, writer: LogWriter | None = None) -> None:
        self._own = OwnProcess()
        self._writer: LogWriter = StdoutWriter() if writer is None else writer
        # Reentrant: a signal handler that emits in this thread must not deadlock.
        self._lock = threading.RLock()  # guards all below, and keeps the order of lines
        self._direction = Direction.MAXIMIZE
        self._jobs_of_slot: dict[int, int] = {}
        self._params: dict[int, str] = {}  # by job, of those running
        self._best: tuple[int, str] | None = None  # job and parameters of the best so far
        self._given_up: set[int] = set()  # jobs whose final failure is already in the log
        # Jobs that were to run again, with the attempt whose traceback is in the log.
        self._waiting: set[tuple[int, int]] = set()
        self.last_error: Exception | None = None

    def on_event(self, event: Event) -> None:
        """Write ``event``; in a forked child do nothing."""
        if not self._own:
            return
        with self._lock:
            lines = self._lines(event)
            if not lines:
                return
            try:
                self._writer.write("\n".join(map(visible, lines)) + "\n")
                self.last_error = None
            except Exception as error:  # noqa: BLE001 - a log must never stop a training
                self.last_error = error

    def close(self) -> None:
        """Close the writer."""
        if not self._own:
            return
        with self._lock:
            self._writer.close()

    def _lines(self, event: Event) -> list[str]:
        if isinstance(event, ScoreReported):
            return self._score(event)
        if isinstance(event, JobStarted):
            return self._job_started(event)
        if isinstance(event, JobFinished):
            self._params.pop(event.job, None)
            self._count(event.slot)
            score = "no score" if event.score is None else f"score {_number(event.score)}"
            return [f"{event.name}: finished: {score}, {event.duration_s:.3f} s"]
        if isinstance(event, AttemptFailed):
            return self._attempt_failed(event)
        if isinstance(event, JobFailed):
            self._params.pop(event.job, None)
            self._count(event.slot)
            if event.job in self._given_up:
                self._given_up.discard(event.job)
                return []
            failure = f"{_told(event.error)} (attempt {event.attempt}, given up)"
            told = (event.job, event.attempt) in self._waiting
            self._waiting.discard((event.job, event.attempt))
            quoted = [] if told else _quoted(event.name, event.traceback)
            return [f"{event.name}: failed: {failure}", *quoted]
        if isinstance(event, SlotClosed):
            return self._slot_closed(event)
        if isinstance(event, Notice):
            return [f"junky {event.level}: {_told(event.message)}"]
        if isinstance(event, SweepStarted):
            return self._sweep_started(event)
        if isinstance(event, SweepEnded):
            return self._sweep_ended(event)
        return []

    def _sweep_started(self, event: SweepStarted) -> list[str]:
        self._direction = Direction(event.direction)
        total = "not known beforehand" if event.total is None else str(event.total)
        if event.already_finished:
            total += f" (and {event.already_finished} already finished)"
        threads = event.threads_per_slot
        slots = ", ".join(f"Thread-{i} on {device}" for i, device in enumerate(event.devices, 1))
        torch_threads = (
            "torch threads left alone"
            if threads is None
            else f"{number_of(threads, 'torch thread')} each"
        )
        return [
            "",
            "AUTOTRAIN STARTED",
            "=================",
            f"sweep: {event.sweep_id}{' (resumed)' if event.resumed else ''}",
            f"jobs: {total}",
            *([f"superseded: jobs {_listed(event.superseded)}"] if event.superseded else ()),
            f"direction: {event.direction}",
            f"seed: {'none' if event.seed is None else event.seed}",
            f"slots: {slots or 'none'}; {torch_threads}",
            f"retries: at most {event.max_retries} a job",
            "=================",
        ]

    def _job_started(self, event: JobStarted) -> list[str]:
        text = self._params[event.job] = params_text(event.params)
        again = f", attempt {event.attempt}" if event.attempt > 1 else ""
        return [
            f"{event.name}: job {event.job} on {event.device}{again}",
            f"{event.name}: {text}",
        ]

    def _score(self, event: ScoreReported) -> list[str]:
        score = _number(event.score)
        if not event.improved:
            # Other scores that do not improve are left out.
            finite = math.isfinite(event.score)
            return [] if finite else [f"{event.name}: score {score} (not finite)"]
        extremum, than = (
            ("minimum", "more") if self._direction == Direction.MINIMIZE else ("maximum", "less")
        )
        line = f"{event.name}: new {extremum} score {score}"
        if event.overall:
            self._best = (event.job, self._params.get(event.job, ""))
            return [f"{line}: OVERALL {extremum.upper()}"]
        if event.best_score is None:
            return [line]
        best = f"{_number(event.best_score)} of {event.best_name}"
        return [f"{line} ({than} than {extremum} {best})"]

    def _attempt_failed(self, event: AttemptFailed) -> list[str]:
        memory = ", out of memory" if event.kind == "oom" else ""
        verb = "stopped" if event.kind == "interrupted" else "failed"
        if event.retry:
            self._waiting.discard((event.job, event.attempt - 1))
            self._waiting.add((event.job, event.attempt))
            then = "runs again alone at the end" if memory else "runs again at the end"
        elif event.kind == "interrupted":
            then = "not finished"
        else:
            then = "given up"
            self._given_up.add(event.job)
        what = f"{_told(event.error)} (attempt {event.attempt}{memory}, {then})"
        # The traceback of a job that was asked to end is of no interest.
        asked = event.kind in {"interrupted", "timeout"}
        quoted = [] if asked else _quoted(event.name, event.traceback)
        return [f"{event.name}: {verb}: {what}", *quoted]

    def _slot_closed(self, event: SlotClosed) -> list[str]:
        count = self._jobs_of_slot.get(event.slot, 0)
        if event.reason in _ORDINARY_ENDS:
            jobs = number_of(count, "job")
            return [f"Thread-{event.slot} finished: {event.device} ({jobs})"]
        # The reason may be a whole traceback, whose last line says what it was.
        reason = cut(event.reason.strip(), MAX_TOLD)
        name, last = f"Thread-{event.slot}", reason.splitlines()[-1].strip()
        return [f"{name} closed: {last}", *(_quoted(name, reason) if "\n" in reason else ())]

    def _sweep_ended(self, event: SweepEnded) -> list[str]:
        ended = "" if event.reason == "completed" else f" ({event.reason})"
        counts = f"{event.finished} finished, {event.failed} failed, {event.left} not run"
        lines = [
            "==================",
            f"AUTOTRAIN FINISHED{ended}",
            "==================",
            f"jobs: {counts}; {event.duration_s:.3f} s",
        ]
        if event.best_name is None:
            return [*lines, "no best model is on disk"]
        lines.append(f"best model name = {event.best_name}")
        if event.best_score is not None:
            lines.append(f"best model score = {_number(event.best_score)}")
        if event.best_job is not None:
            lines.append(f"best model job = {event.best_job}")
            if self._best is not None and self._best[0] == event.best_job and self._best[1]:
                lines.append(f"best model params = {self._best[1]}")
        if event.best_path:
            lines.append(f"best model file = {_one_line(event.best_path)}")
        return lines

    def _count(self, slot: int) -> None:
        self._jobs_of_slot[slot] = self._jobs_of_slot.get(slot, 0) + 1


def params_text(params: Mapping[str, Any]) -> str:
    """Return ``params`` as the log writes them: the ``repr`` of their pairs, on one line.

    >>> params_text({"a": 50, "b": None})
    "(('a', 50), ('b', None))"
    >>> params_text({"a": 50}), params_text({})
    ("(('a', 50),)", '()')
    """
    pairs = [f"({key!r}, {_one_line(repr_of(value))})" for key, value in params.items()]
    return f"({pairs[0]},)" if len(pairs) == 1 else f"({', '.join(pairs)})"


def _listed(nums: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(nums)))


def _number(score: float) -> str:
    return repr(float(score))


def _told(text: str) -> str:
    """Return an error or a message on one line, limited in length."""
    return _one_line(cut(text, MAX_TOLD))


def _one_line(text: str) -> str:
    if "\n" in text or "\r" in text:  # rare, and the search is slow
        text = re.sub(r"\s*[\r\n]+\s*", " ", text)
    return text.strip()


def _quoted(name: str, text: str) -> Iterable[str]:
    return (f"{name}: | {line.expandtabs()}" for line in cut(text, MAX_TOLD).splitlines())
