r"""Read the lines of a sweep's log: :class:`LogReader`.

``Thread-<k>_<n>: <message>`` may be anywhere in a line, because a prompt, a logger's
prefix or a progress bar may come before it.

=====================================  ============================================
message                                meaning
=====================================  ============================================
``job 3 on cpu, attempt 2``            the job starts (not in logs of the old tool)
``(('a', 50), ('b', 0.1))``            its parameters; in an old log, it starts
``new maximum score 0.6...``           a score (``minimum`` when minimising)
``score nan (not finite)``             a score that ranks last
``finished: score 0.6, 1.2 s``         it finished; the score is final
``failed: ... (attempt 2, given up)``  an attempt failed (``stopped:`` if it was stopped)
``| ...``                              quoted traceback
``Maximum bad epochs exceeded. ...``   the old tool's end line
=====================================  ============================================

``AUTOTRAIN STARTED`` begins a section, in which names start again. Sections with the
same sweep id (a resumed sweep, the next batch) are one sweep. ``superseded: jobs 0, 1``
in the head of a section names jobs of the sweep that no longer count.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from junky_core.jobs import Direction, rank_key
from junky_core.logs.literals import read_params, split_balanced

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Entry", "LogReader", "Row"]

Row = tuple[str, "float | None", Any, bool]
Entry = tuple[Direction, "int | None", str, "float | None", Any, bool]

# CPython since 3.10 calls a thread "Thread-1 (run_model)" after its target; the old tool kept that.
_THREAD = r"Thread-\d+(?: \([^()]{1,80}\))?"
_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|inf(?:inity)?|nan)"
_MESSAGE = re.compile(
    rf"(?P<thread>{_THREAD})_(?P<n>\d+):\s*"
    r"(?=\(|job |new m|score |finished: |failed: |stopped: |\||Maximum )"
)
_JOB = re.compile(r"job (\d{1,18}) on (\S+?)(, attempt \d+)?\s*$")
_SCORE = re.compile(rf"(?:new (maximum|minimum) )?score ({_NUMBER})(?![\w.])", re.IGNORECASE)
_FINISHED = re.compile(rf"finished: (?:no score|score ({_NUMBER})), [\d.]+ s\s*$")
_END = re.compile(r"Maximum (?:bad )?epochs exceeded\. +Process has (?:been )?stopped")
_PARAMS = re.compile(r"\(\s*(?:\)\s*$|\(\s*['\"])")
_THREAD_FINISHED = re.compile(rf"({_THREAD}) finished: ")
_ENDED = re.compile(r"AUTOTRAIN FINISHED(?: \((\w+)\))?\s*$")
_STARTED = re.compile(r"AUTOTRAIN STARTED\s*$")
_REPEATING = re.compile(r"=== \d+ threads? \w+ terminated abnormally")
_SWEEP = re.compile(r"(?:^|[-\]>\s])sweep: (\S+)( \(resumed\))?\s*$")
_SUPERSEDED = re.compile(r"(?:^|[-\]>\s])superseded: jobs (\d{1,18}(?:, \d{1,18})*)\s*$")
_DIRECTION = re.compile(r"direction: (maximize|minimize)\s*$")
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
_BLANKS = {ord(c): " " for c in "\xa0\u2007\u202f"} | dict.fromkeys(map(ord, "\u200b\ufeff"))
_MARK = re.compile("Thread-|AUTOTRAIN|sweep: |superseded: |direction: |terminated abnormally")
_MAX_CONTINUED = 200  # lines that the text of one job's parameters may take


class _Job:
    """What the log has said about one job so far."""

    __slots__ = ("ended", "finished", "name", "num", "params", "round", "score", "text")

    def __init__(self, name: str, num: int | None, round_: int) -> None:
        self.name = name
        self.num = num  # None in a log of the old tool
        self.round = round_  # how often the old tool had begun its retries before
        self.text: str | None = None
        self.params: Any = None
        self.score: float | None = None
        self.finished = False
        self.ended = False  # the old tool's thread has begun another job

    def offer(self, score: float, direction: Direction) -> None:
        """Keep ``score`` if it beats the job's score so far."""
        if rank_key(score, 0, direction) < rank_key(self.score, 0, direction):
            self.score = score


