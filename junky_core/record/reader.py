"""Read a journal: its records, and what they add up to.

    state = load_state("sweep/journal.jsonl")
    state.jobs["lr=0.1"].status          # "finished": need not run again
    state.match_best_file("sweep/model.pt").score

A sweep that was killed and resumed leaves several ``sweep_started`` records in
one journal. What a job's records add up to, in the order they come:

    job_started    -> unfinished
    job_finished   -> finished
    job_failed     -> failed
    anything else leaves the job's status as it is

A job that was running when the process was killed therefore stays unfinished,
and so does one that was stopped by Ctrl-C.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from junky_core.files import file_sha256
from junky_core.jobs import rank_key
from junky_core.record.codec import decode_field
from junky_core.record.lines import LineReader
from junky_core.record.regular_files import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "BestRecord",
    "JournalState",
    "JournaledJob",
    "load_state",
    "read_journal",
]

_NAME = re.compile(r"Thread-(\d{1,9})_(\d{1,9})")


@dataclass(slots=True)
class JournaledJob:
    """What a journal knows of one job.

    Attributes:
        num: Its number in the sweep.
        key: Its identity across resumed sweeps.
        name: ``Thread-<slot>_<n>`` of its last attempt.
        params: Its parameters.
        status: ``"finished"``, ``"failed"`` or ``"unfinished"``.
        score: Its score, ``None`` if it gave none; the best so far if unfinished.
        value: What it returned; ``None`` too if JSON could not hold it.
        value_omitted: Whether JSON could not hold it.
        attempts: Attempts of the last session in which it ran.
        duration_s: Seconds its last attempt took.
        slot: Slot of its last attempt, from 1.
        device: Device of that slot.
        error: Last line of its last error, ``""`` if none.
        traceback: That error's traceback.
        info: What its runner noted (Hydra: the overrides).
        fixed: What each fixed argument that it ran with is known by
            (:class:`junky_core.values.fixed_arguments.FixedArguments`); ``None`` if that is not
            noted.
        fixed_key: What all of them are known by; ``""`` if that is not noted.
        superseded: Whether it does not count any more, for the sweep was resumed
            with other fixed arguments.
        finished_times: How often a ``job_finished`` was noted; more than once
            means that a finished job ran again.
    """

    num: int
    key: str = ""
    name: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    status: str = "unfinished"
    score: float | None = None
    value: Any = None
    value_omitted: bool = False
    attempts: int = 0
    duration_s: float = 0.0
    slot: int = 0
    device: str = ""
    error: str = ""
    traceback: str = ""
    info: dict[str, Any] = field(default_factory=dict)
    fixed: dict[str, str] | None = None
    fixed_key: str = ""
    superseded: bool = False
    finished_times: int = 0


@dataclass(frozen=True, slots=True)
class BestRecord:
    """A best model that was about to replace the file, or has (``saved``)."""

    job: int
    name: str
    score: float
    path: str
    sha256: str
    saved: bool


@dataclass(slots=True)
class JournalState:
    """What a journal adds up to.

    Attributes:
        sweep_id: The sweep's identity.
        kind: ``"python"`` or ``"hydra"``.
        spec: What was asked for, at the last start.
        seed: The last session's seed.
        direction: ``"maximize"`` or ``"minimize"``.
        jobs: Every job that was started, by key; of several jobs with one key
            the first that is not superseded. Jobs without a key are only in ``by_num``.
        by_num: Every job that was started, by number.
        slot_counters: Slot -> the next free ``n`` of its names.
        bests: Best models, oldest first.
        sessions: How many times the sweep was started or resumed.
        ended: Reason of the last ``sweep_ended``; ``None`` if the last session
            was killed.
    """

    sweep_id: str = ""
    kind: str = ""
    spec: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    direction: str = "maximize"
    jobs: dict[str, JournaledJob] = field(default_factory=dict)
    by_num: dict[int, JournaledJob] = field(default_factory=dict)
    slot_counters: dict[int, int] = field(default_factory=dict)
    bests: list[BestRecord] = field(default_factory=list)
    sessions: int = 0
    ended: str | None = None

    @property
    def highest_num(self) -> int:
        """The highest number of a job; -1 if there is none."""
        return max(self.by_num, default=-1)

    def counting(self) -> list[JournaledJob]:
        """Return the jobs that are not superseded, by number."""
        return [job for _, job in sorted(self.by_num.items()) if not job.superseded]

    def best_job(self, *, saved: bool = False) -> JournaledJob | None:
        """Return the finished job that ranks first, ``None`` if none gave a score.

        Args:
            saved: Of those alone whose model was on disk once.
        """
        savers = {best.job for best in self.bests}
        done = [
            job
            for job in self.counting()
            if job.status == "finished" and job.score is not None
            if not saved or job.num in savers
        ]
        return min(done, key=lambda j: rank_key(j.score, j.num, self.direction), default=None)

    def match_best_file(self, path: str | os.PathLike[str]) -> BestRecord | None:
        """Return the record of the model that lies at ``path``, told by its hash.

        A process may be killed after the file was renamed and before that was
        noted; the hash was noted before. ``None`` if there is no file, or one
        that this sweep did not write.
        """
        if not self.bests:
            return None
        try:
            digest = file_sha256(path)
        except OSError:
            return None
        return next((best for best in reversed(self.bests) if best.sha256 == digest), None)


def read_journal(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Yield the records of a journal, one by one, without their numbers and checksums.

    A last line cut short by a kill or a power cut is left out. The fields that are known have
    the types that the journal's writer gives them.

    Args:
        path: The file, or the sweep folder that it is in.

    Raises:
        JournalError: A line is damaged, missing, doubled or out of order (the message says
            which), or the file is no journal that this version knows.
        FileNotFoundError: There is no such file.
    """
    path = Path(path)
    if path.is_dir():
        path /= "journal.jsonl"
    lines = LineReader(path)
    with open_regular(path) as file:
        for line in file:
            record = lines.take(line)
            if record is not None:
                yield record


