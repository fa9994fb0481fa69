"""What the events of a sweep add up to, whether they come from its journal or as they happen.

Everything that asks how a sweep stands reads it here: resuming, the leaderboard, the report,
``watch`` and the progress display. What becomes of a job, event by event:

    job_started       running
    attempt_failed    waiting if it is to be retried in this sweep, else stopped
    job_finished      finished
    job_failed        failed
    sweep_started     stopped if it was running or waiting: what ran it is gone
    anything else     as it was

A sweep that was killed and resumed, and one that runs several batches of jobs, has several
``sweep_started``.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from junky_core.events import (
    AttemptFailed,
    BestSaved,
    BestSaving,
    Event,
    JobFailed,
    JobFinished,
    JobStarted,
    ScoreReported,
    SlotClosed,
    SweepEnded,
    SweepStarted,
)
from junky_core.files import file_sha256
from junky_core.jobs import JobResult, JobStatus, rank_key
from junky_core.record.rows import AttemptRecord, BestRecord, BestScore, JobRecord, SlotRecord

__all__ = ["SweepState"]

_NAME = re.compile(r"Thread-(\d{1,9})_(\d{1,9})")


class SweepState:
    """An observer that keeps what a sweep's events add up to. Not thread-safe.

    Attributes:
        sweep_id: The sweep's identity.
        kind: ``"python"`` or ``"hydra"``.
        spec: What was asked for, at the last start.
        seed: The last session's seed.
        direction: ``"maximize"`` or ``"minimize"``.
        devices: Device of each slot, the first slot's first.
        total: Jobs of this session, those of earlier batches and those taken from a journal
            included; ``None`` if not known.
        finished: How many of these have finished.
        failed: How many of them failed for good.
        jobs: Every job that was started and counts, by number.
        superseded: The jobs that do not count any more, by number: the sweep was resumed with
            other fixed arguments.
        waiting: Numbers of the jobs that wait to run again.
        attempts: All attempts, in the order in which they began.
        slots: The slots, by number.
        slot_counters: By slot, the next free ``n`` of its names.
        best: The best score so far; of equal ones that of the lowest job. ``None`` if none is
            a finite number.
        bests: ``(time, score, job)`` whenever the best score improved.
        saves: The best models that were saved, oldest first.
        sessions: ``[first, last]`` time of each start.
        ended: Reason of the last end; ``None`` if the sweep runs, or was killed.
        has_times: Whether times are known (a log has none).
        source: The file that it was read from.
    """

    def __init__(self) -> None:
        self.sweep_id = ""
        self.kind = ""
        self.spec: dict[str, Any] = {}
        self.seed: int | None = None
        self.direction = "maximize"
        self.devices: list[str] = []
        self.total: int | None = None
        self.finished = 0
        self.failed = 0
        self.jobs: dict[int, JobRecord] = {}
        self.superseded: dict[int, JobRecord] = {}
        self.waiting: set[int] = set()
        self.attempts: list[AttemptRecord] = []
        self.slots: dict[int, SlotRecord] = {}
        self.slot_counters: dict[int, int] = {}
        self.best: BestScore | None = None
        self.bests: list[tuple[float, float, int]] = []
        self.saves: list[BestRecord] = []
        self.sessions: list[list[float]] = []
        self.ended: str | None = None
        self.has_times = True
        self.source = ""
        self._open: dict[str, AttemptRecord] = {}  # that have not ended, by name

    @property
    def by_num(self) -> dict[int, JobRecord]:
        """Every job that was started, superseded ones included, by number and in its order."""
        return dict(sorted({**self.jobs, **self.superseded}.items()))

    @property
    def highest_num(self) -> int:
        """The highest number of a job; -1 if there is none."""
        return max(self.by_num, default=-1)

    @property
    def running(self) -> int:
        """How many attempts run now."""
        return sum(slot.attempt is not None for slot in self.slots.values())

    @property
    def left(self) -> int | None:
        """How many jobs have not begun, or wait to run again; ``None`` if that is not known."""
        if self.total is None:
            return None
        return max(0, self.total - self.finished - self.failed - self.running)

    def count(self, status: JobStatus) -> int:
        """Return how many jobs have ``status``."""
        return sum(job.status == status for job in self.jobs.values())

    def counting(self) -> list[JobRecord]:
        """Return the jobs that are not superseded, by number."""
        return [self.jobs[num] for num in sorted(self.jobs)]

    def results(self) -> list[JobResult]:
        """Return how each job that counts stands, by number."""
        return [job.result() for job in self.counting()]

    def best_job(self, *, saved: bool = False) -> JobRecord | None:
        """Return the finished job that ranks first, ``None`` if none gave a score.

        Args:
            saved: Of those alone whose model was on disk once.
        """
        savers = {save.job for save in self.saves}
        done = [
            job
            for job in self.jobs.values()
            if job.status is JobStatus.FINISHED and job.score is not None
            if not saved or job.num in savers
        ]
        return min(done, key=lambda j: rank_key(j.score, j.num, self.direction), default=None)

    def match_best_file(self, path: str | os.PathLike[str]) -> BestRecord | None:
        """Return the record of the model that lies at ``path``, told by its hash.

        A process may be killed after the file was renamed and before that was
        noted; the hash was noted before. ``None`` if there is no file, or one
        that this sweep did not write.
        """
        if not self.saves:
            return None
        try:
            digest = file_sha256(path)
        except OSError:
            return None
        return next((save for save in reversed(self.saves) if save.sha256 == digest), None)

    def on_event(self, event: Event) -> None:
        """Take note of ``event``."""
        note = self._NOTES.get(type(event))
        if note is not None:
            note(self, event)
        if self.sessions:
            session = self.sessions[-1]
            session[1] = max(session[1], event.time)

    def add(self, job: JobRecord, time: float) -> None:
        """Take note of a job that is known from elsewhere than events, a log for one."""
        self.jobs[job.num] = job
        if job.score is not None:
            self._offer(time, job.score, job.num, job.name)

    def supersede(self, nums: Iterable[int]) -> None:
        """Let the jobs ``nums``, and only these, not count."""
        nums = set(nums)
        if nums == self.superseded.keys():
            return
        known = self.by_num
        self.jobs = {num: job for num, job in known.items() if num not in nums}
        self.superseded = {num: job for num, job in known.items() if num in nums}
        self.best, self.bests = None, []
        for job in sorted(self.jobs.values(), key=lambda job: job.ended or 0.0):
            if job.score is not None:
                self._offer(job.ended or self.sessions[-1][1], job.score, job.num, job.name)

    def _sweep_started(self, event: SweepStarted) -> None:
        last = self.sessions[-1][1] if self.sessions else event.time
        for attempt in list(self._open.values()):
            self._job(attempt.job).status = JobStatus.STOPPED
            self._close(attempt.name, last, "lost")
        for num in self.waiting:
            self._job(num).status = JobStatus.STOPPED
        self.waiting.clear()
        self.sweep_id, self.kind, self.seed = event.sweep_id, event.kind, event.seed
        self.direction = event.direction
        # A Hydra sweep notes the config of a job once; its next batches leave it out.
        kept = {"config": self.spec["config"]} if "config" in self.spec else {}
        self.spec = {**kept, **event.spec}
        self.supersede(event.superseded)
        fixed = self.spec.get("fixed")
        if fixed is not None:  # jobs of which none were noted are taken over by this run
            for job in self.jobs.values():
                if job.fixed is None and not job.fixed_key:
                    job.fixed = fixed
        if event.resumed:  # what failed or was cut short runs again
            self.finished = self.failed = 0
        self.finished += event.already_finished
        done = self.finished + self.failed
        self.total = None if event.total is None else done + event.total
        self.devices = [str(device) for device in event.devices]
        self.slots = {n: SlotRecord(n, device) for n, device in enumerate(self.devices, 1)}
        self.sessions.append([event.time, event.time])
        self.ended = None

    def _job_started(self, event: JobStarted) -> None:
        if event.job in self.superseded:
            self.jobs[event.job] = self.superseded.pop(event.job)
        job = self._attempted(event)
        job.key, job.params, job.info = event.key, event.params, event.info
        job.fixed_key = str(event.info.get("fixed", ""))
        # A repaired journal may have lost the start that noted them.
        noted = not job.fixed_key or job.fixed_key == self.spec.get("fixed_key")
        job.fixed = self.spec.get("fixed") if noted else None
        job.status, job.value = JobStatus.RUNNING, None
        if event.attempt == 1:  # also: run again in a resumed sweep
            job.score = None
        self.waiting.discard(event.job)
        attempt = AttemptRecord(event.job, event.name, event.slot, event.attempt, event.time)
        self.attempts.append(attempt)
        self._open[event.name] = attempt
        self._slot(event.slot, event.device).attempt = attempt

    def _score_reported(self, event: ScoreReported) -> None:
        attempt = self._open.get(event.name)
        if attempt is not None:
            attempt.last_score = event.score
        if event.improved:
            self._job(event.job).score = event.score
            if attempt is not None:
                attempt.best_score = event.score
        self._offer(event.time, event.score, event.job, event.name)

    def _best_noted(self, event: BestSaving | BestSaved) -> None:
        saved = type(event) is BestSaved
        best = BestRecord(event.job, event.name, event.score, event.path, event.sha256, saved)
        if saved and self.saves and self.saves[-1].sha256 == best.sha256:
            self.saves[-1] = best
        else:
            self.saves.append(best)

    def _attempt_failed(self, event: AttemptFailed) -> None:
        job = self._attempted(event)
        job.status = JobStatus.WAITING if event.retry else JobStatus.STOPPED
        job.error, job.traceback, job.duration_s = event.error, event.traceback, event.duration_s
        if event.retry:
            self.waiting.add(event.job)
        self._close(event.name, event.time, event.kind)

    def _job_finished(self, event: JobFinished) -> None:
        job = self._over(event, JobStatus.FINISHED)
        self.finished += 1
        job.finished_times += 1
        job.value = event.value
        job.error = job.traceback = ""
        if event.score is not None:
            self._offer(event.time, event.score, event.job, event.name)

    def _job_failed(self, event: JobFailed) -> None:
        job = self._over(event, JobStatus.FAILED)
        self.failed += 1
        job.error, job.traceback = event.error, event.traceback

    def _slot_closed(self, event: SlotClosed) -> None:
        lines = event.reason.strip().splitlines() or ["closed"]
        self._slot(event.slot, event.device).closed = lines[-1]

    def _sweep_ended(self, event: SweepEnded) -> None:
        self.ended = event.reason
        for slot in self.slots.values():
            slot.attempt = None

    def _over(self, event: JobFinished | JobFailed, status: JobStatus) -> JobRecord:
        job = self._attempted(event)
        job.status, job.params, job.score = status, event.params, event.score
        job.duration_s, job.ended = event.duration_s, event.time
        self.waiting.discard(event.job)
        if self.best is not None and self.best.job == event.job:
            self.best = self.best._replace(name=event.name)  # listed by its last attempt
        self._close(event.name, event.time, "finished" if status is JobStatus.FINISHED else "error")
        return job

    def _attempted(self, event: JobStarted | AttemptFailed | JobFinished | JobFailed) -> JobRecord:
        """Return the job of an event, with the attempt of the event noted."""
        job = self._job(event.job)
        job.slot, job.device, job.attempts = event.slot, event.device, event.attempt
        if job.name != event.name:
            job.name = event.name
            match = _NAME.fullmatch(event.name)
            if match:
                slot, count = int(match[1]), int(match[2]) + 1
                self.slot_counters[slot] = max(count, self.slot_counters.get(slot, 0))
        return job

    def _job(self, num: int) -> JobRecord:
        job = self.jobs.get(num) or self.superseded.get(num)
        if job is None:
            job = self.jobs[num] = JobRecord(num)
        return job

    def _slot(self, number: int, device: str) -> SlotRecord:
        if number not in self.slots:
            self.slots[number] = SlotRecord(number, device)
        return self.slots[number]

    def _close(self, name: str, time: float, outcome: str) -> None:
        attempt = self._open.pop(name, None)
        if attempt is None:
            return
        attempt.end, attempt.outcome = time, outcome
        slot = self.slots.get(attempt.slot)
        if slot is not None and slot.attempt is attempt:
            slot.attempt = None

    def _offer(self, time: float, score: float, job: int, name: str) -> None:
        """Take a score for the best so far if it is."""
        if not math.isfinite(score):
            return
        before = self.best
        if before is not None and score == before.score:
            if job < before.job:
                self.best = BestScore(score, job, name)
        elif before is None or (score > before.score) == (self.direction == "maximize"):
            self.best = BestScore(score, job, name)
            self.bests.append((time, score, job))

    _NOTES: ClassVar[dict[type[Event], Callable[[Any, Any], None]]] = {
        SweepStarted: _sweep_started,
        JobStarted: _job_started,
        ScoreReported: _score_reported,
        BestSaving: _best_noted,
        BestSaved: _best_noted,
        AttemptFailed: _attempt_failed,
        JobFinished: _job_finished,
        JobFailed: _job_failed,
        SlotClosed: _slot_closed,
        SweepEnded: _sweep_ended,
    }
