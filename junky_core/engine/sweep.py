"""The one loop that runs every sweep, whoever asks.

The main thread only watches: it notices signals and times that are over, and
waits. The driver thread of each slot pulls attempts from the scheduler, has the
slot's worker execute them, and reports how they ended.
"""

from __future__ import annotations

import signal
import threading
import time
import uuid
from collections.abc import Sequence

from junky_core.devices import SlotSpec
from junky_core.engine.announcements import attempt_failed, job_over, job_started, sweep_ended
from junky_core.engine.dispatcher import Dispatcher
from junky_core.engine.scheduler import RunningJob, Scheduler
from junky_core.engine.settings import SweepSettings
from junky_core.engine.signals import NotedSignals, noted
from junky_core.errors import SweepFailed, SweepInterrupted
from junky_core.events import (
    Event,
    Notice,
    Observer,
    ScoreReported,
    SlotClosed,
    SweepStarted,
)
from junky_core.executors.contract import AttemptEnd, AttemptRunner, AttemptSettings
from junky_core.executors.slots import Slot
from junky_core.executors.threads import ThreadExecutor
from junky_core.job.best import BestModel
from junky_core.job.cancellation import CancellationPoints
from junky_core.job.context import JobContext
from junky_core.job.failures import showable
from junky_core.job.forks import OwnProcess
from junky_core.job.scopes import JobScope
from junky_core.jobs import Attempt, JobResult, JobSource
from junky_core.values.user_text import dict_text, error_line
from junky_core.values.wording import count

__all__ = ["Sweep"]

REMIND_EVERY_S = 60.0  # how often a job that is over its time and goes on is named
WATCH_EVERY_S = 0.1  # how late a signal or an over-time may be noticed


