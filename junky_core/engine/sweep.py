"""The one loop that runs every sweep.

Sweep      what lives from the first batch of jobs to the last: executor, best model, observers
  Run      one batch: which attempts run, in driver threads, and how they end
  Watch    the main thread during one batch: signals and time limits
"""

from __future__ import annotations

import signal
import threading
import uuid
from collections.abc import Sequence

from junky_core.devices import SlotSpec
from junky_core.engine.announcements import sweep_ended
from junky_core.engine.dispatcher import Dispatcher
from junky_core.engine.drivers import Driver, Drivers
from junky_core.engine.run import Run, closed_reasons
from junky_core.engine.settings import SweepSettings
from junky_core.engine.signals import noted
from junky_core.engine.watch import Watch
from junky_core.errors import SweepFailed, SweepInterrupted
from junky_core.events import (
    EndReason,
    Event,
    Notice,
    NoticeLevel,
    Observer,
    ScoreReported,
    SweepKind,
    SweepStarted,
)
from junky_core.executors.contract import AttemptRunner, AttemptSettings, ExecutorFactory
from junky_core.executors.factory import executor_factory
from junky_core.job.best import BestModel
from junky_core.job.failures import showable
from junky_core.job.forks import OwnProcess
from junky_core.job.scopes import JobScope
from junky_core.jobs import JobResult, JobSource, JobStatus
from junky_core.values.user_text import dict_text

__all__ = ["Sweep"]


