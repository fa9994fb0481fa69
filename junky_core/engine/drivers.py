"""The threads that drive slots.

Each slot has one driver thread, which lives as long as the sweep, over several
batches of jobs. It hands attempts to the slot's worker and waits for their ends,
wherever the worker is.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable

from junky_core.devices import SlotSpec
from junky_core.executors.contract import Worker
from junky_core.job.scopes import outside_scopes
from junky_core.job.thread_ends import leave_behind, wait_until_gone

__all__ = ["Driver", "Drivers"]


class Driver:
    """One slot and its thread, which alone sets the attributes once it works.

    Args:
        spec: Index and device.
        worker: Runs its attempts.
        next_number: The ``n`` of its next attempt's name.

    Attributes:
        ready: Whether the slot has been opened.
        closed: Why it takes no more jobs, ``""`` if it does.
    """

    def __init__(self, spec: SlotSpec, worker: Worker, next_number: int = 0) -> None:
        self.spec = spec
        self.worker = worker
        self.ready = False
        self.closed = ""
        self._next_number = next_number
        self.inbox: queue.SimpleQueue[Callable[[Driver], None] | None] = queue.SimpleQueue()
        self.thread: threading.Thread | None = None

    def next_name(self) -> str:
        """Return the name of its next attempt, ``Thread-<slot>_<n>``."""
        name = f"Thread-{self.spec.index}_{self._next_number}"
        self._next_number += 1
        return name


class Drivers:
    """The drivers of a sweep, in the order in which their slots were added.

    Thread-safe, but for ``close``.

    Attributes:
        idle: Set while no driver is at work.
    """

    def __init__(self) -> None:
        self.idle = threading.Event()
        self.idle.set()
        self._lock = threading.Lock()  # guards the two below, and threads being started
        self._drivers: dict[int, Driver] = {}  # by slot
        self._busy = 0

    @property
    def all(self) -> list[Driver]:
        """All drivers."""
        with self._lock:
            return list(self._drivers.values())

    @property
    def busy(self) -> int:
        """How many drivers are at work."""
        with self._lock:
            return self._busy

    def add(self, driver: Driver) -> None:
        """Add a driver; its thread starts when it first has something to do."""
        with self._lock:
            assert driver.spec.index not in self._drivers, driver.spec
            self._drivers[driver.spec.index] = driver

    def of(self, slot: SlotSpec) -> Driver:
        """Return the driver of a slot."""
        with self._lock:
            return self._drivers[slot.index]

    def drive(self, drivers: Iterable[Driver], work: Callable[[Driver], None]) -> None:
        """Run ``work(driver)`` in the thread of each driver; returns at once.

        ``idle`` is set when all have returned. ``work`` must not raise.
        """
        chosen = list(drivers)
        with self._lock:
            self._busy += len(chosen)
            if self._busy:
                self.idle.clear()
            for driver in chosen:
                if driver.thread is None:
                    driver.thread = threading.Thread(
                        target=self._live,
                        args=(driver,),
                        name=f"Thread-{driver.spec.index}",
                        daemon=True,  # a job that never ends must not keep the process
                    )
                    with outside_scopes():
                        driver.thread.start()
                driver.inbox.put(work)

    def close(self, exit_status: int | None = None) -> None:
        """End the threads once they have nothing to do.

        Args:
            exit_status: How the process ends if it ends while one of them is still at work;
                ``None`` leaves that to the interpreter.
        """
        threads = []
        for driver in self.all:
            if driver.thread is not None:
                driver.inbox.put(None)
                threads.append(driver.thread)
                driver.thread = None
        if self.idle.is_set():
            for thread in threads:
                thread.join()
            wait_until_gone([thread.native_id for thread in threads])
        elif exit_status is not None:
            leave_behind(threads, exit_status)

    def _live(self, driver: Driver) -> None:
        while True:
            work = driver.inbox.get()
            if work is None:
                return
            try:
                with driver.worker.attached():
                    work(driver)
            finally:
                del work  # it holds the last batch's jobs
                with self._lock:
                    self._busy -= 1
                    if self._busy == 0:
                        self.idle.set()
