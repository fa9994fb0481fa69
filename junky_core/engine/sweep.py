"""The one loop that runs every sweep, whoever asks.

The main thread only watches: it notices signals and times that are over, and
waits. Slots pull their attempts from the scheduler and report to it. What
happens is told to the observers by the thread in which it happens.
"""

from __future__ import annotations

import contextlib
import gc
import random
import signal
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from junky_core.devices import SlotSpec
from junky_core.engine.scheduler import AttemptEnd, RunningJob, Scheduler
from junky_core.engine.signals import NotedSignals, noted
from junky_core.errors import ConfigError, SweepFailed, SweepInterrupted
from junky_core.events import (
    AttemptFailed,
    Event,
    JobFailed,
    JobFinished,
    JobStarted,
    Notice,
    Observer,
    SlotClosed,
    SweepEnded,
    SweepStarted,
)
from junky_core.executors.threads import Slot, SlotThreads, torch_threads
from junky_core.job.best import BestModel
from junky_core.job.cancellation import CheckPoints
from junky_core.job.consoles import consoles_apart
from junky_core.job.context import JobContext
from junky_core.job.failures import Failure, describe, free_memory, settle, showable
from junky_core.job.first_imports import first_imports_in_turn
from junky_core.job.fork_turns import forks_in_turn
from junky_core.job.forks import OwnProcess, leave_if_forked
from junky_core.job.libraries import begin_job, libraries_apart
from junky_core.job.loaders import SharedData
from junky_core.job.scopes import JobScope, current_scope, enter_scope, inherit_scopes
from junky_core.job.seeding import JobStreams, current_streams, installed_streams
from junky_core.job.torch_state import default_device, own_torch_state
from junky_core.jobs import Attempt, Job, JobResult, JobSource
from junky_core.values.calls import Call
from junky_core.values.identity import copy_containers
from junky_core.values.shown import shown
from junky_core.values.user_text import class_name, dict_text, error_line, is_ctrl_c
from junky_core.values.wording import count

__all__ = ["AttemptRunner", "Sweep", "SweepSettings"]

_SEEDS = 1 << 64
_MOST_THREADS = 1024  # torch takes the process down when the system has none left
REMIND_EVERY_S = 60.0  # how often a job that is over its time and goes on is named
WATCH_EVERY_S = 0.1  # how late a signal or an over-time may be noticed


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSettings:
    """How a sweep is run; the fields are those of ``torch_autotrain``.

    Attributes:
        value_is_score: A job that gave no score is scored by the number it returned.
        resume_hint: How to resume this sweep, for messages.
        next_numbers: By slot, the ``n`` its next name gets.
        spec: What was asked for, for the journal.
        superseded: Jobs of the journal that do not count any more.
        folder: The sweep's folder, if it has one.
    """

    direction: str = "maximize"
    max_retries: int = 1
    seed: int | None = None
    threads_per_slot: int | None = None
    fail_fast: int | None = 5
    job_timeout_s: float | None = None
    sweep_timeout_s: float | None = None
    value_is_score: bool = False
    resume_hint: str = ""
    resumed: bool = False
    next_numbers: Mapping[int, int] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)
    superseded: Sequence[int] = ()
    sweep_id: str = ""
    folder: Path | None = None

    def __post_init__(self) -> None:
        if self.direction not in ("maximize", "minimize"):
            raise ConfigError(
                f"direction is {shown(self.direction)}; it must be 'maximize' or 'minimize'"
            )
        _whole("max_retries", self.max_retries, 0)
        if self.threads_per_slot is not None:
            _whole("threads_per_slot", self.threads_per_slot, 1, _MOST_THREADS)
        if self.fail_fast is not None:
            _whole("fail_fast", self.fail_fast, 1)
        if self.seed is not None:
            _whole("seed", self.seed, 0)
            if self.seed >= _SEEDS:
                raise ConfigError(f"seed is {shown(self.seed)}; torch takes seeds below 2**64")
        for name in ("job_timeout_s", "sweep_timeout_s"):
            limit = getattr(self, name)
            if limit is not None and not (
                isinstance(limit, (int, float)) and not isinstance(limit, bool) and limit > 0
            ):
                raise ConfigError(f"{name} is {shown(limit)}; it must be seconds above 0, or None")


def _whole(name: str, value: Any, least: int, most: int | None = None) -> None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or value < least or (most is not None and value > most):
        limits = f"{least} or more" if most is None else f"{least} to {most}"
        raise ConfigError(f"{name} is {shown(value)}; it must be a whole number, {limits}")


