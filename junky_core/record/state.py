"""The state of a sweep, computed from its events: those of a journal, or live ones.

Resuming, the leaderboard, the report, ``watch`` and the progress display all use this state. The
status of a job after each event:

    job_started       running
    attempt_failed    waiting if it will be retried in this sweep, else stopped
    job_finished      finished
    job_failed        failed
    sweep_started     stopped if it was running or waiting: the process that ran it is gone
    anything else     unchanged

A sweep that was resumed, or that runs several batches of jobs, has several ``sweep_started``.
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
from junky_core.jobs import Direction, JobResult, JobStatus, rank_key
from junky_core.record.rows import AttemptRecord, BestRecord, BestScore, JobRecord, SlotRecord

__all__ = ["SweepState"]

_NAME = re.compile(r"Thread-(\d{1,9})_(\d{1,9})")


class SweepState:
    """An observer that keeps the state of a sweep. Not thread-safe.

    Attributes:
        sweep_id: The sweep's identity.
        kind: ``"python"`` or ``"hydra"``.
        spec: The arguments of the sweep, as of the last start.
        seed: The seed of the last session.
        direction: Whether higher or lower scores are better.
        devices: The device of each slot, in the order of the slots.
        total: How many jobs this session has, including those of earlier batches and those
            that were already finished; ``None`` if unknown.
        finished: How many of these have finished.
        failed: How many of them failed for good.
        jobs: Every job that was started and is not superseded, by number.
        superseded: The jobs that no longer count, by number: the sweep was resumed with
            other fixed arguments.
        waiting: Numbers of the jobs that will be retried.
        attempts: All attempts, in the order in which they started.
        slots: The slots, by number.
        slot_counters: For each slot, the next free ``n`` of its names.
        best: The best score so far; of equal ones that of the lowest job. ``None`` if there
            is not a finite score.
        bests: ``(time, score, job)`` of each improvement of the best score.
        saves: The best models that were saved, oldest first.
        sessions: ``[first, last]`` time of each session.
        ended: The reason of the last end; ``None`` if the sweep is running, or was killed.
        has_times: Whether times are known (logs have none).
        source: The file that the state was read from.
    """

    def __init__(self) -> None:
        self.sweep_id = ""
        self.kind = ""
        self.spec: dict[str, Any] = {}
        self.seed: int | None = None
        self.direction = Direction.MAXIMIZE
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
        self._open: dict[str, AttemptRecord] = {}  # running attempts, by name

    @property
    def by_num(self) -> dict[int, JobRecord]:
        """Every job that was started, including superseded ones, by number and in that order."""
        return dict(sorted({**self.jobs, **self.superseded}.items()))

    @property
    def highest_num(self) -> int:
        """The highest number of a job; -1 if there is none."""
        return max(self.by_num, default=-1)

    @property
    def running(self) -> int:
        """How many attempts are running."""
        return sum(slot.attempt is not None for slot in self.slots.values())

    @property
    def left(self) -> int | None:
        """How many jobs have not started, or wait for a retry; ``None`` if unknown."""
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
        """Return the result so far of each job that is not superseded, by number."""
        return [job.result() for job in self.counting()]

    def best_job(self, *, saved: bool = False) -> JobRecord | None:
        """Return the finished job that ranks first, ``None`` if none gave a score.

        Args:
            saved: Consider only jobs whose model was saved.
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
        """Return the record of the model at ``path``, found by its hash.

        The hash is recorded before the file is renamed, so the model is found even
        if the process was killed right after that. ``None`` if there is no file, or
        if this sweep did not write it.
        """
        if not self.saves:
            return None
        try:
            digest = file_sha256(path)
        except OSError:
            return None
        return next((save for save in reversed(self.saves) if save.sha256 == digest), None)

    def on_event(self, event: Event) -> None:
        """Update the state with ``event``."""
        note = self._NOTES.get(type(event))
        if note is not None:
            note(self, event)
        if self.sessions:
            session = self.sessions[-1]
            session[1] = max(session[1], event.time)

    def add(self, job: JobRecord, time: float) -> None:
        """Add a job that is not known from events but, for example, from a log."""
        self.jobs[job.num] = job
        if job.score is not None:
            self._offer(time, job.score, job.num, job.name)

    def supersede(self, nums: Iterable[int]) -> None:
        """Mark the jobs ``nums``, and only these, as superseded."""
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
        self.direction = Direction(event.direction)  # a journal has its text
        # A Hydra sweep records the config of a job once; later batches leave it out.
        kept = {"config": self.spec["config"]} if "config" in self.spec else {}
        self.spec = {**kept, **event.spec}
        self.supersede(event.superseded)
        fixed = self.spec.get("fixed")
        if fixed is not None:  # assumed for jobs whose fixed arguments were not recorded
            for job in self.jobs.values():
                if job.fixed is None and not job.fixed_key:
                    job.fixed = fixed
        if event.resumed:  # failed and unfinished jobs run again
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
        # A repaired journal may have lost the start that recorded them.
        noted = not job.fixed_key or job.fixed_key == self.spec.get("fixed_key")
        job.fixed = self.spec.get("fixed") if noted else None
        job.status, job.value = JobStatus.RUNNING, None
        if event.attempt == 1:  # it may have run before, in an earlier session
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
        """Record the attempt of an event in its job, and return the job."""
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
        """Update the best score."""
        if not math.isfinite(score):
            return
        before = self.best
        if before is not None and score == before.score:
            if job < before.job:
                self.best = BestScore(score, job, name)
        elif before is None or (score > before.score) == (self.direction == Direction.MAXIMIZE):
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
