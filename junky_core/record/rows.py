"""The records of one job, one attempt, one slot and one best model of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from junky_core.jobs import JobResult, JobStatus

__all__ = ["AttemptRecord", "BestRecord", "BestScore", "JobRecord", "SlotRecord"]


@dataclass(slots=True)
class JobRecord:
    """One job.

    Attributes:
        num: Its number in the sweep.
        key: Its identity across resumed sweeps; ``""`` if the record of its start is lost.
        name: ``Thread-<slot>_<n>`` of its last attempt.
        params: Its parameters.
        status: Its status.
        score: Its score, so far if it is not over; ``None`` if it gave none.
        value: What it returned; also ``None`` if the journal could not hold the value.
        attempts: How many attempts it took in the last session in which it ran.
        duration_s: How long its last attempt took, in seconds.
        slot: The slot of its last attempt, from 1; 0 if unknown.
        device: The device of that slot.
        error: The last line of its last error, ``""`` if there was none or it has finished since.
        traceback: The traceback of that error.
        ended: When it was last over, in seconds since the epoch; ``None`` if it never was.
        info: Data from the front end (Hydra: the overrides).
        fixed: The fingerprints of its fixed arguments, by name
            (:class:`junky_core.values.fixed_arguments.FixedArguments`); ``None`` if not recorded.
        fixed_key: The digest of all of them; ``""`` if not recorded.
        finished_times: How often it finished; more than once if a finished job ran again.
    """

    num: int
    key: str = ""
    name: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    status: JobStatus = JobStatus.STOPPED
    score: float | None = None
    value: Any = None
    attempts: int = 1
    duration_s: float = 0.0
    slot: int = 0
    device: str = ""
    error: str = ""
    traceback: str = ""
    ended: float | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, str] | None = None
    fixed_key: str = ""
    finished_times: int = 0

    def result(self) -> JobResult:
        """Return it as a result; a job that is not over counts as stopped."""
        return JobResult(
            num=self.num,
            name=self.name,
            params=self.params,
            status=self.status if self.status.is_over else JobStatus.STOPPED,
            score=self.score,
            value=self.value,
            attempts=self.attempts,
            duration_s=self.duration_s,
            slot=self.slot,
            device=self.device,
            error=self.error,
            traceback=self.traceback,
        )


@dataclass(slots=True)
class AttemptRecord:
    """One attempt of a job on a slot. Times are seconds since the epoch.

    Attributes:
        job: The job's number.
        name: ``Thread-<slot>_<n>``.
        slot: The slot, from 1.
        number: The number of the attempt within the job, from 1.
        start: When it started.
        end: When it ended, ``None`` if it is running.
        outcome: ``"running"``, ``"finished"``, ``"lost"`` (the process was killed), or the
            ``kind`` of its :class:`junky_core.events.AttemptFailed`.
        last_score: The last score that is known.
        best_score: The best score.
    """

    job: int
    name: str
    slot: int
    number: int
    start: float
    end: float | None = None
    outcome: str = "running"
    last_score: float | None = None
    best_score: float | None = None


@dataclass(slots=True)
class SlotRecord:
    """A slot, its current attempt (``None``: idle), and the reason if it was ``closed``."""

    number: int
    device: str = ""
    attempt: AttemptRecord | None = None
    closed: str = ""


@dataclass(frozen=True, slots=True)
class BestRecord:
    """A best model that was about to replace the file, or has replaced it (``saved``)."""

    job: int
    name: str
    score: float
    path: str
    sha256: str
    saved: bool


class BestScore(NamedTuple):
    """The best score of a sweep, and the job and attempt that gave it."""

    score: float
    job: int
    name: str