def load_state(path: str | os.PathLike[str]) -> JournalState:
    """Return what the journal at ``path`` (the file, or its folder) adds up to.

    Raises:
        JournalError: As :func:`read_journal`.
        FileNotFoundError: There is no such file.
    """
    state = JournalState()
    for record in read_journal(path):
        note = _NOTES.get(record["event"])
        if note is not None:
            note(state, record)
    for job in sorted(state.by_num.values(), key=lambda job: job.superseded):
        if job.key:
            state.jobs.setdefault(job.key, job)
    return state


def _note_sweep_started(state: JournalState, record: dict[str, Any]) -> None:
    state.sweep_id = record["sweep_id"]
    state.kind = record.get("kind", "")
    # A Hydra sweep notes the config of a job once; its next batches leave it out.
    kept = {"config": state.spec["config"]} if "config" in state.spec else {}
    state.spec = {**kept, **(decode_field(record, "spec") or {})}
    state.seed = decode_field(record, "seed")
    state.direction = record.get("direction", "maximize")
    state.sessions += 1
    state.ended = None
    superseded = set(record.get("superseded") or ())
    for job in state.by_num.values():
        job.superseded = job.num in superseded
        if job.fixed is None and not job.fixed_key and not job.superseded:
            job.fixed = state.spec.get("fixed")  # taken over by this run


def _note_job_started(state: JournalState, record: dict[str, Any]) -> None:
    job = _job(state, record)
    job.key = record["key"]
    job.params = decode_field(record, "params")
    job.info = decode_field(record, "info") or {}
    job.fixed_key, job.superseded = str(job.info.get("fixed", "")), False
    # A repaired journal may have lost the start that noted them.
    noted = not job.fixed_key or job.fixed_key == state.spec.get("fixed_key")
    job.fixed = state.spec.get("fixed") if noted else None
    job.status = "unfinished"
    if record["attempt"] == 1:  # also: run again in a resumed sweep
        job.score = None
    job.value, job.value_omitted, job.error, job.traceback = None, False, "", ""
    _note_attempt(state, job, record)


def _note_score(state: JournalState, record: dict[str, Any]) -> None:
    _job(state, record).score = decode_field(record, "score")


def _note_best(state: JournalState, record: dict[str, Any]) -> None:
    best = BestRecord(
        job=record["job"],
        name=record["name"],
        score=decode_field(record, "score"),
        path=record["path"],
        sha256=record["sha256"],
        saved=record["event"] == "best_saved",
    )
    if best.saved and state.bests and state.bests[-1].sha256 == best.sha256:
        state.bests[-1] = best
    else:
        state.bests.append(best)


def _note_attempt_failed(state: JournalState, record: dict[str, Any]) -> None:
    job = _job(state, record)
    job.error, job.traceback = record["error"], record["traceback"]
    job.duration_s = record["duration_s"]
    _note_attempt(state, job, record)


def _note_job_finished(state: JournalState, record: dict[str, Any]) -> None:
    job = _job(state, record)
    job.status = "finished"
    job.finished_times += 1
    job.params = decode_field(record, "params")
    job.score = decode_field(record, "score")
    job.value = decode_field(record, "value")
    job.value_omitted = bool(record.get("value_omitted"))
    job.error = job.traceback = ""
    job.duration_s = record["duration_s"]
    _note_attempt(state, job, record)


def _note_job_failed(state: JournalState, record: dict[str, Any]) -> None:
    job = _job(state, record)
    job.status = "failed"
    job.params = decode_field(record, "params")
    job.score = decode_field(record, "score")
    job.error, job.traceback = record["error"], record["traceback"]
    job.duration_s = record["duration_s"]
    _note_attempt(state, job, record)


def _note_sweep_ended(state: JournalState, record: dict[str, Any]) -> None:
    state.ended = record["reason"]


_NOTES = {
    "sweep_started": _note_sweep_started,
    "job_started": _note_job_started,
    "score_improved": _note_score,
    "best_saving": _note_best,
    "best_saved": _note_best,
    "attempt_failed": _note_attempt_failed,
    "job_finished": _note_job_finished,
    "job_failed": _note_job_failed,
    "sweep_ended": _note_sweep_ended,
}


def _job(state: JournalState, record: dict[str, Any]) -> JournaledJob:
    num = record["job"]
    if num not in state.by_num:
        state.by_num[num] = JournaledJob(num)
    return state.by_num[num]


def _note_attempt(state: JournalState, job: JournaledJob, record: dict[str, Any]) -> None:
    job.name, job.slot, job.device = record["name"], record["slot"], record["device"]
    job.attempts = record["attempt"]
    match = _NAME.fullmatch(job.name)
    if match:
        slot, count = int(match[1]), int(match[2]) + 1
        if state.slot_counters.get(slot, 0) < count:
            state.slot_counters[slot] = count
