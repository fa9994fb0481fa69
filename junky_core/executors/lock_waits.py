"""Whether slots on threads mostly waited for the interpreter lock.

Nothing counts such waits, so it is concluded from figures of a whole run. All have to fit:

    figure                              the lock           otherwise
    time that the run took              10 s or more       too short to say
    slots busy, on average              1.5 or more        nothing to wait for
    cores that the process used         0.8 to 1.6         fewer: jobs wait for a disk, a network;
                                                           more: kernels run in parallel, or
                                                           threads wait for a GPU (they spin)
    slots' time waiting for a core      under 20 %         the machine, or its quota, is too small
    slots' time waiting otherwise       over 25 %          no reason to change anything
    length of such a wait, on average   under 1 ms         longer: a disk, a network, a queue
    cores that the process may use      2 or more          processes would be no faster

Torch gives up the lock in its operators, so jobs that train wait for it often and shortly. Jobs
of pure Python wait for whole turns (5 ms), as long as others wait for a disk: they are told
nothing, for two slots that each sleep half of the time use one core as well. The system counts
the figures, on Linux, for each thread; nothing is measured while jobs run.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LockWaits", "RunFigures", "ThreadFigures"]

_THREAD = Path("/proc/thread-self")
_LEAST_S = 10.0
_LEAST_BUSY = 1.5
_CORES = (0.8, 1.6)
_MOST_DELAYED = 0.2
_LEAST_WAITING = 0.25
_LONGEST_WAIT_S = 1e-3


@dataclass(frozen=True, slots=True)
class ThreadFigures:
    """What the system has counted of a thread.

    Attributes:
        cpu_s: Seconds in which it ran.
        delayed_s: Seconds in which it could have run, but had no core.
        waits: How often it waited for something else.
    """

    cpu_s: float = 0.0
    delayed_s: float = 0.0
    waits: int = 0

    @classmethod
    def of_this_thread(cls) -> ThreadFigures | None:
        """Return those of the calling thread so far, ``None`` if the system has none."""
        try:
            cpu, delayed, _ = (_THREAD / "schedstat").read_text().split()
            status = (_THREAD / "status").read_text()
        except (OSError, ValueError):
            return None
        waits = status.partition("\nvoluntary_ctxt_switches:")[2].split(maxsplit=1)
        return cls(int(cpu) / 1e9, int(delayed) / 1e9, int(waits[0])) if waits else None

    def __add__(self, other: ThreadFigures) -> ThreadFigures:
        return ThreadFigures(
            self.cpu_s + other.cpu_s, self.delayed_s + other.delayed_s, self.waits + other.waits
        )

    def __sub__(self, other: ThreadFigures) -> ThreadFigures:
        return self + ThreadFigures(-other.cpu_s, -other.delayed_s, -other.waits)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFigures:
    """Figures of a run.

    Attributes:
        wall_s: Seconds it took.
        process_s: CPU time of the process.
        busy_s: Seconds in which slots had a job, summed over them.
        slots: The figures of their threads, summed likewise.
        cores: How many cores the process may use.
    """

    wall_s: float
    process_s: float
    busy_s: float
    slots: ThreadFigures
    cores: int

    def show_lock_waits(self) -> bool:
        """Return whether the slots mostly waited for the interpreter lock."""
        if self.wall_s < _LEAST_S or self.busy_s < _LEAST_BUSY * self.wall_s or self.cores < 2:
            return False
        waiting_s = self.busy_s - self.slots.cpu_s - self.slots.delayed_s
        least, most = _CORES
        return (
            least <= self.process_s / self.wall_s <= most
            and self.slots.delayed_s < _MOST_DELAYED * self.busy_s
            and waiting_s > _LEAST_WAITING * self.busy_s
            and waiting_s < _LONGEST_WAIT_S * self.slots.waits
        )

    def advice(self) -> str:
        """Return what to tell the user then."""
        return (
            f"{self.busy_s / self.wall_s:.1f} slots were busy on average, but used only "
            f"{self.process_s / self.wall_s:.1f} CPU cores: they mostly waited for Python's "
            "interpreter lock, which threads share. With executor=processes each slot has its own"
        )


class LockWaits:
    """Adds up the figures of one run, which begins when this is made. Thread-safe."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._process_s = time.process_time()
        self._lock = threading.Lock()  # guards all below
        self._busy_s = 0.0
        self._sum = ThreadFigures()
        self._is_known = True  # the figures of all threads are

    @contextlib.contextmanager
    def slot(self) -> Iterator[None]:
        """Count the calling thread, which is that of a slot, for the ``with`` block."""
        before = ThreadFigures.of_this_thread()
        try:
            yield
        finally:
            after = ThreadFigures.of_this_thread()
            with self._lock:
                if before is None or after is None:
                    self._is_known = False
                else:
                    self._sum = self._sum + (after - before)

    @contextlib.contextmanager
    def job(self) -> Iterator[None]:
        """Count the slot as busy, for the ``with`` block."""
        began = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._busy_s += time.monotonic() - began

    def advice(self) -> str:
        """Return what to tell the user at the end of the run, ``""`` for nothing."""
        with self._lock:
            if not self._is_known:
                return ""
            figures = RunFigures(
                wall_s=time.monotonic() - self._began_s,
                process_s=time.process_time() - self._process_s,
                busy_s=self._busy_s,
                slots=self._sum,
                cores=len(os.sched_getaffinity(0)),
            )
        return figures.advice() if figures.show_lock_waits() else ""
