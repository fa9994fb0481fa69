"""A job between being pulled from the source and being over."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from junky_core.devices import SlotSpec
from junky_core.executors.contract import AttemptEnd
from junky_core.jobs import EndKind, Job, JobResult, JobStatus

__all__ = ["Alone", "RunningJob"]


class Alone(Enum):
    """Where a job must be the only one that runs, after it ran out of memory."""

    ON_DEVICE = "on its device"
    IN_PROCESS = "in the process"


@dataclass(slots=True)
class RunningJob:
    """A job that is not over yet; handed to one slot at a time, which owns it then.

    Attributes:
        job: The job.
        attempts: How many attempts were counted, the running one included.
        score: The best score of all its attempts.
        name: Name of its last attempt.
        serial: Number of its last save that led.
        alone: Where no other job may run at the same time, ``None`` if others may.
        slot: Where its last attempt ran.
        losses: How many attempts were lost with their worker's machine.
    """

    job: Job
    attempts: int = 0
    score: float | None = None
    name: str = ""
    serial: int = 0
    alone: Alone | None = None
    slot: SlotSpec | None = None
    losses: int = 0
    unfit_slots: set[int] = field(default_factory=set)
    last: AttemptEnd | None = None

    def result(self, status: JobStatus, end: AttemptEnd, slot: SlotSpec | None) -> JobResult:
        """Return how it ended, by the end of its last attempt; no slot if it never started."""
        return JobResult(
            num=self.job.num,
            name=self.name,
            params=self.job.params,
            status=status,
            score=self.score,
            value=end.value,
            attempts=self.attempts,
            duration_s=end.duration_s,
            slot=0 if slot is None else slot.index,
            device="" if slot is None else slot.device,
            error=end.error,
            traceback=end.traceback,
            exception=end.exception,
        )

    def unfinished(self, *, failed_fast: bool) -> JobResult:
        """Return how it ends if it does not run again.

        Args:
            failed_fast: The sweep stopped since its first jobs died alike: it is one of them.
        """
        last = self.last
        died = failed_fast and last is not None and last.kind not in (EndKind.OOM, EndKind.LOST)
        status = JobStatus.FAILED if died else JobStatus.STOPPED
        never_ran = AttemptEnd(kind=EndKind.INTERRUPTED, duration_s=0.0)
        return self.result(status, last or never_ran, self.slot)