class Sweep:
    """Slots, one best model and observers, for one or several batches of jobs.

    ``run`` and ``close`` are for one thread at a time.

    Args:
        slots: The seats, see :func:`junky_core.devices.parse_devices`.
        runner: What an attempt does.
        best: The best model; lives on between batches.
        observers: Who listens, in a thread of their own.
        settings: How it is run.
        kind: ``"python"`` or ``"hydra"``.
        recorder: Hears each event before the sweep goes on: the journal.
    """

    def __init__(
        self,
        slots: Sequence[SlotSpec],
        runner: AttemptRunner,
        best: BestModel,
        observers: Sequence[Observer] = (),
        settings: SweepSettings | None = None,
        kind: str = "python",
        recorder: Observer | None = None,
    ) -> None:
        self.settings = settings or SweepSettings()
        self.best = best
        self.best.emit = self.emit
        self.sweep_id = self.settings.sweep_id or uuid.uuid4().hex[:12]
        self.stop_reason = ""
        self._own = OwnProcess()
        self._kind = kind
        self._dispatcher = Dispatcher(observers, recorder)
        self._closed_reasons: list[str] = []
        self._executor = ThreadExecutor(
            slots,
            runner,
            AttemptSettings(
                seed=self.settings.seed,
                timeout_s=self.settings.job_timeout_s,
                value_is_score=self.settings.value_is_score,
                folder=self.settings.folder,
            ),
            self,
            threads_per_slot=self.settings.threads_per_slot,
            next_numbers=self.settings.next_numbers,
        )
        self._drivers = self._executor.drivers
        self._workers = self._executor.workers
        self._cancellation_points = CancellationPoints()
        self._lock = threading.Lock()  # guards the four below
        self._warned: set[str] = set()
        self._held_warnings: list[str] | None = []  # until the sweep's start was announced
        self._crash: BaseException | None = None
        self._opening = 0  # slots that are being set up
        self._results: dict[int, JobResult] = {}  # guarded by the scheduler's lock
        self._unsaved: set[int] = set()  # finished jobs whose best model is not on disk yet
        self._scheduler: Scheduler | None = None
        self._signals = NotedSignals()
        self._signum_of_job: int | None = None  # SIGINT, of a job that raised KeyboardInterrupt
        self._reminded: dict[JobContext, float] = {}  # jobs over their time: when it was said
        self._resumed = False  # its first batch has begun: the next ones are of this session

    def run(self, source: JobSource, already_finished: int = 0) -> list[JobResult]:
        """Run all jobs of ``source``; return how each ended, by job number.

        Jobs that the sweep did not come to have the status ``"stopped"``, or
        are missing if they were never pulled; ``stop_reason`` says why.

        Raises:
            SweepInterrupted: After Ctrl-C, SIGTERM or SIGHUP, when all is written down.
            SweepFailed: The first jobs all died of one error (``fail_fast``),
                or no slot could be set up.
            SourceError: The source raised, or broke its contract.
            Exception: What a job raised as fatal.
        """
        started = time.monotonic()
        self._results = {}
        self._unsaved = set()
        self._crash = None
        self.stop_reason = ""
        self._signum_of_job = None
        self._reminded = {}
        self._held_warnings = []
        slots = [slot for slot in self._drivers.slots if not slot.closed]
        if source.total is not None:
            slots = slots[: source.total]
        self._scheduler = scheduler = Scheduler(
            source,
            [slot.spec for slot in slots],
            max_retries=self.settings.max_retries,
            fail_fast=self.settings.fail_fast,
            on_over=self._keep,
        )
        with (
            noted() as self._signals,
            self._dispatcher.running(hurry=lambda: self._signum is not None),
        ):
            try:
                with self._executor.running(len(slots)):
                    self._emit_started(source, already_finished)
                    if source.total != 0:
                        self._watch(scheduler, slots, started)
            finally:
                self._cancellation_points.disarm()
            self._keep_unfinished(scheduler)
            if not self.best.flush():
                self.stop_reason = self.stop_reason or "best_not_saved"
                self._notice("error", self.best.problem + self._how_to_resume())
            if self._signum is not None:
                # SweepInterrupted may end the script without a word: say it here.
                self._notice("warning", self._interrupted())
            self._emit_ended(scheduler, started)
        self._raise_if_ended_early()
        return self.results()

    def results(self) -> list[JobResult]:
        """Return how the jobs of the last run ended, by job number."""
        return [self._results[num] for num in sorted(self._results)]

    def scope_of(self, result: JobResult) -> JobScope:
        """Return a scope like that of a job which is over, to do something for it once more."""
        return next(iter(self._workers.values())).scope_of(result)

    def close(self) -> None:
        """End the slot threads and the best model's writer."""
        if not self._own:
            return
        self._executor.close(None if self._signum is None else 128 + self._signum)
        self.best.close()

    def emit(self, event: Event) -> None:
        """Tell the recorder, all observers and, of scores, the source of jobs; from any thread."""
        self._dispatcher.emit(event)
        if isinstance(event, ScoreReported) and self._own and self._scheduler is not None:
            self._scheduler.hear(event)

    def warn(self, message: str) -> None:
        """Warn the user, once for each message; from any thread."""
        with self._lock:
            if message in self._warned:
                return
            self._warned.add(message)
            if self._held_warnings is not None:
                self._held_warnings.append(message)
                return
        self._notice("warning", message)

    # In the main thread ---------------------------------------------------------------

    def _watch(self, scheduler: Scheduler, slots: Sequence[Slot], started: float) -> None:
        """Set the slots to work and wait until they are done, whatever comes in between."""
        self._drivers.drive({slot.spec.index: self._drive for slot in slots})
        while True:
            try:
                self._look(scheduler, started)
                while not self._drivers.idle.wait(WATCH_EVERY_S):
                    self._look(scheduler, started)
                    building = scheduler.stopping and self._drivers.busy == self._opening
                    if building and self._signum is not None:
                        return  # what still runs builds loaders, which no job will use
                return
            except BaseException as error:
                with self._lock:
                    again, self._crash = self._crash is not None, error
                if again:
                    raise
                self._end(scheduler, "interrupted", error_line(error))

    def _look(self, scheduler: Scheduler, started: float) -> None:
        now = time.monotonic()
        limit = self.settings.sweep_timeout_s
        if limit is not None and now - started > limit and not scheduler.stopping:
            self.stop_reason = "timeout"
            self._notice(
                "warning",
                f"the sweep is over its time of {limit:g} s: nothing new starts, "
                "what runs goes on to its end" + self._how_to_resume(),
            )
            scheduler.stop()
        if self._signum is not None and self.stop_reason != "interrupted":
            name = signal.Signals(self._signum).name
            self._end(scheduler, "interrupted", f"{name}: the sweep ends")
        late = [job for job in self._running() if job.deadline is not None and job.deadline < now]
        if late:
            self._cancellation_points.arm()
        for job in late:
            self._remind(job, now)

    def _remind(self, job: JobContext, now: float) -> None:
        """Say once a minute that a job is over its time and has come to no cancellation point."""
        assert job.deadline is not None
        if now - self._reminded.setdefault(job, job.deadline) < REMIND_EVERY_S:
            return
        self._reminded[job] = now
        self._notice(
            "warning",
            f"{job.name} (job {job.num}) is {now - job.deadline:.0f} s over its time of "
            f"{self.settings.job_timeout_s:g} s and goes on: it can end only where it calls its "
            "model, loader, optimizer, save_best or current_job().check(). A call of check() in "
            "its loop would end it; two Ctrl-C, or kill, end the whole sweep"
            + self._how_to_resume(),
        )

    def _end(self, scheduler: Scheduler, reason: str, why: str) -> None:
        """Start nothing new and ask what runs to end at its next cancellation point."""
        first = not self.stop_reason
        self.stop_reason = reason
        scheduler.stop()
        active = self._running()
        for worker in self._workers.values():
            worker.stop("interrupted", why)
        self._cancellation_points.arm()
        if first and reason == "interrupted":
            self._notice(
                "warning",
                f"{why}; {_that_end(len(active))} Interrupt again to leave at once",
            )

    def _running(self) -> list[JobContext]:
        running = [worker.running for worker in self._workers.values()]
        return [job for job in running if job is not None]

    @property
    def _signum(self) -> int | None:
        """The signal that ends the sweep, if one came."""
        return self._signum_of_job or self._signals.signum

    def _raise_if_ended_early(self) -> None:
        with self._lock:
            crash = self._crash
        if crash is not None:
            raise crash
        if self._signum is not None:
            raise SweepInterrupted.here(self._interrupted(), self._signum, self.results())
        failed = [result for result in self.results() if result.status == "failed"]
        if self.stop_reason == "fail_fast":
            raise SweepFailed(
                f"{_all_died(len(failed))}, "
                f"so the sweep was stopped (fail_fast={self.settings.fail_fast}). "
                f"That of job {failed[0].num} with {dict_text(failed[0].params)}:\n"
                f"{failed[0].traceback}",
                failed,
            ) from showable(failed[0].exception)
        if self.stop_reason == "no_slots" and not any(
            result.status == "finished" for result in self.results()
        ):
            reasons = "\n".join(self._closed_reasons)
            raise SweepFailed(f"no slot is left to run jobs:\n{reasons}", failed)

    def _fail(self, error: BaseException | None) -> None:
        """Raise ``error`` at the end of the run, if it is the first."""
        with self._lock:
            self._crash = self._crash or error
        self.stop_reason = self.stop_reason or "error"

    def _keep(self, result: JobResult) -> None:
        self._results[result.num] = result

    def _keep_unfinished(self, scheduler: Scheduler) -> None:
        """Record the jobs that were begun or handed back, and not run to an end."""
        unfinished = [
            job.unfinished(failed_fast=self.stop_reason == "fail_fast")
            for job in scheduler.unfinished()
        ]
        for result in unfinished:
            self._keep(result)
            self._emit_result(result, 0)
        try:
            scheduler.tell_source(unfinished)
        except BaseException as error:  # noqa: BLE001 - raised when all is written down
            self._fail(error)
        if not self.stop_reason and not scheduler.open_slots and self._left(scheduler) != 0:
            self.stop_reason = "no_slots"
            self._notice(
                "error",
                "no slot is left to run jobs; the sweep ends with what it has"
                + self._how_to_resume(),
            )

    def _left(self, scheduler: Scheduler) -> int | None:
        stopped = sum(result.status == "stopped" for result in self._results.values())
        unpulled = scheduler.left_in_source()
        return None if unpulled is None else stopped + unpulled

    def _interrupted(self) -> str:
        assert self._signum is not None
        name = signal.Signals(self._signum).name
        return f"the sweep was ended by {name}" + self._how_to_resume()

    def _how_to_resume(self) -> str:
        hint = self.settings.resume_hint
        return f". To resume: {hint}" if hint else ""

    def _notice(self, level: str, message: str) -> None:
        self.emit(Notice(level=level, message=message))

    def _emit_started(self, source: JobSource, already_finished: int) -> None:
        settings = self.settings
        self.emit(
            SweepStarted(
                sweep_id=self.sweep_id,
                kind=self._kind,
                total=source.total,
                resumed=settings.resumed and not self._resumed,
                already_finished=already_finished,
                devices=[slot.spec.device for slot in self._drivers.slots],
                threads_per_slot=self._executor.threads,
                seed=settings.seed,
                direction=settings.direction,
                max_retries=settings.max_retries,
                spec=settings.spec,
                superseded=settings.superseded,
            )
        )
        self._resumed = True
        with self._lock:
            held, self._held_warnings = self._held_warnings or [], None
        for message in held:
            self._notice("warning", message)

    def _emit_ended(self, scheduler: Scheduler, started: float) -> None:
        self.emit(
            sweep_ended(
                self._results.values(),
                self.best,
                reason=self.stop_reason or "completed",
                unsaved=len(self._unsaved),
                left=self._left(scheduler) or 0,
                duration_s=time.monotonic() - started,
            )
        )

    # In slot threads ------------------------------------------------------------------

    def _drive(self, slot: Slot) -> None:
        """Work off attempts on ``slot`` until the scheduler has no more."""
        scheduler = self._scheduler
        assert scheduler is not None
        try:
            if not slot.ready and not self._open(slot, scheduler):
                return
            while (job := scheduler.take(slot.spec)) is not None:
                self._attempt(slot, job, scheduler)
        except BaseException as error:  # noqa: BLE001 - the source, or this code, is broken
            self._fail(error)
            self._end(scheduler, "error", error_line(error))

    def _open(self, slot: Slot, scheduler: Scheduler) -> bool:
        with self._lock:
            self._opening += 1
        try:
            trouble = self._workers[slot.spec.index].open()
        finally:
            with self._lock:
                self._opening -= 1
        if not trouble:
            slot.ready = True
            return True
        if scheduler.stopping:  # the sweep may be over already; another batch tries again
            return False
        self._close_slot(slot.spec, trouble)
        scheduler.close_slot(slot.spec)
        return False

    def _close_slot(self, spec: SlotSpec, reason: str) -> None:
        for slot in self._drivers.slots:
            if slot.spec == spec:
                slot.closed = True
        self._closed_reasons.append(f"Thread-{spec.index} on {spec.device}: {reason}")
        self.emit(SlotClosed(slot=spec.index, device=spec.device, reason=reason))

    def _attempt(self, slot: Slot, job: RunningJob, scheduler: Scheduler) -> None:
        """Have one attempt executed, and report its end."""
        job.name = slot.next_name()
        self.emit(job_started(job, slot.spec))
        attempt = Attempt(job.job, job.attempts, job.name)
        end = self._workers[slot.spec.index].execute(attempt, job.score)
        if end.kind == "interrupted" and issubclass(type(end.exception), KeyboardInterrupt):
            self._signum_of_job = int(signal.SIGINT)
        job.score = end.score
        job.serial = max(job.serial, end.serial)
        self._report(slot, job, end, scheduler)

    def _report(self, slot: Slot, job: RunningJob, end: AttemptEnd, scheduler: Scheduler) -> None:
        decision = scheduler.report(slot.spec, job, end)
        self.best.rename(job.job.num, job.name)
        if end.kind != "finished":
            self.emit(attempt_failed(job, slot.spec, end, retry=decision.retry))
        for closed in decision.closed:
            self._close_slot(closed, end.error)
        if decision.result is not None:
            self._emit_result(decision.result, job.serial)
        if end.kind == "fatal":
            self._fail(end.exception)
            self._end(scheduler, "error", end.error)
        elif decision.fail_fast:
            self._end(scheduler, "fail_fast", end.error)

    def _emit_result(self, result: JobResult, serial: int) -> None:
        event = job_over(result)
        if event is None:
            return
        if result.status != "finished":
            self.emit(event)
            return

        def saved() -> None:
            self._unsaved.discard(result.num)
            self.emit(event)

        # Finished only once its best model is on disk: a crash now must not lose it.
        self._unsaved.add(result.num)
        self.best.when_saved(serial, saved)


def _all_died(number: int) -> str:
    if number == 1:
        return "the first job died"
    return f"the first {number} jobs all died of the same error at the same line"


def _that_end(number: int) -> str:
    ends = (
        "ends at its next cancellation point"
        if number == 1
        else "end at their next cancellation point"
    )
    return f"{count(number, 'running job')} {ends}."
