"""Makes the events of a sweep from the engine's records."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from junky_core.devices import SlotSpec
from junky_core.engine.running_job import RunningJob
from junky_core.events import AttemptFailed, JobFailed, JobFinished, JobStarted, SweepEnded
from junky_core.executors.contract import AttemptEnd
from junky_core.job.best import BestModel
from junky_core.jobs import Attempt, JobResult

__all__ = ["attempt_failed", "job_over", "job_started", "sweep_ended"]


def job_started(job: RunningJob, slot: SlotSpec) -> JobStarted:
    """Return the event of an attempt that begins."""
    return JobStarted(
        job=job.job.num,
        key=job.job.key,
        params=job.job.params,
        name=job.name,
        slot=slot.index,
        device=slot.device,
        attempt=job.attempts,
        info=job.job.info,
    )


def attempt_failed(
    attempt: Attempt, slot: SlotSpec, end: AttemptEnd, *, retry: bool
) -> AttemptFailed:
    """Return the event of an attempt that ended without a result."""
    return AttemptFailed(
        job=attempt.job.num,
        name=attempt.name,
        slot=slot.index,
        device=slot.device,
        attempt=attempt.number,
        kind=end.kind,
        error=end.error,
        traceback=end.traceback,
        duration_s=end.duration_s,
        retry=retry,
    )


def job_over(result: JobResult) -> JobFinished | JobFailed | None:
    """Return the event of a job that is over, ``None`` of one that was only stopped."""
    common: dict[str, Any] = {
        "job": result.num,
        "name": result.name,
        "params": result.params,
        "slot": result.slot,
        "device": result.device,
        "attempt": result.attempts,
        "score": result.score,
        "duration_s": result.duration_s,
    }
    if result.status == "finished":
        return JobFinished(value=result.value, **common)
    if result.status == "failed":
        return JobFailed(error=result.error, traceback=result.traceback, **common)
    return None


def sweep_ended(
    results: Collection[JobResult],
    best_model: BestModel,
    *,
    reason: str,
    unsaved: int,
    left: int,
    duration_s: float,
) -> SweepEnded:
    """Return the event of the sweep's end.

    Args:
        results: How its jobs ended.
        best_model: The file whose model is named as the best.
        reason: Why it ended.
        unsaved: Finished jobs whose best model is not on disk: they count as left.
        left: Jobs that were stopped, or never ran.
        duration_s: How long it took.
    """
    best = best_model.saved
    return SweepEnded(
        reason=reason,
        finished=sum(result.status == "finished" for result in results) - unsaved,
        failed=sum(result.status == "failed" for result in results),
        left=left + unsaved,
        duration_s=duration_s,
        best_job=None if best is None else best.job,
        best_name=None if best is None else best.name,
        best_score=None if best is None else best.score,
        best_path=None if best is None else str(best_model.path),
    )
