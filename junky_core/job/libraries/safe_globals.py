"""torch's list of what ``torch.load`` accepts, where several jobs add to it and take from it.

The list is the whole process's. ``with torch.serialization.safe_globals([...])`` takes away what it
added as it ends, although another job's block, or an ``add_safe_globals`` of it, still needs the
same: that job's ``torch.load`` raises. ``accelerate`` catches the error, and goes on with other
random numbers than those it saved; Trainer fails as it resumes. While a sweep runs on several
slots, an entry stays until everyone who added it has taken it away.
"""

from __future__ import annotations

import collections
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch._weights_only_unpickler as unpickler

__all__ = ["safe_globals_counted"]

# What torch's block and add_safe_globals() call; private, and so may be missing.
ADD, REMOVE, GET = "_add_safe_globals", "_remove_safe_globals", "_get_safe_globals"

_lock = threading.Lock()  # guards all below, and torch's list
_holders = 0
_plain: tuple[Any, Any] | None = None  # torch's own functions, while ours are in place
_times: collections.Counter[Any] = collections.Counter()  # how often each entry was added


@contextlib.contextmanager
def safe_globals_counted(*, slots: int) -> Iterator[None]:
    """Let jobs use ``safe_globals`` at the same time inside the ``with`` block.

    Process-wide while it lasts; several blocks may overlap. One slot needs nothing.
    """
    global _holders
    if slots < 2 or not all(hasattr(unpickler, name) for name in (ADD, REMOVE, GET)):
        yield
        return
    with _lock:
        if _holders == 0:
            _replace()
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0:
                _put_back()


def _replace() -> None:
    global _plain
    _plain = add, remove = getattr(unpickler, ADD), getattr(unpickler, REMOVE)
    _times.update(getattr(unpickler, GET)())

    def add_counted(entries: list[Any]) -> None:
        with _lock:
            _times.update(set(entries))
            add(entries)

    def remove_counted(entries: list[Any]) -> None:
        with _lock:
            _times.subtract(set(entries))
            remove([entry for entry in entries if _times[entry] <= 0])

    setattr(unpickler, ADD, add_counted)
    setattr(unpickler, REMOVE, remove_counted)


def _put_back() -> None:
    assert _plain is not None
    setattr(unpickler, ADD, _plain[0])
    setattr(unpickler, REMOVE, _plain[1])
    _times.clear()
