"""All that happened in a sweep, gathered from its events, its journal or its log."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from junky_core.errors import LogError, LogNotFoundError
from junky_core.events import (
    AttemptFailed,
    Event,
    JobFailed,
    JobFinished,
    JobStarted,
    ScoreReported,
    SweepEnded,
    SweepStarted,
)
from junky_core.jobs import JobResult, rank_key
from junky_core.logs.literals import read_loosely
from junky_core.logs.parser import read_log
from junky_core.paths import user_path
from junky_core.record.codec import event_of
from junky_core.record.folder import JOURNAL_NAME
from junky_core.record.reader import read_journal
from junky_core.record.regular_files import open_regular

__all__ = ["JobFacts", "Span", "SweepHistory", "is_journal", "load_history"]

_SLOT_DIGITS = 6  # of a slot that is worth a number in a log that anybody may have written


@dataclass(slots=True)
class Span:
    """One attempt on its slot. Times are seconds since the epoch; ``end`` is ``None`` if it runs.

    ``outcome`` is ``"running"``, ``"finished"``, ``"lost"`` (the process was
    killed), or what :class:`junky_core.events.AttemptFailed` calls its kind.
    """

    job: int
    name: str
    slot: int
    start: float
    end: float | None = None
    outcome: str = "running"


@dataclass(slots=True)
class JobFacts:
    """What is known of one job; ``status`` is ``"running"``, ``"waiting"`` or a result's."""

    num: int
    name: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    status: str = "running"
    score: float | None = None
    attempts: int = 1
    duration_s: float = 0.0
    slot: int = 0
    device: str = ""
    error: str = ""
    traceback: str = ""
    ended: float | None = None

    def result(self) -> JobResult:
        """Return it as a result; what is not over yet counts as stopped."""
        return JobResult(
            num=self.num,
            name=self.name,
            params=self.params,
            status=self.status if self.status in ("finished", "failed") else "stopped",
            score=self.score,
            attempts=self.attempts,
            duration_s=self.duration_s,
            slot=self.slot,
            device=self.device,
            error=self.error,
            traceback=self.traceback,
        )


