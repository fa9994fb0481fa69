"""Which attempt runs next, and what becomes of a job when an attempt ends.

Slots pull. Everything here happens under one lock, in the pulling slot's
thread, and takes microseconds; nothing here trains, builds or writes. Only the
source of jobs is asked outside the lock (:mod:`junky_core.engine.intake`).

Rounds, in order; a round begins when the one before has nothing left that
runs or could run (a source that says "not now" is then passed over):

    1. jobs from the source, and jobs that a closed slot handed back (those of 3. wait for it)
    2. jobs whose attempt failed, again, up to ``max_retries`` times each
    3. jobs that ran out of memory, each alone on its device
       (alone in the process, if it was the host's memory)

What an attempt's end leads to:

    ended           counted   job is then
    finished        yes       finished
    error           yes       in the next round, or failed for good
    oom             yes       in round 3, or failed for good
    timeout         yes       failed for good
    interrupted     no        stopped: a resumed sweep runs it again
    poisoned        yes       as error; all slots of its device are closed
    .. device closed before   no        handed back
    loaders         no        handed to a slot that has not failed it yet;
                              none left: as error
    crashed         yes       as error
    lost            no        handed back; failed for good the sixth time
    fatal           yes       failed for good, and the sweep ends

An end may also close its slot (``closes_slot``), whatever becomes of the job.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

from junky_core.devices import SlotSpec
from junky_core.engine.intake import Intake, News, SourceState
from junky_core.engine.running_job import Alone, RunningJob
from junky_core.errors import SourceError
from junky_core.events import ScoreReported
from junky_core.executors.contract import AttemptEnd
from junky_core.jobs import EndKind, Job, JobResult, JobSource, JobStatus

__all__ = ["MOST_LOSSES", "Decision", "Scheduler"]

MOST_LOSSES = 5  # how often an attempt of a job may be lost and begun again
_NOT_RETRIED = (EndKind.TIMEOUT, EndKind.FATAL, EndKind.LOST)
_DEATHS = (EndKind.ERROR, EndKind.LOADERS, EndKind.CRASHED)  # that may be every job's


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows from an attempt's end."""

    result: JobResult | None  # the job is over
    retry: bool  # it runs again in this sweep
    closed: tuple[SlotSpec, ...] = ()
    fail_fast: bool = False


