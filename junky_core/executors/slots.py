"""What a worker keeps for the jobs of its slot."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch

from junky_core.accelerators import DeviceQueue
from junky_core.devices import SlotSpec
from junky_core.job.forks import OwnProcess
from junky_core.job.loaders import LoaderSets

__all__ = ["Slot", "torch_threads"]


def torch_threads(slots: int, asked: int | None, seed: int | None) -> int | None:
    """Return how many torch threads each slot gets, ``None`` to leave torch alone.

    What the user set wins (the argument, then ``OMP_NUM_THREADS``); a seed
    asks for 1, for torch's sums depend on the number; else the cores this
    process may use are divided by the slots.
    """
    if asked is not None:
        return asked
    if os.environ.get("OMP_NUM_THREADS"):
        return None
    if seed is not None:
        return 1
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS, Windows
        cores = os.cpu_count() or 1
    return max(1, cores // slots)


class Slot:
    """The state of one slot; touched by its own thread, and threads of its job.

    Attributes:
        spec: Index and device.
        device: The ``torch.device``.
        loader_sets: What it has built.
        queue: Its work on the device.
        facets: What other modules keep for all its jobs, by name.
    """

    def __init__(self, spec: SlotSpec, seed: int | None, threads: int | None) -> None:
        self.spec = spec
        self.device = torch.device(spec.device)
        self.loader_sets = LoaderSets(seed)
        self.queue = DeviceQueue(self.device)
        self.facets: dict[str, Any] = {}
        self._threads = threads
        self._own = OwnProcess()

    @contextlib.contextmanager
    def on_device(self) -> Iterator[None]:
        """Set up the calling thread for work on this slot, for the ``with`` block.

        On a GPU see :meth:`junky_core.accelerators.DeviceQueue.current`.
        """
        if not self._own:  # a thread of a forked child: its GPUs cannot be used
            yield
            return
        if self._threads is not None and torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)  # this thread's own number
        with self.queue.current():
            yield
