"""torch's list of what ``torch.load`` accepts, where several jobs add to it and take from it.

The list is the whole process's. ``with torch.serialization.safe_globals([...])`` takes away what it
added as it ends, and ``accelerate`` empties the list after each load, although another job's
``torch.load`` still needs the same: that one raises. ``accelerate`` catches the error, and goes on
with other random numbers than those it saved; Trainer fails as it resumes. While a sweep runs on
several slots, a job takes away only what it added itself, and an entry stays until every job that
added it has taken it away.
"""

from __future__ import annotations

import collections
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch._weights_only_unpickler as unpickler

from junky_core.job.scopes import current_scope

__all__ = ["safe_globals_counted"]

# What torch's own functions call; private, and so may be missing.
ADD, REMOVE = "_add_safe_globals", "_remove_safe_globals"
CLEAR, GET = "_clear_safe_globals", "_get_safe_globals"
NAMES = (ADD, REMOVE, CLEAR, GET)
FACET = "safe_globals"  # where a job's scope has its own id, and what it added

_lock = threading.Lock()  # guards all below, what jobs added, and torch's list
_holders = 0
_plain: dict[str, Any] = {}  # torch's own functions, while ours are in place
_times: collections.Counter[Any] = collections.Counter()  # how many have added each entry
_before: set[Any] = set()  # what was there before the sweep
_elsewhere: set[Any] = set()  # what threads of no job added


@contextlib.contextmanager
def safe_globals_counted(*, slots: int) -> Iterator[None]:
    """Let jobs use ``safe_globals`` at the same time inside the ``with`` block.

    Process-wide while it lasts; several blocks may overlap. One slot needs nothing.
    """
    global _holders
    if slots < 2 or not all(hasattr(unpickler, name) for name in NAMES):
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
    _plain.update((name, getattr(unpickler, name)) for name in NAMES)
    _before.update(_plain[GET]())
    _times.update(_before)
    for name, function in zip(NAMES, (_add, _remove, _clear, _get), strict=True):
        setattr(unpickler, name, function)


def _put_back() -> None:
    for name, function in _plain.items():
        setattr(unpickler, name, function)
    for held in (_plain, _times, _before, _elsewhere):
        held.clear()


def _own() -> set[Any]:
    """Return what the calling thread's job added."""
    scope = current_scope()
    if scope is None:
        return _elsewhere
    held: tuple[int | None, set[Any]] = scope.facets.get(FACET, (None, set()))
    owner, own = held
    if owner != id(scope):  # a scope inside another begins with its facets
        own = set()
        scope.facets[FACET] = id(scope), own
    return own


def _add(entries: list[Any]) -> None:
    with _lock:
        own = _own()
        _times.update(set(entries) - own)
        own.update(entries)
        _plain[ADD](entries)


def _remove(entries: list[Any]) -> None:
    with _lock:
        _take_away(set(entries))


def _clear() -> None:
    with _lock:
        _take_away(set(_own()))


def _take_away(entries: set[Any]) -> None:
    own = _own()
    gone = entries & own
    own -= gone
    _times.subtract(gone)
    _plain[REMOVE]([entry for entry in gone if _times[entry] <= 0])


def _get() -> list[Any]:
    with _lock:
        return list(_before | _own())