class Scheduler:
    """Hands attempts to slots for one run of a job source.

    Thread-safe. ``take`` blocks; all else returns at once.

    Args:
        source: Where jobs come from.
        slots: The slots that are open.
        max_retries: How often a job may run again.
        fail_fast: Stop if this many jobs, the first of the run, all fail with the same error
            at the same line; ``None``: never.
        on_over: Called under the lock with each result, in order of ending.
    """

    def __init__(
        self,
        source: JobSource,
        slots: Sequence[SlotSpec],
        *,
        max_retries: int,
        fail_fast: int | None,
        on_over: Callable[[JobResult], None],
    ) -> None:
        self._changed = threading.Condition()  # guards all below
        self._intake = Intake(source)
        self._max_retries = max_retries
        self._fail_fast = fail_fast
        self._on_over = on_over
        self._open = {slot.index: slot for slot in slots}
        self._queue: deque[RunningJob] = deque()  # of this round; handed-back jobs come first
        self._next_round: deque[RunningJob] = deque()
        self._alone: deque[RunningJob] = deque()
        self._running: dict[int, RunningJob] = {}  # by slot
        self._first_location: Hashable = None
        self._same_deaths = 0  # -1 once a job ended otherwise
        self._stopping = False

    @property
    def stopping(self) -> bool:
        """Whether no further attempt will be handed out."""
        return self._stopping

    @property
    def asking(self) -> bool:
        """Whether a slot is asking the source."""
        with self._changed:
            return self._intake.state is SourceState.ASKING

    @property
    def open_slots(self) -> int:
        """How many slots still take jobs."""
        with self._changed:
            return len(self._open)

    def take(self, slot: SlotSpec) -> RunningJob | None:
        """Return the next job for ``slot``, waiting for one if need be; ``None`` at the end.

        Raises:
            SourceError: The source raised, broke its contract, or waits for news that cannot come.
        """
        while True:
            with self._changed:
                while not self._stopping and slot.index in self._open:
                    job = self._next_for(slot)
                    if job is not None:
                        job.attempts += 1
                        job.slot = slot
                        self._running[slot.index] = job
                        return job
                    if self._may_ask(slot):
                        break
                    if self._is_over():
                        return None
                    self._check_not_stuck()
                    self._changed.wait()
                else:
                    return None
                news = self._intake.begin()
            self._ask(news)

    def hear(self, report: ScoreReported) -> None:
        """Queue an intermediate score for the source."""
        with self._changed:
            if self._intake.add(report):
                self._changed.notify_all()

    def report(self, slot: SlotSpec, job: RunningJob, end: AttemptEnd) -> Decision:
        """Take note of how an attempt ended and decide what follows."""
        with self._changed:
            try:
                decision = self._decide(slot, job, end)
                if decision.result is not None:
                    self._on_over(decision.result)
                    self._intake.add(decision.result)
            finally:
                self._running.pop(slot.index, None)
                self._changed.notify_all()
            return decision

    def open_slot(self, slot: SlotSpec) -> None:
        """Give jobs to ``slot``, too."""
        with self._changed:
            self._open[slot.index] = slot
            self._changed.notify_all()

    def close_slot(self, slot: SlotSpec) -> None:
        """Give ``slot`` no more jobs; an attempt that runs there continues."""
        with self._changed:
            self._close((slot,))
            self._changed.notify_all()

    def stop(self) -> None:
        """Hand out nothing more."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def unfinished(self) -> list[RunningJob]:
        """Return jobs that were pulled and are not over: handed back, or waiting to run again."""
        with self._changed:
            return [*self._queue, *self._next_round, *self._alone]

    def tell_source(self, unfinished: Iterable[JobResult]) -> None:
        """Let the source hear what it has not heard yet, when no slot is at work any more.

        Args:
            unfinished: The results of :meth:`unfinished`.

        Raises:
            SourceError: The source raised.
        """
        with self._changed:
            for result in unfinished:
                self._intake.add(result)
        self._intake.hand_over_rest()

    def left_in_source(self) -> int | None:
        """Return how many jobs were never pulled, ``None`` if that is not known."""
        with self._changed:
            return self._intake.left

    def _ask(self, news: Sequence[News]) -> None:
        """Ask the source for a job and queue it. Not under the lock."""
        try:
            answer = self._intake.ask(news)
        except BaseException:
            with self._changed:
                self._intake.state = SourceState.BROKEN
                self._changed.notify_all()
            raise
        with self._changed:
            self._intake.done(answer)
            if isinstance(answer, Job):  # kept even if the sweep is stopping by now
                self._queue.append(RunningJob(answer, score=answer.score))
            self._changed.notify_all()

    def _may_ask(self, slot: SlotSpec) -> bool:
        """Tell whether ``slot`` may ask the source now. Under the lock."""
        return self._intake.state is SourceState.READY and not self._must_be_idle(slot)

    def _must_be_idle(self, slot: SlotSpec) -> bool:
        """Tell whether a job runs that ``slot`` must leave alone. Under the lock."""
        return any(
            job.alone is Alone.IN_PROCESS
            or (job.alone and job.slot is not None and job.slot.device == slot.device)
            for job in self._running.values()
        )

    def _check_not_stuck(self) -> None:
        """Raise if the source waits for news and none can come. Under the lock."""
        busy = self._running or self._queue or self._next_round or self._alone
        if self._intake.state is SourceState.NOT_NOW and not busy:
            raise SourceError(
                f"{self._intake.name} has no job now (NOT_NOW), but no job runs and none waits to "
                "run, so it would never be asked again"
            )

    def _is_over(self) -> bool:
        """Tell whether nothing runs and nothing will. Under the lock."""
        if self._running:
            return False
        if self._intake.state is SourceState.EXHAUSTED:
            return not (self._queue or self._next_round or self._alone)
        return self._intake.state is SourceState.BROKEN

    def _next_for(self, slot: SlotSpec) -> RunningJob | None:
        """Pick a job that may run on ``slot`` now. Under the lock."""
        if self._must_be_idle(slot):
            return None
        for index, job in enumerate(self._queue):
            if slot.index not in job.unfit_slots:
                del self._queue[index]
                return job
        if self._queue or self._intake.state in (SourceState.READY, SourceState.ASKING):
            return None
        if any(not job.alone for job in self._running.values()):
            return None
        if self._next_round and not self._running:
            self._queue, self._next_round = self._next_round, deque()
            return self._next_for(slot)
        if self._next_round:
            return None
        return self._next_alone(slot)

    def _next_alone(self, slot: SlotSpec) -> RunningJob | None:
        """Pick a job that must run alone, if ``slot`` can give it that. Under the lock."""
        for index, job in enumerate(self._alone):
            if slot.index not in job.unfit_slots and (
                job.alone is Alone.ON_DEVICE or not self._running
            ):
                del self._alone[index]
                return job
        return None

    def _decide(self, slot: SlotSpec, job: RunningJob, end: AttemptEnd) -> Decision:
        closed: tuple[SlotSpec, ...] = ()
        if end.closes_slot and slot.index in self._open:
            closed = (slot,)
        if end.kind is EndKind.FINISHED:
            self._same_deaths = -1
            self._close(closed)
            return Decision(job.result(JobStatus.FINISHED, end, slot), retry=False, closed=closed)
        job.last = end
        if end.kind is EndKind.POISONED:
            if slot.index not in self._open:  # it died of its neighbour's fault
                return self._hand_back(job)
            closed = tuple(s for s in self._open.values() if s.device == slot.device)
        elif end.kind is EndKind.LOADERS:
            job.unfit_slots.add(slot.index)
            fit = [i for i in self._open if i not in job.unfit_slots]
            if fit:
                closed = (slot,) if end.loaders_elsewhere else closed
                self._close(closed)
                return self._hand_back(job, closed)
            job.unfit_slots.clear()
        self._close(closed)
        if end.kind is EndKind.LOST:
            job.losses += 1
            if job.losses <= MOST_LOSSES:
                return self._hand_back(job, closed)
        if end.kind is EndKind.INTERRUPTED:
            job.attempts -= 1
            result = job.result(JobStatus.STOPPED, end, slot)
            return Decision(result, retry=False, closed=closed)
        failed = Decision(job.result(JobStatus.FAILED, end, slot), retry=False, closed=closed)
        if self._dies_alike(job, end):
            self._stopping = True
            return replace(failed, fail_fast=True)
        if end.kind in _NOT_RETRIED or job.attempts > self._max_retries:
            return failed
        if end.kind is EndKind.OOM or end.host_memory:
            in_process = end.host_memory or job.alone is Alone.IN_PROCESS
            job.alone = Alone.IN_PROCESS if in_process else Alone.ON_DEVICE
        (self._alone if job.alone else self._next_round).append(job)
        return Decision(None, retry=True, closed=closed)

    def _close(self, slots: Sequence[SlotSpec]) -> None:
        for slot in slots:
            self._open.pop(slot.index, None)
        for job in (*self._queue, *self._next_round, *self._alone):
            if job.unfit_slots.issuperset(self._open):
                job.unfit_slots.clear()  # no slot would be fit any more: let any try

    def _hand_back(self, job: RunningJob, closed: tuple[SlotSpec, ...] = ()) -> Decision:
        job.attempts -= 1
        if job.alone:
            self._alone.appendleft(job)
        else:
            self._queue.append(job)
        return Decision(None, retry=bool(self._open), closed=closed)

    def _dies_alike(self, job: RunningJob, end: AttemptEnd) -> bool:
        if self._fail_fast is None or self._same_deaths < 0 or job.attempts > 1:
            return False
        if end.kind not in _DEATHS or end.location is None:
            if end.kind not in (EndKind.OOM, EndKind.LOST):
                self._same_deaths = -1
            return False
        if self._same_deaths and end.location != self._first_location:
            self._same_deaths = -1
            return False
        self._first_location = end.location
        self._same_deaths += 1
        return self._same_deaths >= self._fail_fast