class Sweep:
    """Slots, one best model and observers, for one or several batches of jobs.

    ``run`` and ``close`` are not thread-safe.

    Args:
        slots: The slots, see :func:`junky_core.devices.parse_devices`.
        runner: What an attempt does.
        best: The best model; lives on between batches.
        observers: Called with each event, in a separate thread.
        settings: How it is run.
        kind: Which door it came in by.
        recorder: The journal. It has handled an event before the sweep continues.
        make_executor: Where attempts run, if it is not what ``settings.executor`` says.
    """

    def __init__(
        self,
        slots: Sequence[SlotSpec],
        runner: AttemptRunner,
        best: BestModel,
        observers: Sequence[Observer] = (),
        settings: SweepSettings | None = None,
        kind: SweepKind = SweepKind.PYTHON,
        recorder: Observer | None = None,
        make_executor: ExecutorFactory | None = None,
    ) -> None:
        self.settings = settings or SweepSettings()
        self.best = best
        self.best.emit = self.emit
        self.sweep_id = self.settings.sweep_id or uuid.uuid4().hex[:12]
        self._own = OwnProcess()
        self._kind = kind
        self._dispatcher = Dispatcher(observers, recorder)
        self._drivers = Drivers()
        self._run: Run | None = None  # the last one
        self._signum: int | None = None  # that ended it
        self._lock = threading.Lock()  # guards the two below
        self._warned: set[str] = set()
        self._held_warnings: list[str] | None = []  # until the sweep's start was announced
        self._resumed = False  # its first batch has begun: the next ones are of this session
        make_executor = make_executor or executor_factory(
            self.settings.executor, kill_after_s=self.settings.kill_after_s
        )
        self._executor = make_executor(
            list(slots),
            runner,
            AttemptSettings(
                seed=self.settings.seed,
                timeout_s=self.settings.job_timeout_s,
                value_is_score=self.settings.value_is_score,
                folder=self.settings.folder,
                threads_per_slot=self.settings.threads_per_slot,
            ),
            self,
        )
        for slot in slots:
            self._drivers.add(self._driver(slot))

    @property
    def stop_reason(self) -> str:
        """Why the last run ended before its jobs did, an ``EndReason``; ``""`` if it did not."""
        return "" if self._run is None else self._run.reason or ""

    def run(self, source: JobSource, already_finished: int = 0) -> list[JobResult]:
        """Run all jobs of ``source``; return how each ended, by job number.

        Jobs that the sweep did not run have the status ``"stopped"``, or
        are missing if they were never pulled; ``stop_reason`` says why.

        Raises:
            SweepInterrupted: After Ctrl-C, SIGTERM or SIGHUP, when all is written down.
            SweepFailed: The first jobs all failed with the same error (``fail_fast``),
                or every slot closed before a job finished.
            SourceError: The source raised, or broke its contract.
            Exception: What a job raised as fatal.
        """
        settings, self._held_warnings = self.settings, []
        self._run = run = Run(source, self._drivers, settings, self.best, self.emit)
        with noted() as signals:
            watch = Watch(run, self._drivers, settings, signals, self._executor, self._alert)
            with self._dispatcher.running(hurry=lambda: watch.signum is not None):
                with self._executor.running(run.slots):
                    self._emit_started(source, already_finished)
                    if source.total != 0:
                        watch.wait()
                run.conclude()
                self._note_lost_slots(run)
                if not self.best.flush():
                    run.reason = run.reason or EndReason.BEST_NOT_SAVED
                    self._notice(NoticeLevel.ERROR, self.best.problem + settings.how_to_resume())
                self._signum = watch.signum
                if self._signum is not None:
                    # SweepInterrupted may end the script without a word: say it here.
                    self._notice(NoticeLevel.WARNING, self._interrupted(self._signum))
                self._emit_ended(run, watch.seconds)
        self._raise_if_ended_early(run)
        return self.results()

    def results(self) -> list[JobResult]:
        """Return how the jobs of the last run ended, by job number."""
        if self._run is None:
            return []
        return [result for _, result in sorted(self._run.results.items())]

    def scope_of(self, result: JobResult) -> JobScope:
        """Return a scope like that of a job which is over, to do something for it once more."""
        return self._executor.scope_of(result)

    def close(self) -> None:
        """End the slot threads and the best model's writer."""
        if not self._own:
            return
        self._drivers.close(None if self._signum is None else 128 + self._signum)
        self._executor.close()
        self.best.close()

    # For executors and other threads --------------------------------------------------

    def emit(self, event: Event) -> None:
        """Tell the recorder, all observers and, of scores, the source of jobs; from any thread."""
        self._dispatcher.emit(event)
        if isinstance(event, ScoreReported) and self._own and self._run is not None:
            self._run.scheduler.hear(event)

    def warn(self, message: str) -> None:
        """Warn the user, once for each message; from any thread."""
        with self._lock:
            if message in self._warned:
                return
            self._warned.add(message)
            if self._held_warnings is not None:
                self._held_warnings.append(message)
                return
        self._alert(message)

    def open_slot(self, slot: SlotSpec) -> None:
        """Give jobs to a new slot, in this run or in the next; from any thread."""
        driver = self._driver(slot)
        self._drivers.add(driver)
        self._notice(
            NoticeLevel.INFO, f"Thread-{slot.index} on {slot.device} takes jobs from now on"
        )
        if self._run is not None:
            self._run.add(driver)

    def close_slot(self, slot: SlotSpec, reason: str) -> None:
        """Give no more jobs to a slot; the attempt that runs there continues. From any thread."""
        if self._run is None:
            self._drivers.of(slot).closed = reason
        else:
            self._run.close_slot(slot, reason)

    def _driver(self, slot: SlotSpec) -> Driver:
        number = self.settings.next_numbers.get(slot.index, 0)
        return Driver(slot, self._executor.worker(slot), number)

    # In the main thread ---------------------------------------------------------------

    def _note_lost_slots(self, run: Run) -> None:
        if run.reason is None and not run.scheduler.open_slots and run.left != 0:
            run.reason = EndReason.NO_SLOTS
            self._notice(
                NoticeLevel.ERROR,
                f"{_no_slot(self._drivers.all)}; the sweep ends with what it has"
                + self.settings.how_to_resume(),
            )

    def _raise_if_ended_early(self, run: Run) -> None:
        if run.crash is not None:
            raise run.crash
        if self._signum is not None:
            raise SweepInterrupted.here(
                self._interrupted(self._signum), self._signum, self.results()
            )
        results = self.results()
        failed = [result for result in results if result.status == JobStatus.FAILED]
        if run.reason is EndReason.FAIL_FAST:
            raise SweepFailed(
                f"{_all_died(len(failed))}, "
                f"so the sweep was stopped (fail_fast={self.settings.fail_fast}). "
                f"That of job {failed[0].num} with {dict_text(failed[0].params)}:\n"
                f"{failed[0].traceback}",
                failed,
            ) from showable(failed[0].exception)
        if run.reason is EndReason.NO_SLOTS and not any(
            result.status == JobStatus.FINISHED for result in results
        ):
            drivers = self._drivers.all
            raise SweepFailed(f"{_no_slot(drivers)}:\n{closed_reasons(drivers)}", failed)

    def _interrupted(self, signum: int) -> str:
        name = signal.Signals(signum).name
        return f"the sweep was ended by {name}" + self.settings.how_to_resume()

    def _alert(self, message: str) -> None:
        self._notice(NoticeLevel.WARNING, message)

    def _notice(self, level: NoticeLevel, message: str) -> None:
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
                devices=[driver.spec.device for driver in self._drivers.all],
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
            self._alert(message)

    def _emit_ended(self, run: Run, duration_s: float) -> None:
        self.emit(
            sweep_ended(
                run.results.values(),
                self.best,
                reason=run.reason or EndReason.COMPLETED,
                unsaved=len(run.unsaved),
                left=run.left or 0,
                duration_s=duration_s,
            )
        )


def _no_slot(drivers: Sequence[Driver]) -> str:
    if any(driver.ready for driver in drivers):
        return "no slot is left to run jobs"
    return "no slot could be opened"


def _all_died(number: int) -> str:
    if number == 1:
        return "the first job failed"
    return f"the first {number} jobs all failed with the same error at the same line"
