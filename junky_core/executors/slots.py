"""Slots and the threads that drive them.

Each slot is one seat on a device and one thread, which lives as long as the
sweep, over several batches of jobs. What runs in it is handed to it, so that a
slot in another process, or on another machine, is driven by such a thread too.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from junky_core.accelerators import DeviceQueue
from junky_core.devices import SlotSpec
from junky_core.job.forks import OwnProcess
from junky_core.job.loaders import LoaderSets
from junky_core.job.scopes import enter_slot, outside_scopes
from junky_core.job.thread_ends import leave_behind, wait_until_gone

__all__ = ["Slot", "SlotThreads", "torch_threads"]


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
        next_number: The ``n`` of its next attempt's name.
    """

    def __init__(
        self, spec: SlotSpec, seed: int | None, threads: int | None, next_number: int = 0
    ) -> None:
        self.spec = spec
        self.device = torch.device(spec.device)
        self.loader_sets = LoaderSets(seed)
        self.queue = DeviceQueue(self.device)
        self.facets: dict[str, Any] = {}
        self.next_number = next_number
        self.ready = False
        self.closed = False
        self._threads = threads
        self._own = OwnProcess()

    def next_name(self) -> str:
        """Return the name of its next attempt, ``Thread-<slot>_<n>``."""
        name = f"Thread-{self.spec.index}_{self.next_number}"
        self.next_number += 1
        return name

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


class SlotThreads:
    """One thread for each slot, started when it first has something to do.

    ``drive`` and ``close`` are for one thread at a time.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self.slots = tuple(slots)
        self.idle = threading.Event()  # no slot is being driven
        self.idle.set()
        self._lock = threading.Lock()  # guards _busy
        self._busy = 0
        self._inboxes: dict[int, queue.SimpleQueue[Callable[[Slot], None] | None]] = {}
        self._threads: dict[int, threading.Thread] = {}

    @property
    def busy(self) -> int:
        """How many slots are being driven."""
        with self._lock:
            return self._busy

    def drive(self, work: Mapping[int, Callable[[Slot], None]]) -> None:
        """Run ``work[index](slot)`` in the thread of each slot named; returns at once.

        ``idle`` is set when all have returned. ``work`` must not raise.
        """
        with self._lock:
            self._busy += len(work)
            if self._busy:
                self.idle.clear()
        for slot in self.slots:
            index = slot.spec.index
            if index not in work:
                continue
            if index not in self._threads:
                self._inboxes[index] = queue.SimpleQueue()
                self._threads[index] = threading.Thread(
                    target=self._live,
                    args=(slot, self._inboxes[index]),
                    name=f"Thread-{index}",
                    daemon=True,  # a job that never ends must not keep the process
                )
                with outside_scopes():
                    self._threads[index].start()
            slot.queue.follow_caller()
            self._inboxes[index].put(work[index])

    def close(self, exit_status: int | None = None) -> None:
        """End the threads once they have nothing to do.

        Args:
            exit_status: How the process ends if it ends while one of them is still at work;
                ``None`` leaves that to the interpreter.
        """
        for inbox in self._inboxes.values():
            inbox.put(None)
        if self.idle.is_set():
            for thread in self._threads.values():
                thread.join()
            wait_until_gone([thread.native_id for thread in self._threads.values()])
        elif exit_status is not None:
            leave_behind(self._threads.values(), exit_status)
        self._threads.clear()
        self._inboxes.clear()

    def _live(self, slot: Slot, inbox: queue.SimpleQueue[Callable[[Slot], None] | None]) -> None:
        while True:
            work = inbox.get()
            if work is None:
                return
            try:
                with enter_slot(slot.facets):
                    work(slot)
            finally:
                del work  # it holds the last batch's jobs
                with self._lock:
                    self._busy -= 1
                    if self._busy == 0:
                        self.idle.set()
