"""One run of a source of jobs: what happens in the driver threads of its slots.

A driver thread pulls attempts from the scheduler, has the slot's worker execute
them, and reports how they ended. The main thread only watches
(:mod:`junky_core.engine.watch`).
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from junky_core.devices import SlotSpec
from junky_core.engine.announcements import attempt_failed, job_over, job_started
from junky_core.engine.drivers import Driver, Drivers
from junky_core.engine.running_job import RunningJob
from junky_core.engine.scheduler import Scheduler
from junky_core.engine.settings import SweepSettings
from junky_core.events import EndReason, Event, SlotClosed
from junky_core.executors.contract import AttemptEnd
from junky_core.job.best import BestModel
from junky_core.jobs import Attempt, EndKind, JobResult, JobSource, JobStatus
from junky_core.values.user_text import error_line

__all__ = ["AtWork", "Run"]


@dataclass(slots=True)
class AtWork:
    """An attempt that a worker executes.

    Attributes:
        driver: Of its slot.
        name: The attempt's.
        num: The job's.
        deadline: Its time limit, on ``time.monotonic()``'s clock.
        remind_at: When to warn next that it runs on past its time limit.
    """

    driver: Driver
    name: str
    num: int
    deadline: float | None
    remind_at: float | None = None


class Run:
    """The slots' side of one run.

    Args:
        source: Where its jobs come from.
        drivers: The sweep's.
        settings: How the sweep is run.
        best: The sweep's best model.
        emit: Where events go.

    Attributes:
        scheduler: Which attempt runs next.
        results: How jobs ended, by number.
        unsaved: Finished jobs whose best model is not on disk yet.
        reason: Why the run ends before its jobs do, ``None`` if it does not.
        crash: What is raised when all is written down.
        signum: SIGINT, if a job raised ``KeyboardInterrupt``.
    """

    def __init__(
        self,
        source: JobSource,
        drivers: Drivers,
        settings: SweepSettings,
        best: BestModel,
        emit: Callable[[Event], None],
    ) -> None:
        self._drivers = drivers
        self._settings = settings
        self._best = best
        self._emit = emit
        self._chosen = [driver for driver in drivers.all if not driver.closed][: source.total]
        self.results: dict[int, JobResult] = {}  # guarded by the scheduler's lock
        self.unsaved: set[int] = set()
        self.reason: EndReason | None = None
        self.signum: int | None = None
        self.scheduler = Scheduler(
            source,
            [driver.spec for driver in self._chosen],
            max_retries=settings.max_retries,
            fail_fast=settings.fail_fast,
            on_over=self.keep,
        )
        self._lock = threading.Lock()  # guards all below
        self.crash: BaseException | None = None
        self._opening = 0  # slots that are being set up
        self._at_work: dict[int, AtWork] = {}  # by slot
        self._stop_why = ""  # why attempts are asked to end, once they are
        self._over = False

    @property
    def slots(self) -> int:
        """How many slots it starts with."""
        return len(self._chosen)

    @property
    def at_work(self) -> list[AtWork]:
        """The attempts that are being executed."""
        with self._lock:
            return list(self._at_work.values())

    def start(self) -> None:
        """Start the drivers of the slots."""
        self._drivers.drive(self._chosen, self._drive)

    def add(self, driver: Driver) -> None:
        """Give jobs to a new slot, unless the run is over."""
        with self._lock:
            if not self._over:
                self._drivers.drive([driver], self._drive_new)

    def over(self, *, wait_for_slots: bool) -> bool:
        """Return whether no slot is at work any more; no new one is taken from then on.

        Args:
            wait_for_slots: Continue without a slot as long as jobs are left.
        """
        with self._lock:
            idle = self._drivers.idle.is_set()
            self._over = self._over or (idle and not (wait_for_slots and self.lacks_slots))
            return self._over

    @property
    def lacks_slots(self) -> bool:
        """Whether jobs are left and no slot is open."""
        scheduler = self.scheduler
        return not scheduler.stopping and not scheduler.open_slots and self.left != 0

    def is_stopped(self, *, patient: bool) -> bool:
        """Return whether all that still runs is preparation for jobs that will not run.

        Args:
            patient: Wait for an answer of the source, so that the job it gives is not lost.
        """
        if not self.scheduler.stopping:
            return False
        asking = 0 if patient else self.scheduler.asking
        return self._drivers.busy == self._opening + asking

    @property
    def left(self) -> int | None:
        """How many jobs did not run to an end, ``None`` if unknown."""
        stopped = sum(result.status == JobStatus.STOPPED for result in list(self.results.values()))
        unpulled = self.scheduler.left_in_source()
        if unpulled is None:
            return None
        waiting = [job for job in self.scheduler.unfinished() if job.job.num not in self.results]
        return stopped + unpulled + len(waiting)

    def close_slot(self, slot: SlotSpec, reason: str) -> None:
        """Give no more jobs to a slot; say why."""
        driver = self._drivers.of(slot)
        self.scheduler.close_slot(slot)
        if not driver.closed:
            driver.closed = reason
            self._emit(SlotClosed(slot=slot.index, device=slot.device, reason=reason))

    def end(self, reason: EndReason, why: str) -> int:
        """Start no more attempts, and ask the running ones to end; return their number."""
        self.reason = reason
        self.scheduler.stop()
        with self._lock:
            self._stop_why = self._stop_why or why
            asked = list(self._at_work.values())
        for attempt in asked:
            attempt.driver.worker.stop(attempt.name, EndKind.INTERRUPTED, why)
        return len(asked)

    def fail(self, error: BaseException | None) -> None:
        """Raise ``error`` when all is written down, if it is the first."""
        with self._lock:
            self.crash = self.crash or error
        self.reason = self.reason or EndReason.ERROR

    def keep(self, result: JobResult) -> None:
        """Take note of how a job ended."""
        self.results[result.num] = result

    def conclude(self) -> None:
        """Take note of the jobs that were begun or handed back and did not run to an end."""
        failed_fast = self.reason is EndReason.FAIL_FAST
        unfinished = [
            job.unfinished(failed_fast=failed_fast) for job in self.scheduler.unfinished()
        ]
        for result in unfinished:
            self.keep(result)
            self._announce(result, 0)
        try:
            self.scheduler.tell_source(unfinished)
        except BaseException as error:  # noqa: BLE001 - raised when all is written down
            self.fail(error)

    # In driver threads ----------------------------------------------------------------

    def _drive_new(self, driver: Driver) -> None:
        self.scheduler.open_slot(driver.spec)
        self._drive(driver)

    def _drive(self, driver: Driver) -> None:
        """Run attempts on a slot until the scheduler has no more."""
        try:
            if not driver.ready and not self._open(driver):
                return
            while (job := self.scheduler.take(driver.spec)) is not None:
                self._attempt(driver, job)
        except BaseException as error:  # noqa: BLE001 - the source, or this code, is broken
            self.fail(error)
            self.end(EndReason.ERROR, error_line(error))

    def _open(self, driver: Driver) -> bool:
        with self._lock:
            self._opening += 1
        try:
            trouble = driver.worker.open()
        finally:
            with self._lock:
                self._opening -= 1
        if not trouble:
            driver.ready = True
            return True
        if not self.scheduler.stopping:  # else the next run tries again
            self.close_slot(driver.spec, trouble)
        return False

    def _attempt(self, driver: Driver, job: RunningJob) -> None:
        """Have one attempt executed, and report its end."""
        job.name = driver.next_name()
        self._emit(job_started(job, driver.spec))
        attempt = Attempt(job.job, job.attempts, job.name, job.score)
        with self._shown_at_work(driver, attempt):
            end = driver.worker.execute(attempt)
        if end.kind is EndKind.INTERRUPTED and issubclass(type(end.exception), KeyboardInterrupt):
            self.signum = int(signal.SIGINT)
        job.score = end.score
        job.serial = max(job.serial, end.serial)
        self._report(driver, job, attempt, end)

    @contextmanager
    def _shown_at_work(self, driver: Driver, attempt: Attempt) -> Iterator[None]:
        """Have the attempt among those that are asked to end, also if that has been asked."""
        limit = self._settings.job_timeout_s
        deadline = None if limit is None else time.monotonic() + limit
        with self._lock:
            self._at_work[driver.spec.index] = AtWork(
                driver, attempt.name, attempt.job.num, deadline
            )
            why = self._stop_why
        if why:
            driver.worker.stop(attempt.name, EndKind.INTERRUPTED, why)
        try:
            yield
        finally:
            with self._lock:
                del self._at_work[driver.spec.index]

    def _report(self, driver: Driver, job: RunningJob, attempt: Attempt, end: AttemptEnd) -> None:
        self._best.rename(job.job.num, attempt.name)
        decision = self.scheduler.report(driver.spec, job, end)
        # From here on another slot may have the job, unless it is over.
        if end.kind is not EndKind.FINISHED:
            self._emit(attempt_failed(attempt, driver.spec, end, retry=decision.retry))
        for slot in decision.closed:
            self.close_slot(slot, end.closes_slot or end.error)
        if decision.result is not None:
            self._announce(decision.result, job.serial)
        if end.kind is EndKind.FATAL:
            self.fail(end.exception)
            self.end(EndReason.ERROR, end.error)
        elif decision.fail_fast:
            self.end(EndReason.FAIL_FAST, end.error)

    def _announce(self, result: JobResult, serial: int) -> None:
        event = job_over(result)
        if event is None:
            return
        if result.status != JobStatus.FINISHED:
            self._emit(event)
            return

        def saved() -> None:
            self.unsaved.discard(result.num)
            self._emit(event)

        # Finished only once its best model is on disk: a crash now must not lose it.
        self.unsaved.add(result.num)
        self._best.when_saved(serial, saved)


def closed_reasons(drivers: Sequence[Driver]) -> str:
    """Return why slots are closed: each reason once, after the names of its slots."""
    slots: dict[str, list[str]] = {}
    for driver in drivers:
        if driver.closed:
            name = f"Thread-{driver.spec.index} on {driver.spec.device}"
            slots.setdefault(driver.closed, []).append(name)
    return "\n".join(f"{', '.join(names)}: {reason}" for reason, names in slots.items())