class AttemptRunner(Protocol):
    """What an attempt does. Called in slot threads, several at once."""

    def open_slot(self, slot: Slot) -> None:
        """Prepare ``slot`` before its first job; raising closes it."""

    def run(self, attempt: Attempt, job: JobContext) -> Any:
        """Run one attempt inside the job's scope and return its value; raising fails it."""

    def keep(self, attempt: Attempt, exception: BaseException) -> None:
        """Take note of what is kept of the exception that ended an attempt.

        It is a copy that holds nothing of the job. The runner must not go on
        holding the exception itself.
        """


class Sweep:
    """Slots, one best model and observers, for one or several batches of jobs.

    ``run`` and ``close`` are for one thread at a time.

    Args:
        slots: The seats, see :func:`junky_core.devices.parse_devices`.
        runner: What an attempt does.
        best: The best model; lives on between batches.
        observers: Who listens.
        settings: How it is run.
        kind: ``"python"`` or ``"hydra"``.
    """

    def __init__(
        self,
        slots: Sequence[SlotSpec],
        runner: AttemptRunner,
        best: BestModel,
        observers: Sequence[Observer] = (),
        settings: SweepSettings | None = None,
        kind: str = "python",
    ) -> None:
        self.settings = settings or SweepSettings()
        self.best = best
        self.best.emit = self.emit
        self.sweep_id = self.settings.sweep_id or uuid.uuid4().hex[:12]
        self.stop_reason = ""
        self._own = OwnProcess()
        self._kind = kind
        self._runner = runner
        self._observers = tuple(observers)
        self._silenced: set[int] = set()  # observers whose failure was told
        self._closed_reasons: list[str] = []
        self.threads = torch_threads(len(slots), self.settings.threads_per_slot, self.settings.seed)
        self._slots = SlotThreads(
            [
                Slot(
                    spec,
                    self.settings.seed,
                    self.threads,
                    self.settings.next_numbers.get(spec.index, 0),
                )
                for spec in slots
            ]
        )
        self._shared = SharedData(self.settings.seed)
        self._streams_apart = True
        self._outer_streams: JobStreams | None = None
        self._check_points = CheckPoints()
        self._lock = threading.Lock()  # guards the four below
        self._active: dict[int, JobContext] = {}
        self._warned: set[str] = set()
        self._crash: BaseException | None = None
        self._opening = 0  # slots that are being set up
        self._results: dict[int, JobResult] = {}  # guarded by the scheduler's lock
        self._unsaved: set[int] = set()  # finished jobs whose best model is not on disk yet
        self._scheduler: Scheduler | None = None
        self._starter: JobScope | None = None
        self._default_device: torch.device | None = None
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
            Exception: What a job raised as fatal, or the source raised.
        """
        started = time.monotonic()
        self._starter = current_scope()  # a sweep inside a job
        self._outer_streams = current_streams()
        self._default_device = default_device()  # jobs find what the script has set
        self._results = {}
        self._unsaved = set()
        self._crash = None
        self.stop_reason = ""
        self._signum_of_job = None
        self._reminded = {}
        slots = [slot for slot in self._slots.slots if not slot.closed]
        if source.total is not None:
            slots = slots[: source.total]
        self._scheduler = scheduler = Scheduler(
            source,
            [slot.spec for slot in slots],
            max_retries=self.settings.max_retries,
            fail_fast=self.settings.fail_fast,
            on_over=self._keep,
        )
        torch_threads_before = torch.get_num_threads()
        with contextlib.ExitStack() as stack:
            stack.enter_context(inherit_scopes())
            stack.enter_context(consoles_apart())
            if len(slots) > 1:
                stack.enter_context(first_imports_in_turn())
                stack.enter_context(forks_in_turn())
            self._keep_streams_apart(stack)
            stack.callback(self._check_points.disarm)
            self._signals = stack.enter_context(noted())
            self._emit_started(source, already_finished)
            stack.enter_context(libraries_apart(self._warn_once, slots=len(slots)))
            if source.total != 0:
                self._watch(scheduler, slots, started)
            if self.threads is not None:
                torch.set_num_threads(torch_threads_before)  # new threads start from the last set
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

    def _keep_streams_apart(self, stack: contextlib.ExitStack) -> None:
        """Let each job have random streams of its own, at the latest once it seeds them."""
        seeded = self.settings.seed is not None
        try:
            stack.enter_context(installed_streams(seeded=seeded))
        except ConfigError as error:
            if seeded:
                raise
            self._streams_apart = False
            self._warn_once(f"jobs that seed themselves disturb each other. {error}")

    def results(self) -> list[JobResult]:
        """Return how the jobs of the last run ended, by job number."""
        return [self._results[num] for num in sorted(self._results)]

    def scope_of(self, result: JobResult) -> JobScope:
        """Return a scope like that of a job which is over, to do something for it once more."""
        job = RunningJob(Job(result.num, result.params), result.attempts, result.score, result.name)
        rng = random.Random(self.settings.seed)  # noqa: S311
        context = self._context(self._slots.slots[0], job, rng)
        context.params.update(copy_containers(result.params))
        scope = JobScope(context, self._starter)
        scope.thread_setups.append(lambda: libraries_apart(lambda _message: None, slots=1))
        return scope

    def close(self) -> None:
        """End the slot threads and the best model's writer."""
        if not self._own:
            return
        self._slots.close(None if self._signum is None else 128 + self._signum)
        self.best.close()

    def emit(self, event: Event) -> None:
        """Tell all observers; one that raises is reported once and never harms the sweep."""
        if not self._own:  # a forked child of a job
            return
        for observer in self._observers:
            try:
                observer.on_event(event)
            except BaseException as error:
                if is_ctrl_c(error):
                    raise
                if id(observer) in self._silenced:
                    continue
                self._silenced.add(id(observer))
                self.emit(
                    Notice(
                        level="error",
                        message=f"{class_name(observer)} failed and is not reported again: "
                        + error_line(error),
                    )
                )

    # In the main thread ---------------------------------------------------------------

    def _watch(self, scheduler: Scheduler, slots: Sequence[Slot], started: float) -> None:
        """Set the slots to work and wait until they are done, whatever comes in between."""
        self._slots.drive({slot.spec.index: self._drive for slot in slots})
        while True:
            try:
                self._look(scheduler, started)
                while not self._slots.idle.wait(WATCH_EVERY_S):
                    self._look(scheduler, started)
                    building = scheduler.stopping and self._slots.busy == self._opening
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
        with self._lock:
            late = [
                job
                for job in self._active.values()
                if job.deadline is not None and job.deadline < now
            ]
        if late:
            self._check_points.arm()
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
        """Start nothing new and ask what runs to end at its next check point."""
        first = not self.stop_reason
        self.stop_reason = reason
        scheduler.stop()
        with self._lock:
            active = list(self._active.values())
        for job in active:
            job.stop("interrupted", why)
        self._check_points.arm()
        if first and reason == "interrupted":
            self._notice(
                "warning",
                f"{why}; {_that_end(len(active))} Interrupt again to leave at once",
            )

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

    def _keep(self, result: JobResult) -> None:
        self._results[result.num] = result

    def _keep_unfinished(self, scheduler: Scheduler) -> None:
        """Record the jobs that were begun or handed back, and not run to an end."""
        for job in scheduler.unfinished():
            last = job.last
            died = self.stop_reason == "fail_fast" and last is not None and last.kind != "oom"
            result = JobResult(
                num=job.job.num,
                name=job.name,
                params=job.job.params,
                status="failed" if died else "stopped",
                score=job.score,
                attempts=job.attempts,
                duration_s=0.0 if last is None else last.duration_s,
                slot=0 if job.slot is None else job.slot.index,
                device="" if job.slot is None else job.slot.device,
                error="" if last is None else last.error,
                traceback="" if last is None else last.traceback,
                exception=None if last is None else last.exception,
            )
            self._keep(result)
            self._emit_result(result, 0)
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

    def _warn_once(self, message: str) -> None:
        with self._lock:
            known = message in self._warned
            self._warned.add(message)
        if not known:
            self._notice("warning", message)

    def _emit_started(self, source: JobSource, already_finished: int) -> None:
        settings = self.settings
        self.emit(
            SweepStarted(
                sweep_id=self.sweep_id,
                kind=self._kind,
                total=source.total,
                resumed=settings.resumed and not self._resumed,
                already_finished=already_finished,
                devices=[slot.spec.device for slot in self._slots.slots],
                threads_per_slot=self.threads,
                seed=settings.seed,
                direction=settings.direction,
                max_retries=settings.max_retries,
                spec=settings.spec,
                superseded=settings.superseded,
            )
        )
        self._resumed = True

    def _emit_ended(self, scheduler: Scheduler, started: float) -> None:
        results = self._results.values()
        best = self.best.saved
        self.emit(
            SweepEnded(
                reason=self.stop_reason or "completed",
                finished=sum(result.status == "finished" for result in results)
                - len(self._unsaved),
                failed=sum(result.status == "failed" for result in results),
                left=(self._left(scheduler) or 0) + len(self._unsaved),
                duration_s=time.monotonic() - started,
                best_job=None if best is None else best.job,
                best_name=None if best is None else best.name,
                best_score=None if best is None else best.score,
                best_path=None if best is None else str(self.best.path),
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
            with self._lock:
                self._crash = self._crash or error
            self._end(scheduler, "error", error_line(error))

    def _open(self, slot: Slot, scheduler: Scheduler) -> bool:
        with self._lock:
            self._opening += 1
        try:
            with contextlib.ExitStack() as stack:
                stack.enter_context(slot.on_device())
                if self._outer_streams is not None:
                    stack.enter_context(self._outer_streams.thread())
                stack.enter_context(own_torch_state(self._default_device, slot.device.type))
                self._runner.open_slot(slot)
                leave_if_forked(self._own)
                slot.queue.synchronize()  # its errors are no job's
        except BaseException as error:  # noqa: BLE001 - any error closes the slot, with its reason
            leave_if_forked(self._own, error)
            failure = describe(error)
        else:
            slot.ready = True
            return True
        finally:
            with self._lock:
                self._opening -= 1
        failure.keep_whole(self.settings.folder, f"Thread-{slot.spec.index}")
        if scheduler.stopping:  # the sweep may be over already; another batch tries again
            return False
        self._close_slot(slot.spec, failure.traceback)
        scheduler.close_slot(slot.spec)
        return False

    def _close_slot(self, spec: SlotSpec, reason: str) -> None:
        for slot in self._slots.slots:
            if slot.spec == spec:
                slot.closed = True
        self._closed_reasons.append(f"Thread-{spec.index} on {spec.device}: {reason}")
        self.emit(SlotClosed(slot=spec.index, device=spec.device, reason=reason))

    def _attempt(self, slot: Slot, job: RunningJob, scheduler: Scheduler) -> None:
        """Run one attempt, report its end, and tell the observers."""
        streams = JobStreams(self.settings.seed, self._outer_streams)
        job.name = slot.next_name()
        context = self._context(slot, job, streams.rng)
        scope = JobScope(context, self._starter, slot.facets)
        begin_job(slot.facets)
        scope.thread_setups.append(slot.on_device)
        if self._streams_apart:
            scope.thread_setups.append(streams.thread)
        with self._lock:
            self._active[slot.spec.index] = context
        if scheduler.stopping and self.stop_reason in ("interrupted", "fail_fast", "error"):
            context.stop("interrupted", "the sweep ends")  # it was taken just before
        self.emit(
            JobStarted(
                job=job.job.num,
                key=job.job.key,
                params=job.job.params,
                name=job.name,
                slot=slot.spec.index,
                device=slot.spec.device,
                attempt=job.attempts,
                info=job.job.info,
            )
        )
        end = self._execute(slot, job, context, scope)
        with self._lock:
            self._active.pop(slot.spec.index, None)
        job.score = context.score
        job.serial = max(job.serial, context.save_serial)
        if job.score is None:
            job.score = end.score
        self._report(slot, job, end, scheduler)

    def _context(self, slot: Slot, job: RunningJob, rng: random.Random) -> JobContext:
        return JobContext(
            device=slot.device,
            name=job.name,
            num=job.job.num,
            params={},  # copied when the attempt begins, so that what a copy raises is the job's
            seed=self.settings.seed,
            slot=slot.spec.index,
            attempt=job.attempts,
            best=self.best,
            loader_sets=slot.loader_sets,
            shared=self._shared,
            rng=rng,
            emit=self.emit,
            warn=lambda message: self._warn_once(f"seed: {message}"),
            timeout_s=self.settings.job_timeout_s,
            score=job.score,
            on_device=slot.queue.current,
            folder=self.settings.folder,
        )

    def _execute(
        self, slot: Slot, job: RunningJob, context: JobContext, scope: JobScope
    ) -> AttemptEnd:
        started = time.monotonic()
        attempt = Attempt(job.job, job.attempts, job.name)
        failure: Failure | None = None
        failed_call: Call | None = None
        value: Any = None
        score: float | None = None
        try:
            with enter_scope(scope), own_torch_state(self._default_device, slot.device.type):
                try:
                    context.params.update(copy_containers(job.job.params))
                    value = self._runner.run(attempt, context)
                    leave_if_forked(self._own)
                    slot.queue.synchronize()  # late errors are this attempt's, and so is the time
                    if self.settings.value_is_score and context.score is None:
                        score = self._as_score(context, value)
                except BaseException as error:  # noqa: BLE001 - sys.exit() ends its job alone
                    leave_if_forked(self._own, error)
                    # It does not get to the blocks round it: they set attributes of what they see,
                    # which an exception may refuse.
                    failed_call = context.failed_loaders(error)
                    failure = describe(error)
        except BaseException as error:  # noqa: BLE001 - something left behind in a block round it
            failure = failure or describe(error)
        if failure is not None:
            failure = settle(failure, slot.queue.synchronize)
        duration_s = time.monotonic() - started
        if failure is None:
            return AttemptEnd(kind="finished", duration_s=duration_s, value=value, score=score)
        del value
        self._runner.keep(attempt, failure.exception)
        failure.keep_whole(context.folder, job.name)
        kind = failure.kind
        if isinstance(failure.exception, KeyboardInterrupt):
            kind = "interrupted"
            self._signum_of_job = int(signal.SIGINT)
        if kind in ("oom", "poisoned"):
            free_memory(slot.device)
        elif slot.device.type != "cpu":
            gc.collect()  # a cycle may hold tensors, and Python does not see how large they are
        if kind == "error" and failed_call is not None:
            kind = "loaders"
        return AttemptEnd(
            kind=kind,
            duration_s=duration_s,
            error=failure.error,
            traceback=failure.traceback,
            exception=failure.exception,
            location=failure.location,
            host_memory=failure.host_memory,
            loaders_elsewhere=failed_call is not None and self._built_elsewhere(failed_call),
        )

    def _built_elsewhere(self, call: Call) -> bool:
        try:
            return any(slot.loader_sets.has(call) for slot in self._slots.slots)
        except Exception:  # noqa: BLE001 - arguments that cannot be compared
            return False

    def _as_score(self, context: JobContext, value: Any) -> float | None:
        """Return the number a job returned as its score, ``None`` if it is none."""
        kind = type(value)
        if value is None or issubclass(kind, (bool, str, bytes)):
            return None
        try:
            return float(value)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            return None
        except Exception as error:  # noqa: BLE001 - anybody's __float__
            self._notice(
                "warning",
                f"job {context.num} returned a {class_name(value)} that could not be read as "
                f"a number, so it has no score: {error_line(error)}",
            )
            return None

    def _report(self, slot: Slot, job: RunningJob, end: AttemptEnd, scheduler: Scheduler) -> None:
        decision = scheduler.report(slot.spec, job, end)
        self.best.rename(job.job.num, job.name)
        if end.kind != "finished":
            self.emit(
                AttemptFailed(
                    job=job.job.num,
                    name=job.name,
                    slot=slot.spec.index,
                    device=slot.spec.device,
                    attempt=max(1, job.attempts),
                    kind=end.kind,
                    error=end.error,
                    traceback=end.traceback,
                    duration_s=end.duration_s,
                    retry=decision.retry,
                )
            )
        for closed in decision.closed:
            self._close_slot(closed, end.error)
        if decision.result is not None:
            self._emit_result(decision.result, job.serial)
        if end.kind == "fatal":
            with self._lock:
                self._crash = self._crash or end.exception
            self._end(scheduler, "error", end.error)
        elif decision.fail_fast:
            self._end(scheduler, "fail_fast", end.error)

    def _emit_result(self, result: JobResult, serial: int) -> None:
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
            event = JobFinished(value=result.value, **common)

            def saved() -> None:
                self._unsaved.discard(result.num)
                self.emit(event)

            # Finished only once its best model is on disk: a crash now must not lose it.
            self._unsaved.add(result.num)
            self.best.when_saved(serial, saved)
        elif result.status == "failed":
            self.emit(JobFailed(error=result.error, traceback=result.traceback, **common))


def _all_died(number: int) -> str:
    if number == 1:
        return "the first job died"
    return f"the first {number} jobs all died of the same error at the same line"


def _that_end(number: int) -> str:
    ends = "ends at its next check point" if number == 1 else "end at their next check point"
    return f"{count(number, 'running job')} {ends}."
