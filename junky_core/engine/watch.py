"""The main thread's part of a run: it reacts to signals and time limits."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from junky_core.engine.drivers import Drivers
from junky_core.engine.run import AtWork, Run
from junky_core.engine.settings import SweepSettings
from junky_core.engine.signals import NotedSignals
from junky_core.events import EndReason
from junky_core.executors.contract import Executor
from junky_core.jobs import EndKind
from junky_core.values.user_text import error_line
from junky_core.values.wording import count

__all__ = ["Watch"]

REMIND_EVERY_S = 60.0  # how often a job that runs on past its time limit is named
SOURCE_PATIENCE_S = 5.0  # for a source of jobs that is asked when a signal comes
WATCH_EVERY_S = 0.1  # how late a signal or an over-time may be noticed


class Watch:
    """Waits for the end of one run. For the main thread.

    Args:
        run: The run.
        drivers: The sweep's.
        settings: How the sweep is run.
        signals: Those that came.
        executor: Where attempts run.
        warn: Called with what the user should read.
    """

    def __init__(
        self,
        run: Run,
        drivers: Drivers,
        settings: SweepSettings,
        signals: NotedSignals,
        executor: Executor,
        warn: Callable[[str], None],
    ) -> None:
        self._run = run
        self._drivers = drivers
        self._settings = settings
        self._signals = signals
        self._executor = executor
        self._warn = warn
        self._started = time.monotonic()
        self._no_slots_since: float | None = None
        self._signal_seen: float | None = None

    @property
    def signum(self) -> int | None:
        """The signal that ends the sweep, if one came."""
        return self._run.signum or self._signals.signum

    @property
    def seconds(self) -> float:
        """How long the run has taken so far."""
        return time.monotonic() - self._started

    def wait(self) -> None:
        """Start the slots and wait until they are done, or until a signal ends the run."""
        run = self._run
        run.start()
        while True:
            try:
                self._look()
                while not run.over(wait_for_slots=self._slots_may_come()):
                    self._pause()
                    self._look()
                    if self._gives_up():
                        return
                return
            except BaseException as error:
                if run.crash is not None:
                    raise
                run.fail(error)
                run.end(EndReason.INTERRUPTED, error_line(error))

    def _gives_up(self) -> bool:
        """Return whether a signal came and nothing is worth waiting for."""
        if self._signal_seen is None:
            return False
        patient = time.monotonic() - self._signal_seen < SOURCE_PATIENCE_S
        return self._run.is_stopped(patient=patient)

    def _pause(self) -> None:
        if self._drivers.idle.is_set():  # it waits for a slot to open
            time.sleep(WATCH_EVERY_S)
        else:
            self._drivers.idle.wait(WATCH_EVERY_S)

    def _slots_may_come(self) -> bool:
        if not self._executor.wait_s or not self._run.lacks_slots:
            self._no_slots_since = None
            return False
        if self._no_slots_since is None:
            self._no_slots_since = time.monotonic()
        return time.monotonic() - self._no_slots_since < self._executor.wait_s

    def _look(self) -> None:
        run, now = self._run, time.monotonic()
        limit = self._settings.sweep_timeout_s
        if limit is not None and now - self._started > limit and not run.scheduler.stopping:
            run.reason = EndReason.TIMEOUT
            self._warn(
                f"the sweep exceeded its time limit of {limit:g} s: no more jobs start, "
                "running jobs continue to their end" + self._settings.how_to_resume()
            )
            run.scheduler.stop()
        if self.signum is not None and run.reason is not EndReason.INTERRUPTED:
            first = run.reason is None
            self._signal_seen = now
            why = f"{signal.Signals(self.signum).name}: the sweep ends"
            asked = run.end(EndReason.INTERRUPTED, why)
            if first:
                self._warn(f"{why}; {self._that_end(asked)} Interrupt again to leave at once")
        for attempt in run.at_work:
            if attempt.deadline is not None and attempt.deadline < now:
                self._over_time(attempt, attempt.deadline, now)

    def _over_time(self, attempt: AtWork, deadline: float, now: float) -> None:
        """Ask an attempt to end; say once a minute if it has not reached a cancellation point."""
        limit = f"{self._settings.job_timeout_s:g} s"
        if attempt.remind_at is None:
            attempt.remind_at = deadline + REMIND_EVERY_S
            message = f"job {attempt.num} exceeded its time limit of {limit}"
            attempt.driver.worker.stop(attempt.name, EndKind.TIMEOUT, message)
        elif now >= attempt.remind_at:
            attempt.remind_at = now + REMIND_EVERY_S
            self._warn(
                f"{attempt.name} (job {attempt.num}) is {now - deadline:.0f} s over its time limit "
                f"of {limit} and still running: it can end only where it calls a model, loader, "
                "optimizer, save_best or current_job().check(). A call of check() in its loop "
                f"would end it; {self._last_resort()}"
            )

    def _last_resort(self) -> str:
        if self._executor.kill_after_s is not None:
            return f"it is killed {self._executor.kill_after_s:g} s after its time limit"
        ends = "pressing Ctrl-C twice, or kill, ends the whole sweep"
        return ends + self._settings.how_to_resume()

    def _that_end(self, number: int) -> str:
        one = number == 1
        jobs = f"{count(number, 'running job')} {'ends' if one else 'end'}"
        text = f"{jobs} at the next cancellation point"
        limit = self._executor.kill_after_s
        if limit is not None:
            text += f", or {'is' if one else 'are'} killed after {limit:g} s"
        return f"{text}."
