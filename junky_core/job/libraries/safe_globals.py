"""torch's list of classes that ``torch.load`` accepts, when several jobs change it.

The list belongs to the whole process. ``with torch.serialization.safe_globals([...])`` removes at
its end what it added, and ``accelerate`` empties the list after each load. If another job's
``torch.load`` still needs those entries, it raises. ``accelerate`` catches the error and continues
with other random numbers than it saved; Trainer fails to resume. While a sweep runs on several
slots, a job removes only what it added itself, and an entry stays until every job that added it
has removed it.
"""

from __future__ import annotations

import collections
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch._weights_only_unpickler as unpickler

from junky_core.job.fork_locks import free_in_children
from junky_core.job.patches import replaced, shared
from junky_core.job.scopes import current_scope

__all__ = ["safe_globals_counted"]

# What torch's public functions call. They are private, so they may be missing.
ADD, REMOVE = "_add_safe_globals", "_remove_safe_globals"
CLEAR, GET = "_clear_safe_globals", "_get_safe_globals"
NAMES = (ADD, REMOVE, CLEAR, GET)
FACET = "safe_globals"  # where a job's scope has what it added


@shared
@contextlib.contextmanager
def safe_globals_counted() -> Iterator[None]:
    """Let jobs use ``safe_globals`` at the same time inside the ``with`` block.

    Process-wide while it lasts; several blocks may overlap.
    """
    with contextlib.ExitStack() as stack:
        if all(hasattr(unpickler, name) for name in NAMES):
            counted = _Counted()
            functions = (counted.add, counted.remove, counted.clear, counted.get)
            for name, function in zip(NAMES, functions, strict=True):
                stack.enter_context(replaced(unpickler, name, function))
        yield


class _Counted:
    """Replaces torch's functions, and records who added what."""

    def __init__(self) -> None:
        self._plain: dict[str, Any] = {name: getattr(unpickler, name) for name in NAMES}
        # Guards all below, what jobs added, and torch's list.
        self._lock = free_in_children(threading.Lock())
        self._before = set(self._plain[GET]())  # what was there before the sweep
        self._elsewhere: set[Any] = set()  # what threads of no job added
        self._times = collections.Counter(self._before)  # how many have added each entry

    def add(self, entries: list[Any]) -> None:
        with self._lock:
            own = self._own()
            self._times.update(set(entries) - own)
            own.update(entries)
            self._plain[ADD](entries)

    def remove(self, entries: list[Any]) -> None:
        with self._lock:
            self._take_away(set(entries))

    def clear(self) -> None:
        with self._lock:
            self._take_away(set(self._own()))

    def get(self) -> list[Any]:
        with self._lock:
            return list(self._before | self._own())

    def _own(self) -> set[Any]:
        """Return what the calling thread's job added."""
        scope = current_scope()
        own: set[Any] = self._elsewhere if scope is None else scope.own_facet(FACET, set)
        return own

    def _take_away(self, entries: set[Any]) -> None:
        own = self._own()
        gone = entries & own
        own -= gone
        self._times.subtract(gone)
        self._plain[REMOVE]([entry for entry in gone if self._times[entry] <= 0])
