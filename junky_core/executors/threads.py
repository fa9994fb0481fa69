"""Attempts on threads of this process: the executor for ``executor=threads``.

All that threads of one process share and jobs must not (random generators,
consoles, libraries' state) is kept apart while a run lasts.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence

import torch

from junky_core.devices import SlotSpec
from junky_core.errors import ConfigError
from junky_core.executors.contract import AttemptRunner, AttemptSettings, Link
from junky_core.executors.slots import Slot, torch_threads
from junky_core.executors.thread_worker import Surroundings, ThreadWorker
from junky_core.job.cancellation import CancellationPoints
from junky_core.job.consoles import consoles_apart
from junky_core.job.first_imports import first_imports_in_turn
from junky_core.job.fork_turns import forks_in_turn
from junky_core.job.libraries import libraries_apart
from junky_core.job.loaders import SharedData
from junky_core.job.scopes import JobScope, inherit_scopes
from junky_core.job.seeding import installed_streams
from junky_core.jobs import JobResult
from junky_core.values.calls import Call

__all__ = ["ThreadExecutor"]


class ThreadExecutor:
    """Slots whose jobs run in their driver threads, in this process.

    Args:
        slots: The seats.
        runner: What an attempt does.
        settings: What all attempts share.
        link: The way up to the engine.
        shared: Data for the jobs of all slots, by default of this process alone.
        built_elsewhere: Tells whether a slot of another process has built these loaders.

    Attributes:
        threads: Torch threads of each slot, ``None`` if torch is left alone.
        wait_s: 0, because no further slot opens by itself.
        kill_after_s: ``None``, because a thread cannot be killed.
    """

    wait_s = 0.0
    kill_after_s: float | None = None

    def __init__(
        self,
        slots: Sequence[SlotSpec],
        runner: AttemptRunner,
        settings: AttemptSettings,
        link: Link,
        *,
        shared: SharedData | None = None,
        built_elsewhere: Callable[[Call], bool] = lambda _call: False,
    ) -> None:
        self._runner = runner
        self._settings = settings
        self._link = link
        self.threads = torch_threads(len(slots), settings.threads_per_slot, settings.seed)
        self._built_elsewhere = built_elsewhere
        self._shared = shared or SharedData(settings.seed)
        self._cancellation_points = CancellationPoints()
        self._surroundings: Surroundings | None = None  # while a run lasts
        self._lock = threading.Lock()  # guards _workers
        self._workers: dict[int, ThreadWorker] = {}  # by slot
        for slot in slots:
            self.worker(slot)

    def worker(self, slot: SlotSpec) -> ThreadWorker:
        """Return the worker of ``slot``; a new one for a slot that is not known yet."""
        with self._lock:
            worker = self._workers.get(slot.index)
            if worker is None:
                worker = self._workers[slot.index] = ThreadWorker(
                    Slot(slot, self._settings.seed, self.threads),
                    self._runner,
                    self._settings,
                    self._link,
                    self._shared,
                    self._has_built,
                    self._cancellation_points.arm,
                )
                if self._surroundings is not None:
                    worker.begin_run(self._surroundings)
            return worker

    def scope_of(self, result: JobResult) -> JobScope:
        """Return a scope like that of a job which is over, to do something for it once more."""
        return self._all_workers()[0].scope_of(result)

    @contextlib.contextmanager
    def running(self, slots: int) -> Iterator[None]:
        """Keep apart what threads share, for jobs on so many slots, inside the ``with`` block."""
        torch_threads_before = torch.get_num_threads()
        with contextlib.ExitStack() as stack:
            stack.enter_context(inherit_scopes())
            stack.enter_context(consoles_apart())
            # With one slot too: what writes the best model, and observers, have threads as well.
            stack.enter_context(first_imports_in_turn())
            stack.enter_context(forks_in_turn())
            surroundings = Surroundings.here(streams_apart=self._keep_streams_apart(stack))
            for worker in self._all_workers():
                worker.begin_run(surroundings)
            self._surroundings = surroundings
            stack.callback(self._cancellation_points.disarm)
            stack.enter_context(libraries_apart(self._link.warn, slots=slots))
            try:
                yield
                advice = surroundings.lock_waits.advice()
                if advice:
                    self._link.warn(advice)
            finally:
                self._surroundings = None
                if self.threads is not None:  # new threads start from the number that was last set
                    torch.set_num_threads(torch_threads_before)

    def close(self) -> None:
        """Free what was built for jobs."""
        self._shared.close()

    def _all_workers(self) -> list[ThreadWorker]:
        with self._lock:
            return list(self._workers.values())

    def _keep_streams_apart(self, stack: contextlib.ExitStack) -> bool:
        """Give each job its own random streams, at the latest when it seeds."""
        seeded = self._settings.seed is not None
        try:
            stack.enter_context(installed_streams(seeded=seeded))
        except ConfigError as error:
            if seeded:
                raise
            self._link.warn(f"jobs that seed themselves disturb each other. {error}")
            return False
        return True

    def _has_built(self, call: Call) -> bool:
        try:
            here = any(worker.slot.loader_sets.has(call) for worker in self._all_workers())
            return here or self._built_elsewhere(call)
        except Exception:  # noqa: BLE001 - arguments that cannot be compared
            return False
