"""Attempts on threads of this process: the executor for ``executor=threads``.

All that threads of one process share and jobs must not (random generators,
consoles, libraries' state) is kept apart while a run lasts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import torch

from junky_core.devices import SlotSpec
from junky_core.errors import ConfigError
from junky_core.executors.contract import AttemptRunner, AttemptSettings, Link
from junky_core.executors.slots import Slot, SlotThreads, torch_threads
from junky_core.executors.thread_worker import Surroundings, ThreadWorker
from junky_core.job.consoles import consoles_apart
from junky_core.job.first_imports import first_imports_in_turn
from junky_core.job.fork_turns import forks_in_turn
from junky_core.job.libraries import libraries_apart
from junky_core.job.loaders import SharedData
from junky_core.job.scopes import inherit_scopes
from junky_core.job.seeding import installed_streams
from junky_core.values.calls import Call

__all__ = ["ThreadExecutor"]


class ThreadExecutor:
    """Slots whose jobs run in their driver threads, in this process.

    For one thread at a time, but for the workers.

    Args:
        specs: The seats.
        runner: What an attempt does.
        settings: What all attempts share.
        link: The way up to the engine.
        threads_per_slot: Torch threads of each slot, ``None`` to choose.
        next_numbers: By slot, the ``n`` its next name gets.

    Attributes:
        threads: Torch threads of each slot, ``None`` if torch is left alone.
        drivers: The slots and their driver threads.
        workers: By slot, what runs its attempts.
    """

    def __init__(
        self,
        specs: Sequence[SlotSpec],
        runner: AttemptRunner,
        settings: AttemptSettings,
        link: Link,
        *,
        threads_per_slot: int | None = None,
        next_numbers: Mapping[int, int] | None = None,
    ) -> None:
        self._settings = settings
        self._link = link
        self.threads = torch_threads(len(specs), threads_per_slot, settings.seed)
        numbers = next_numbers or {}
        slots = [
            Slot(spec, settings.seed, self.threads, numbers.get(spec.index, 0)) for spec in specs
        ]
        self.drivers = SlotThreads(slots)
        self._shared = shared = SharedData(settings.seed)
        self.workers = {
            slot.spec.index: ThreadWorker(
                slot, runner, settings, link, shared, self._built_elsewhere
            )
            for slot in slots
        }

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
            for worker in self.workers.values():
                worker.begin_run(surroundings)
            stack.enter_context(libraries_apart(self._link.warn, slots=slots))
            try:
                yield
            finally:
                if self.threads is not None:  # new threads start from the number that was last set
                    torch.set_num_threads(torch_threads_before)

    def close(self, exit_status: int | None = None) -> None:
        """End the slots' threads and free what was built for jobs; see ``SlotThreads.close``."""
        self.drivers.close(exit_status)
        self._shared.close()

    def _keep_streams_apart(self, stack: contextlib.ExitStack) -> bool:
        """Let each job have random streams of its own, at the latest once it seeds them."""
        seeded = self._settings.seed is not None
        try:
            stack.enter_context(installed_streams(seeded=seeded))
        except ConfigError as error:
            if seeded:
                raise
            self._link.warn(f"jobs that seed themselves disturb each other. {error}")
            return False
        return True

    def _built_elsewhere(self, call: Call) -> bool:
        try:
            return any(slot.loader_sets.has(call) for slot in self.drivers.slots)
        except Exception:  # noqa: BLE001 - arguments that cannot be compared
            return False