class SweepHistory:
    """An observer that gathers a sweep's jobs, attempts and bests. For one thread at a time.

    Attributes:
        sweep_id: The sweep's identity.
        direction: ``"maximize"`` or ``"minimize"``.
        seed: Its seed.
        total: Jobs there will be, if that is known.
        devices: Device of each slot, the first slot's first.
        jobs: Jobs that were started, by number, without those that are superseded.
        superseded: Jobs that do not count any more: the sweep was resumed with
            other fixed arguments.
        spans: Attempts, in the order they began.
        bests: ``(time, score, job)`` whenever the best of the sweep changed.
        sessions: ``[first, last]`` time of each start or resume.
        ended: Reason of the end, ``None`` while it runs.
        has_times: Whether times are known (a log has none).
        source: What it was read from.
    """

    def __init__(self) -> None:
        self.sweep_id = ""
        self.direction = "maximize"
        self.seed: int | None = None
        self.total: int | None = None
        self.devices: list[str] = []
        self.jobs: dict[int, JobFacts] = {}
        self.superseded: dict[int, JobFacts] = {}
        self.spans: list[Span] = []
        self.bests: list[tuple[float, float, int]] = []
        self.sessions: list[list[float]] = []
        self.ended: str | None = None
        self.has_times = True
        self.source = ""
        self._open: dict[str, Span] = {}
        self._done = 0  # jobs of this session that are over, those taken from the journal included

    def on_event(self, event: Event) -> None:
        """Take note of ``event``."""
        if isinstance(event, SweepStarted):
            self._started(event)
        if self.sessions:
            self.sessions[-1][1] = max(self.sessions[-1][1], event.time)
        if isinstance(event, JobStarted):
            self._job_started(event)
        elif isinstance(event, ScoreReported):
            job = self._job(event.job, event.name)
            if event.improved:
                job.score = event.score
                self._offer(event.time, event.score, event.job)
        elif isinstance(event, AttemptFailed):
            job = self._job(event.job, event.name)
            job.status = "waiting" if event.retry else "stopped"
            job.error, job.traceback = event.error, event.traceback
            job.duration_s, job.attempts = event.duration_s, event.attempt
            self._close(event.name, event.time, event.kind)
        elif isinstance(event, JobFinished):
            job = self._over(event, "finished")
            job.error = job.traceback = ""
            if event.score is not None:
                self._offer(event.time, event.score, event.job)
        elif isinstance(event, JobFailed):
            job = self._over(event, "failed")
            job.error, job.traceback = event.error, event.traceback
        elif isinstance(event, SweepEnded):
            self.ended = event.reason

    def results(self) -> list[JobResult]:
        """Return how each job stands, by number."""
        return [self.jobs[num].result() for num in sorted(self.jobs)]

    def count(self, status: str) -> int:
        """Return how many jobs have ``status``."""
        return sum(job.status == status for job in self.jobs.values())

    def best(self) -> JobFacts | None:
        """Return the best job so far that gave a finite score."""
        if not self.bests:
            return None
        return self.jobs.get(self.bests[-1][2])

    def _started(self, event: SweepStarted) -> None:
        last = self.sessions[-1][1] if self.sessions else event.time
        if self.ended is None:  # killed: what ran then is lost
            for name in list(self._open):
                self._close(name, last, "lost")
        for job in self.jobs.values():
            if job.status in ("running", "waiting"):
                job.status = "stopped"
        self._supersede(set(event.superseded))
        self.sweep_id, self.direction, self.seed = event.sweep_id, event.direction, event.seed
        if event.resumed:  # what failed or was cut short runs again
            self._done = 0
        self._done += event.already_finished
        self.total = None if event.total is None else self._done + event.total
        self.devices = list(event.devices)
        self.sessions.append([event.time, event.time])
        self.ended = None

    def _supersede(self, nums: set[int]) -> None:
        """Put the jobs that do not count aside, and those back that count again."""
        if not nums and not self.superseded:
            return
        jobs = {**self.jobs, **self.superseded}
        self.jobs = {num: job for num, job in jobs.items() if num not in nums}
        self.superseded = {num: job for num, job in jobs.items() if num in nums}
        self.bests = []
        known = [job for job in self.jobs.values() if job.score is not None]
        for job in sorted(known, key=lambda job: job.ended or 0.0):
            assert job.score is not None
            self._offer(job.ended or self.sessions[-1][1], job.score, job.num)

    def _job_started(self, event: JobStarted) -> None:
        job = self._job(event.job, event.name)
        job.params, job.status, job.attempts = event.params, "running", event.attempt
        job.slot, job.device = event.slot, event.device
        if event.attempt == 1:
            job.score = None
        span = Span(event.job, event.name, event.slot, event.time)
        self.spans.append(span)
        self._open[event.name] = span

    def _over(self, event: JobFinished | JobFailed, status: str) -> JobFacts:
        self._done += 1
        job = self._job(event.job, event.name)
        job.status, job.params, job.score = status, event.params, event.score
        job.attempts, job.duration_s = event.attempt, event.duration_s
        job.slot, job.device, job.ended = event.slot, event.device, event.time
        self._close(event.name, event.time, "finished" if status == "finished" else "error")
        return job

    def _job(self, num: int, name: str) -> JobFacts:
        job = self.jobs.get(num)
        if job is None:
            job = self.jobs[num] = JobFacts(num)
        job.name = name
        return job

    def _close(self, name: str, time: float, outcome: str) -> None:
        span = self._open.pop(name, None)
        if span is not None:
            span.end, span.outcome = time, outcome

    def _offer(self, time: float, score: float, job: int) -> None:
        best = self.bests[-1][1] if self.bests else None
        if math.isfinite(score) and (
            rank_key(score, 0, self.direction) < rank_key(best, 0, self.direction)
        ):
            self.bests.append((time, score, job))


def load_history(path: str | os.PathLike[str]) -> SweepHistory:
    """Read a sweep folder, a journal or a log.

    Of a folder the journal is read; its log if it has no journal.

    Raises:
        LogNotFoundError: There is nothing at ``path``.
        LogError: It is no log of a sweep.
        JournalError: The journal is damaged.
    """
    path = user_path("PATH", path, LogError)
    if not path.exists():
        raise LogNotFoundError(f"there is no sweep folder or log at {str(path)!r}")
    journal = path / JOURNAL_NAME if path.is_dir() else path
    if is_journal(journal):
        history = SweepHistory()
        history.source = str(journal)
        for record in read_journal(journal):
            event = event_of(record)
            if event is not None:
                history.on_event(event)
        return history
    return _from_log(path)


def is_journal(path: Path) -> bool:
    """Return whether a file is a journal, damaged perhaps, and no log."""
    if not path.is_file():
        return False
    with open_regular(path) as file:
        return path.name == JOURNAL_NAME or file.read(8) == b'{"event"'


def _from_log(path: Path) -> SweepHistory:
    history = SweepHistory()
    history.has_times = False
    entries, history.ended = read_log(path)
    history.source = str(path)
    free = 1 + max((num for _, num, *_ in entries if num is not None), default=-1)
    for direction, num, name, score, params, finished in entries:
        history.direction = direction
        if num is None or num in history.jobs:
            num, free = free, free + 1  # noqa: PLW2901 - the old tool gave no numbers
        job = history._job(num, name)  # noqa: SLF001 - this module's own
        job.params = read_loosely(params) if isinstance(params, str) else params or {}
        job.score, job.status = score, "finished" if finished else "stopped"
        thread = name.removeprefix("Thread-").partition("_")[0].partition(" ")[0]
        job.slot = int(thread) if thread.isdecimal() and len(thread) <= _SLOT_DIGITS else 0
        if score is not None:
            history._offer(float(num), score, num)  # noqa: SLF001
    return history
