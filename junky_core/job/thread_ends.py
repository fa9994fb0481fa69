"""The end of the process, in the presence of threads that have used torch.

When a Python thread has ended, its system thread still runs C++ destructors, and
torch's take the interpreter's lock there: to free the random streams of a seeded job,
for example, which torch keeps by thread. If the interpreter ends at that moment, the
process aborts ("terminate called without an active exception") although all work is
done. The same happens to a thread that is still in torch's code when the interpreter
ends.

    main thread   join() ─────────► interpreter ends ► process ends
    thread        ended ► destructors ► gone
                          ^^^^^^^^^^^ must not reach beyond the interpreter's end

So the process waits until the system threads of ended threads are gone. A job's daemon
thread may be told to end only when the process does (tqdm's monitor is), so each one
left has a moment to do so. If a running slot had to be left behind, the process ends
without that clean-up.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterable
from multiprocessing.util import Finalize

from junky_core.job.fork_locks import free_in_children

__all__ = ["leave_behind", "note_this_thread", "wait_until_gone"]

_WITHIN_S = 1.0
_DAEMONS_WITHIN_S = 0.3  # together: those that are not told to end would need for ever
_TASKS = "/proc/self/task"
_MANY = 256

_lock = free_in_children(threading.Lock())  # guards the two below
_noted: set[int] = set()  # system's numbers of threads in which torch keeps Python objects
_left: list[tuple[threading.Thread, int]] = []  # at work when left, and the process's status


def note_this_thread() -> None:
    """Have the end of the process wait for the calling thread, once it has ended."""
    number = threading.get_native_id()
    if number in _noted:
        return
    with _lock:
        if len(_noted) >= _MANY:
            with contextlib.suppress(OSError):
                _noted.intersection_update(map(int, os.listdir(_TASKS)))  # noqa: PTH208
        _noted.add(number)


def leave_behind(threads: Iterable[threading.Thread], exit_status: int) -> None:
    """Have the process end with ``exit_status`` if it ends while one of ``threads`` is at work.

    The interpreter does not say which status it will end with, so the caller has to
    know it: it is that of the signal that ended the sweep.
    """
    with _lock:
        _left.extend((thread, exit_status) for thread in threads)


def wait_until_gone(numbers: Iterable[int | None]) -> None:
    """Wait until the system has no thread of these numbers, a second at most.

    Args:
        numbers: ``native_id`` of threads that have ended.
    """
    if not os.path.isdir(_TASKS):  # noqa: PTH112 - another system than Linux
        return
    give_up = time.monotonic() + _WITHIN_S
    for number in numbers:
        while os.path.exists(f"{_TASKS}/{number}") and time.monotonic() < give_up:  # noqa: PTH110
            time.sleep(0.001)


def _leave() -> None:
    statuses = [status for thread, status in _left if thread.is_alive()]
    if statuses:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(statuses[0])


def _wait_for_threads() -> None:
    give_up = time.monotonic() + _DAEMONS_WITHIN_S
    alive = set()
    for thread in threading.enumerate():
        if thread.native_id in _noted and thread is not threading.current_thread():
            thread.join(max(0.0, give_up - time.monotonic()))
        if thread.is_alive():
            alive.add(thread.native_id)
    wait_until_gone(_noted - alive)


# Registered when this module is imported, so that what is registered later runs before it.
atexit.register(_leave)
# As the last thing that multiprocessing does at the end, for its queues end their threads there.
# torch imports it before us, so a function of atexit would run too early.
Finalize(None, _wait_for_threads, exitpriority=-1000)
