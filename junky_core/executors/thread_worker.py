"""Runs the attempts of one slot in the calling thread."""

from __future__ import annotations

import contextlib
import gc
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from junky_core.executors.contract import (
    AttemptEnd,
    AttemptRunner,
    AttemptSettings,
    Link,
    ReportingRunner,
)
from junky_core.executors.lock_waits import LockWaits
from junky_core.executors.slots import Slot
from junky_core.job.context import JobContext
from junky_core.job.context_variables import ScriptContext
from junky_core.job.failures import Failure, describe, free_memory, settle
from junky_core.job.forks import OwnProcess, leave_if_forked
from junky_core.job.libraries import begin_job, libraries_apart
from junky_core.job.loaders import SharedData
from junky_core.job.process_settings import ProcessSettings
from junky_core.job.scopes import JobScope, current_scope, enter_scope, enter_slot
from junky_core.job.seeding import JobStreams, current_streams
from junky_core.job.torch_state import default_device, own_torch_state
from junky_core.jobs import Attempt, EndKind, Job, JobResult
from junky_core.values.calls import Call
from junky_core.values.identity import copy_containers
from junky_core.values.user_text import class_name, error_line

__all__ = ["Surroundings", "ThreadWorker"]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a sweep was started: what its jobs find there.

    Attributes:
        scope: Of the job that runs the sweep, if one does.
        streams: The random streams that the starting thread draws from.
        device: The default device that the script has set.
        streams_apart: Whether each job can have separate random streams.
        process: Settings of the interpreter, to be put back after each job.
        lock_waits: Figures of the run.
    """

    scope: JobScope | None = None
    streams: JobStreams | None = None
    device: torch.device | None = None
    streams_apart: bool = True
    process: ProcessSettings = field(default_factory=ProcessSettings)
    lock_waits: LockWaits = field(default_factory=LockWaits)

    @classmethod
    def here(cls, *, streams_apart: bool) -> Surroundings:
        """Return those of the calling thread."""
        return cls(current_scope(), current_streams(), default_device(), streams_apart)


class ThreadWorker:
    """Runs the attempts of one slot in the thread that calls ``execute``.

    Args:
        slot: The slot's state.
        runner: What an attempt does.
        settings: What all attempts share.
        link: The way up to the engine.
        shared: Data for the jobs of all slots.
        built_elsewhere: Tells whether another slot has built these loaders.
        arm: Makes calls of models, loaders and optimizers cancellation points.
    """

    def __init__(
        self,
        slot: Slot,
        runner: AttemptRunner,
        settings: AttemptSettings,
        link: Link,
        shared: SharedData,
        built_elsewhere: Callable[[Call], bool],
        arm: Callable[[], None],
    ) -> None:
        self.slot = slot
        self.surroundings = Surroundings()
        self._running: JobContext | None = None
        self._arm = arm
        self._script_context = ScriptContext()
        self._asked: tuple[str, EndKind, str] | None = None  # the last stop: of what, and why
        self._runner = runner
        self._reports = runner if isinstance(runner, ReportingRunner) else None
        self._settings = settings
        self._link = link
        self._shared = shared
        self._built_elsewhere = built_elsewhere
        self._own = OwnProcess()

    def begin_run(self, surroundings: Surroundings) -> None:
        """Get ready for a run of the sweep, which the calling thread starts.

        Args:
            surroundings: Where it starts it.
        """
        self.surroundings = surroundings
        self._script_context = ScriptContext()
        self.slot.queue.follow_caller()

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Let the calling thread be on the slot, also between its jobs."""
        with enter_slot(self.slot.facets), self.surroundings.lock_waits.slot():
            yield

    def open(self) -> str:
        """Set up the slot; return the traceback if that failed, ``""`` if it is ready."""
        slot, around = self.slot, self.surroundings
        try:
            with contextlib.ExitStack() as stack:
                stack.enter_context(slot.on_device())
                if around.streams is not None:
                    stack.enter_context(around.streams.thread())
                stack.enter_context(own_torch_state(around.device, slot.device.type))
                self._script_context.run(self._runner.open_slot, slot)
                leave_if_forked(self._own)
                slot.queue.synchronize()  # its errors are no job's
        except BaseException as error:  # noqa: BLE001 - any error closes the slot, with its reason
            leave_if_forked(self._own, error)
            failure = describe(error)
        else:
            return ""
        failure.keep_whole(self._settings.folder, f"Thread-{slot.spec.index}")
        return failure.traceback

    def execute(self, attempt: Attempt) -> AttemptEnd:
        """Run an attempt to its end; never raise what the job raises."""
        slot = self.slot
        streams = JobStreams(self._settings.seed, self.surroundings.streams)
        context = self._context(attempt, streams.rng)
        scope = JobScope(context, self.surroundings.scope, slot.facets)
        begin_job(slot.facets)
        scope.thread_setups.append(slot.on_device)
        if self.surroundings.streams_apart:
            scope.thread_setups.append(streams.thread)
        self._running = context
        if self._asked is not None and self._asked[0] == attempt.name:  # just before it began
            context.stop(self._asked[1], self._asked[2])
        try:
            with self.surroundings.lock_waits.job():
                end: AttemptEnd = self._script_context.run(self._run, attempt, context, scope)
            if self._reports is not None:
                end = replace(end, report=self._reports.report(attempt))
            return end
        finally:
            self._running = None
            context.release_data()

    def stop(self, name: str, kind: EndKind, message: str) -> None:
        """Ask an attempt to end at its next cancellation point; from any thread."""
        self._asked = (name, kind, message)
        self._arm()
        running = self._running
        if running is not None and running.name == name:
            running.stop(kind, message)

    def scope_of(self, result: JobResult) -> JobScope:
        """Return a scope like that of a job which is over, to do something for it once more."""
        job = Job(result.num, result.params)
        attempt = Attempt(job, result.attempts, result.name, result.score)
        context = self._context(attempt, random.Random(self._settings.seed))  # noqa: S311
        context.params.update(copy_containers(result.params))
        scope = JobScope(context, self.surroundings.scope)
        scope.thread_setups.append(lambda: libraries_apart(lambda _message: None, slots=1))
        return scope

    def _context(self, attempt: Attempt, rng: random.Random) -> JobContext:
        return JobContext(
            device=self.slot.device,
            name=attempt.name,
            num=attempt.job.num,
            params={},  # copied when the attempt begins, so that what a copy raises is the job's
            seed=self._settings.seed,
            slot=self.slot.spec.index,
            attempt=attempt.number,
            best=self._link.best,
            loader_sets=self.slot.loader_sets,
            shared=self._shared,
            rng=rng,
            emit=self._link.emit,
            warn=lambda message: self._link.warn(f"seed: {message}"),
            timeout_s=self._settings.timeout_s,
            score=attempt.score,
            on_device=self.slot.queue.current,
            folder=self._settings.folder,
        )

    def _run(self, attempt: Attempt, context: JobContext, scope: JobScope) -> AttemptEnd:
        slot = self.slot
        started = time.monotonic()
        failure: Failure | None = None
        failed_call: Call | None = None
        value: Any = None
        score: float | None = None
        try:
            with (
                enter_scope(scope),
                own_torch_state(self.surroundings.device, slot.device.type),
            ):
                try:
                    context.params.update(copy_containers(attempt.job.params))
                    try:
                        value = self._runner.run(attempt, context)
                    finally:
                        self.surroundings.process.restore()
                    leave_if_forked(self._own)
                    slot.queue.synchronize()  # late errors are this attempt's, and so is the time
                    if self._settings.value_is_score and context.score is None:
                        score = self._as_score(context, value)
                except BaseException as error:  # noqa: BLE001 - sys.exit() ends its job alone
                    leave_if_forked(self._own, error)
                    # It does not get to the blocks round it: they set attributes of what they see,
                    # which an exception may refuse.
                    failed_call = context.failed_loaders(error)
                    failure = describe(error)
                    leave_if_forked(self._own, error)  # __str__ and __del__ may fork, too
        except BaseException as error:  # noqa: BLE001 - something left behind in a block round it
            failure = failure or describe(error)
        if failure is not None:
            failure = settle(failure, slot.queue.synchronize)
        duration_s = time.monotonic() - started
        best_score = score if context.score is None else context.score
        if failure is None:
            return AttemptEnd(
                kind=EndKind.FINISHED,
                duration_s=duration_s,
                value=value,
                score=best_score,
                serial=context.save_serial,
            )
        del value
        self._runner.keep(attempt, failure.exception)
        failure.keep_whole(context.folder, attempt.name)
        kind = failure.kind
        if issubclass(type(failure.exception), KeyboardInterrupt):
            kind = EndKind.INTERRUPTED
        if kind in (EndKind.OOM, EndKind.POISONED):
            free_memory(slot.device)
        elif slot.device.type != "cpu":
            gc.collect()  # a cycle may hold tensors, and Python does not see how large they are
        if kind is EndKind.ERROR and failed_call is not None:
            kind = EndKind.LOADERS
        return AttemptEnd(
            kind=kind,
            duration_s=duration_s,
            score=best_score,
            serial=context.save_serial,
            error=failure.error,
            traceback=failure.traceback,
            exception=failure.exception,
            location=failure.location,
            host_memory=failure.host_memory,
            loaders_elsewhere=failed_call is not None and self._built_elsewhere(failed_call),
        )

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
            self._link.warn(
                f"job {context.num} returned a {class_name(value)} that could not be read as "
                f"a number, so it has no score: {error_line(error)}"
            )
            return None