class _Sweep:
    """The jobs of one sweep, and their names in its current section."""

    def __init__(self) -> None:
        self.direction = Direction.MAXIMIZE
        self.jobs: list[_Job] = []
        self.by_num: dict[int, _Job] = {}
        self.by_name: dict[str, _Job] = {}
        self.superseded: set[int | None] = set()
        self.begun: set[int] = set()  # in its current section
        self.of_thread: dict[str, list[_Job]] = {}
        self.round = 0

    def add(self, name: str, num: int | None) -> _Job:
        job = _Job(name, num, self.round)
        self.jobs.append(job)
        self.by_name[name] = job
        if num is not None:
            self.by_num[num] = job
            self.begun.add(num)
        else:
            thread = self.of_thread.setdefault(name.rpartition("_")[0], [])
            if thread:  # the old tool gave a thread its next job when the one before was done
                thread[-1].finished = thread[-1].ended = True
            thread.append(job)
        return job

    def rows(self) -> list[_Job]:
        """Return the jobs, without attempts that the old tool ran again."""
        if not self.round:
            return [job for job in self.jobs if job.num not in self.superseded]
        last_round: dict[str, int] = {}
        for job in self.jobs:
            if job.text is not None:
                last_round[job.text] = max(job.round, last_round.get(job.text, 0))
        return [j for j in self.jobs if j.finished or j.round >= last_round.get(j.text or "", 0)]


class LogReader:
    """Collects the jobs of a log from its lines.

    Attributes:
        seen: Whether any line belonged to a sweep.
        ended: Why the last sweep ended, ``None`` if it has not.
    """

    def __init__(self) -> None:
        self.seen = False
        self.ended: str | None = None
        self._sweeps: list[_Sweep] = []
        self._by_id: dict[str, _Sweep] = {}

    @property
    def _sweep(self) -> _Sweep:
        if not self._sweeps:
            self._sweeps.append(_Sweep())
        return self._sweeps[-1]

    def rows(self) -> list[Row]:
        """Return a row per job, best first."""
        groups: list[tuple[Direction, list[_Job]]] = []
        for sweep in self._sweeps:
            jobs = sorted(sweep.rows(), key=lambda j: -1 if j.num is None else j.num)
            groups.append((sweep.direction, jobs))
        if len({direction for direction, jobs in groups if jobs}) == 1:
            # One direction: one ranking of all.
            direction = next(direction for direction, jobs in groups if jobs)
            groups = [(direction, [job for _, jobs in groups for job in jobs])]
        found: list[Row] = []
        for direction, jobs in groups:
            ranks = [rank_key(job.score, num, direction) for num, job in enumerate(jobs)]
            for *_, num in sorted(ranks):
                job = jobs[num]
                found.append((job.name, job.score, job.params, job.finished))
        return found

    def jobs(self) -> list[Entry]:
        """Return ``(direction, number, name, score, params, finished)`` of each job, by number."""
        return [
            (sweep.direction, j.num, j.name, j.score, j.params, j.finished)
            for sweep in self._sweeps
            for j in sorted(sweep.rows(), key=lambda j: -1 if j.num is None else j.num)
        ]

    def read(self, lines: Iterable[str]) -> None:
        """Read a text log."""
        source = iter(lines)
        line = next(source, None)
        while line is not None:
            pushed_back = None
            if _MARK.search(line):
                pushed_back = self._read_line(_clean(line), source)
            line = next(source, None) if pushed_back is None else pushed_back

    def _read_line(self, line: str, source: Iterator[str]) -> str | None:
        """Read one line; return the line after it if that was taken but not used."""
        if line.lstrip().startswith("junky "):  # a notice may quote anything
            return None
        position, pushed_back = 0, None
        while found := _MESSAGE.search(line, position):
            name, start = f"{found['thread']}_{found['n']}", found.end()
            if line[start] == "(":
                position, pushed_back = self._read_params(name, line, start, source)
            else:
                position = self._read_message(name, line, start)
            if position >= len(line):
                return pushed_back
        if not position:
            self._read_frame(line)
        return None

    def _read_frame(self, line: str) -> None:
        """Read a line that belongs to no job."""
        if "Thread-" in line:
            found = _THREAD_FINISHED.search(line) if " finished: " in line else None
            for job in self._sweep.of_thread.get(found[1], ()) if found else ():
                job.finished = job.ended = True
        elif _STARTED.search(line):
            self.seen, self.ended = True, None
            self._sweeps.append(_Sweep())
        elif found := _ENDED.search(line):
            self.ended = found[1] or "completed"
        elif found := _SWEEP.search(line):
            self._name_sweep(found[1], found[2] is not None)
        elif found := _SUPERSEDED.search(line):
            if not self._sweep.by_name:  # in the head of its section
                self._sweep.superseded = {int(num) for num in found[1].split(", ")}
        elif found := _DIRECTION.search(line):
            if (
                self._sweeps and not self._sweep.jobs
            ):  # in the head, not in a config that was printed
                self._sweep.direction = Direction(found[1])
        elif _REPEATING.search(line):
            self._sweep.round += 1

    def _name_sweep(self, sweep_id: str, resumed: bool) -> None:
        """Add the section that just began to the sweep with its id."""
        if not self._sweeps or self._sweep.jobs:
            return
        earlier = self._by_id.get(sweep_id)
        if earlier is None and resumed and len(self._sweeps) > 1:
            earlier = self._sweeps[-2]
        if earlier is None or earlier is self._sweep:
            self._by_id[sweep_id] = self._sweep
            return
        self._sweeps.pop()
        if earlier is not self._sweeps[-1]:
            self._sweeps.remove(earlier)
            self._sweeps.append(earlier)
        self._by_id[sweep_id] = earlier
        earlier.by_name, earlier.superseded, earlier.begun = {}, set(), set()

    def _read_message(self, name: str, line: str, start: int) -> int:
        """Read the message at ``start``; return where the next one may begin."""
        sweep = self._sweep
        if found := _SCORE.match(line, start):
            if found[1] == "minimum":
                sweep.direction = Direction.MINIMIZE
            if found[1] or "(not finite)" in line:
                self.seen = True
                job = sweep.by_name.get(name) or sweep.add(name, None)
                job.offer(float(found[2]), sweep.direction)
            return found.end()
        if found := _JOB.match(line, start):
            self._start_job(name, int(found[1]), again=found[3] is not None)
            return len(line)
        job_ = sweep.by_name.get(name)
        if found := _FINISHED.match(line, start):
            if job_ is not None:
                job_.score = None if found[1] is None else float(found[1])
                job_.finished = True
            return len(line)
        if _END.match(line, start):
            if job_ is None:
                self.seen = True
                job_ = sweep.add(name, None)
            if job_.num is None:
                job_.finished = job_.ended = True
            return start + 1
        # The text after these is quoted: it may look like a message but is not one.
        return len(line) if line.startswith(("|", "failed: ", "stopped: "), start) else start + 1

    def _start_job(self, name: str, num: int, *, again: bool) -> None:
        self.seen = True
        sweep = self._sweep
        job = sweep.by_num.get(num)
        if job is not None and job.finished and num in sweep.begun:
            # Another sweep, pasted without its header.
            self._sweeps.append(_Sweep())
            self._sweep.direction, sweep, job = sweep.direction, self._sweep, None
        if job is None:
            sweep.add(name, num)
            return
        sweep.begun.add(num)
        if job.name != name:  # another attempt; if the name is the same, the line is a copy
            sweep.by_name[name] = job
            job.name, job.finished = name, False
            if not again:  # a first attempt: a resumed sweep runs the job again
                job.score = None
        sweep.by_name.setdefault(name, job)

    def _read_params(
        self, name: str, line: str, start: int, source: Iterator[str]
    ) -> tuple[int, str | None]:
        """Read parameters; return where to continue in ``line``, and a line read but not used."""
        if not _PARAMS.match(line, start):
            return start + 1, None
        text, pushed_back = _whole_params(line[start:], source)
        if text is None:
            return start + 1, None
        self.seen = True
        job = self._sweep.by_name.get(name)
        if job is not None and job.text is not None:
            if not self._begins_a_sweep(job, text):
                return len(line), pushed_back
            self._sweeps.append(_Sweep())
            job = None
        if job is None:
            job = self._sweep.add(name, None)
        job.text, job.params = text, read_params(text)
        return len(line), pushed_back

    def _begins_a_sweep(self, job: _Job, text: str) -> bool:
        """Return whether ``text`` begins a job of another sweep.

        Otherwise the training itself has printed a tuple of pairs.
        """
        if job.num is not None:
            return False
        if job.ended:
            return True
        params = read_params(text)
        if not isinstance(params, dict) or not isinstance(job.params, dict):
            return False
        return params.keys() == job.params.keys() and text != job.text


