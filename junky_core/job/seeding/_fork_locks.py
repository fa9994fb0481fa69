"""Locks that a forked child needs, held over the fork.

A ``DataLoader`` worker seeds torch and NumPy first of all. Both take a lock of the whole process
for that. Had another job's thread one of them at the fork, the child's copy would stay locked, for
that thread does not exist there: the worker would wait for ever, and its job for the worker.

    torch.manual_seed      _initialization_lock of torch.cuda, torch.xpu and torch.mtia
    numpy.random.seed      the lock of the process-wide bit generator, taken for each draw
"""

# ruff: noqa: SLF001  # none of these locks has a public name

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

from junky_core.job.seeding._current import hidden_streams

__all__ = ["hold_locks", "release_locks"]

_DEVICE_MODULES = ("torch.cuda", "torch.xpu", "torch.mtia")
# A device that starts holds its lock for seconds. Nobody is waited for longer: who holds the lock
# may be waiting for the forking thread.
_WAIT_S = 10.0

_held = threading.local()  # .locks: those that the forking thread has


def hold_locks() -> None:
    """Take the locks, so that no other thread has them; before a fork."""
    _held.locks = [lock for lock in _locks() if lock.acquire(timeout=_WAIT_S)]


def release_locks() -> None:
    """Give them back; after the fork, in the parent and in the child."""
    while _held.locks:
        _held.locks.pop().release()


def _locks() -> Iterator[Any]:
    for name in _DEVICE_MODULES:
        lock = getattr(sys.modules.get(name), "_initialization_lock", None)
        if lock is not None:
            yield lock
    numpy = sys.modules.get("numpy.random.mtrand")
    if numpy is not None:
        with hidden_streams():
            lock = numpy._rand._bit_generator.lock
        yield lock
