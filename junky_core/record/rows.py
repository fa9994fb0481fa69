"""What is known of one job, one attempt, one slot, and one best model of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from junky_core.jobs import JobResult, JobStatus

__all__ = ["AttemptRecord", "BestRecord", "BestScore", "JobRecord", "SlotRecord"]


@dataclass(slots=True)
class JobRecord:
    """What is known of one job.

    Attributes:
        num: Its number in the sweep.
        key: Its identity across resumed sweeps; ``""`` if its start is not known.
        name: ``Thread-<slot>_<n>`` of its last attempt.
        params: Its parameters.
        status: How it stands.
        score: Its score, ``None`` if it gave none; the best so far if it is not over.
        value: What it returned; ``None`` too if a journal could not hold it.
        attempts: Attempts of the last session in which it ran.
        duration_s: Seconds its last attempt took.
        slot: Slot of its last attempt, from 1; 0 if not known.
        device: Device of that slot.
        error: Last line of its last error, ``""`` if none or if it has finished since.
        traceback: That error's traceback.
        ended: When it was last over, in seconds since the epoch; ``None`` if it never was.
        info: What its runner noted (Hydra: the overrides).
        fixed: What each fixed argument that it ran with is known by
            (:class:`junky_core.values.fixed_arguments.FixedArguments`); ``None`` if that is not
            noted.
        fixed_key: What all of them are known by; ``""`` if that is not noted.
        finished_times: How often it finished; more than once means that a finished job ran again.
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
        """Return it as a result; what is not over yet counts as stopped."""
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
        number: Which attempt of the job it is, from 1.
        start: When it began.
        end: When it was over, ``None`` if it runs.
        outcome: ``"running"``, ``"finished"``, ``"lost"`` (the process was killed), or what
            :class:`junky_core.events.AttemptFailed` calls its kind.
        last_score: The last score it gave that is known.
        best_score: Its best score.
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
    """A slot, the attempt that it runs (``None``: idle), and why it was ``closed``, if it was."""

    number: int
    device: str = ""
    attempt: AttemptRecord | None = None
    closed: str = ""


@dataclass(frozen=True, slots=True)
class BestRecord:
    """A best model that was about to replace the file, or has (``saved``)."""

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