def _whole_params(text: str, source: Iterator[str]) -> tuple[str | None, str | None]:
    """Return the whole text of the parameters, and a line read but not used.

    A ``repr`` with line breaks, or a terminal that wraps, spreads the text over several
    lines. They are joined up to its closing bracket. ``None`` if the line goes on after
    the parameters: then it is not a line of the sweep.
    """
    text = text.strip()
    head, rest = split_balanced(text)
    if head is not None:
        return (None, None) if rest.strip() else (head, None)
    if text.endswith(")") and text.count("(") == text.count(")"):
        return text, None  # an unpaired quote in a repr
    parts, size = [text], len(text)
    for _ in range(_MAX_CONTINUED):
        line = next(source, None)
        if line is None:
            return text, None
        clean = _clean(line).rstrip()
        size += len(clean)
        if not clean or size > 1 << 16 or _MARK.search(clean):
            return text, line
        parts.append(clean)
        for joint in ("", " "):
            head, rest = split_balanced(joint.join(parts))
            if head is not None and not rest.strip() and isinstance(read_params(head), dict):
                return head, None
        head, rest = split_balanced("\n".join(parts))
        if head is not None and not rest.strip():
            return head, None
    return text, None


def _clean(line: str) -> str:
    if "\x1b" in line:
        line = _ANSI.sub("", line)
    return line.translate(_BLANKS) if not line.isascii() else line
