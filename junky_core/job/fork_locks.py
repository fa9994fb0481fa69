"""Locks that a forked child finds free.

``os.fork`` copies every lock in its current state, but only the thread that
forks. A lock that another job's thread held stays locked in the child for ever:
a ``DataLoader`` worker that needs it hangs, and its job with it.

    thread 1   starts a forkserver ─► has tempfile's lock ────────────► releases it
    thread 2                              forks ─► worker ─► waits for tempfile's lock

So a child resets such locks. The thread that held one may have been interrupted
halfway. That is harmless if the lock guards something that is created when it is
first needed, because the child creates it again, or a random state, because a worker
seeds it.
"""

from __future__ import annotations

import contextlib
import io
import operator
import os
import sys
import weakref
from typing import Any, TypeVar

__all__ = ["free_in_children", "free_streams"]

_Lock = TypeVar("_Lock")

# By module, other libraries' locks that workers, and processes started by workers, need. None has
# a public name; one that is renamed keeps its state at the fork.
_OTHERS = (
    ("tempfile", "_once_lock"),  # held while it looks for a writable folder
    ("multiprocessing.resource_tracker", "_resource_tracker._lock"),  # while it starts a process
    ("multiprocessing.forkserver", "_forkserver._lock"),  # likewise
    ("torch.cuda", "_initialization_lock"),  # this and the next two: for seeding
    ("torch.xpu", "_initialization_lock"),
    ("torch.mtia", "_initialization_lock"),
)
_ours: weakref.WeakSet[Any] = weakref.WeakSet()


def free_in_children(lock: _Lock) -> _Lock:
    """Return ``lock``, which is free in each child that is forked from now on.

    Args:
        lock: A ``threading.Lock``, ``RLock`` or ``Condition``. The thread that forks must not have
            it.
    """
    _ours.add(lock)
    return lock


def free_streams() -> None:
    """Free the locks of standard output and error; call it in a child.

    Each file has a lock, which a thread holds while it writes: to a pipe that is
    full, for as long as nobody reads. Text that waits in the file's buffer is the
    parent's to write; the child drops its copy.
    """
    for stream in (sys.__stdout__, sys.__stderr__):
        buffer = getattr(stream, "buffer", None)
        if isinstance(buffer, io.BufferedWriter):
            with contextlib.suppress(OSError, ValueError):  # closed
                # It creates a new lock. The lock itself cannot be reached.
                buffer.__init__(buffer.raw)  # type: ignore[misc]


def _after_fork_in_child() -> None:
    locks = list(_ours)
    for module, name in _OTHERS:
        try:
            locks.append(operator.attrgetter(name)(sys.modules[module]))
        except (AttributeError, KeyError):
            continue
    for lock in locks:
        renew = getattr(lock, "_at_fork_reinit", None)  # what the standard library itself calls
        if renew is not None:
            renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
