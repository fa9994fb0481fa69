"""Loader sets of one slot, and data that all slots share.

A DataLoader must not be used by two threads, so each slot builds its own, in
its own thread, once for the same call, and hands it to each of its jobs.
Read-only data needs no copies: :class:`SharedData` builds it once a process.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from typing import Any

from junky_core.identity import freeze
from junky_core.seeding import LoaderState, loader_streams

__all__ = ["LoaderSets", "SharedData", "call_key"]

KEPT_SETS = 2  # a train set and, say, the next config's; more would pile up in memory


def call_key(
    factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Hashable:
    """Return the identity of a call: same code, same closure, same arguments by content."""
    return freeze((factory, args, kwargs))


def _factory_streams(seed: int | None) -> AbstractContextManager[Any]:
    return contextlib.nullcontext() if seed is None else loader_streams(seed)


class LoaderSets:
    """The loader sets that one slot has built; the last two stay.

    Used by the slot's own thread, or by threads of its job, one at a time.
    """

    def __init__(self, seed: int | None) -> None:
        self._seed = seed
        self._lock = threading.RLock()  # guards the two below; held while a factory runs
        # The call itself is kept too: what a key knows by id must not be freed and reused.
        self._sets: OrderedDict[Hashable, tuple[Any, LoaderState | None, Any]] = OrderedDict()
        self._pinned: set[Hashable] = set()

    def has(self, key: Hashable) -> bool:
        """Return whether this slot built the set with that key, so that it can be built."""
        with self._lock:
            return key in self._sets

    def get(
        self,
        factory: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        seen: set[Hashable],
        *,
        pin: bool = False,
    ) -> Any:
        """Return what ``factory(*args, **kwargs)`` gave on this slot, calling it if it has not.

        With a seed, a set starts each job from the state it was built in:
        ``seen`` holds the sets that the running job has had already.
        A pinned set is never let go.
        """
        key = call_key(factory, args, kwargs)
        with self._lock:
            if key in self._sets:
                self._sets.move_to_end(key)
                loaders, state, _ = self._sets[key]
                if state is not None and key not in seen:
                    state.restore()
            else:
                with _factory_streams(self._seed):
                    loaders = factory(*args, **kwargs)
                state = None if self._seed is None else LoaderState.capture(loaders)
                self._sets[key] = (loaders, state, (factory, args, kwargs))
            if pin:
                self._pinned.add(key)
            seen.add(key)
            loose = [known for known in self._sets if known not in self._pinned]
            for known in loose[:-KEPT_SETS]:
                del self._sets[known]
            return loaders


class SharedData:
    """Read-only data, built once in the process and shared by all slots.

    Thread-safe; slots that ask for the same data while it is being built wait
    for it. A factory that raises is called again by the next who asks.
    """

    def __init__(self, seed: int | None) -> None:
        self._seed = seed
        self._lock = threading.Lock()  # guards the two dicts; never held while a factory runs
        self._data: dict[Hashable, tuple[Any, Any]] = {}  # with the call, as above
        self._building: dict[Hashable, threading.Lock] = {}

    def get(
        self, factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Return what ``factory(*args, **kwargs)`` gave, calling it if nobody has."""
        key = call_key(factory, args, kwargs)
        with self._lock:
            if key in self._data:
                return self._data[key][0]
            building = self._building.setdefault(key, threading.Lock())
        with building:
            with self._lock:
                if key in self._data:
                    return self._data[key][0]
            with _factory_streams(self._seed):
                data = factory(*args, **kwargs)
            with self._lock:
                self._data[key] = (data, (factory, args, kwargs))
                self._building.pop(key, None)
            return data
