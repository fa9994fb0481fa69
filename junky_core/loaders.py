"""Loader sets of one slot, and data that all slots share.

A DataLoader must not be used by two threads, so each slot builds its own, in
its own thread, once for the same call, and hands it to each of its jobs.
Read-only data needs no copies: :class:`SharedData` builds it once a process.
"""

from __future__ import annotations

import contextlib
import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from junky_core.accelerators import synchronize_used_devices
from junky_core.calls import Call
from junky_core.seeding import LoaderState, loader_streams

__all__ = ["LoaderSets", "SharedData"]

KEPT_SETS = 2  # this job's and, say, the one before; more would pile up in memory


def _build(call: Call, seed: int | None) -> Any:
    streams: AbstractContextManager[Any] = contextlib.nullcontext()
    if seed is not None:
        streams = loader_streams(seed)
    with streams:
        return call.run()


@dataclass(eq=False, slots=True)
class _LoaderSet:
    call: Call
    loaders: Any
    state: LoaderState | None  # with a seed: what it was like when it was built
    pinned: bool


class LoaderSets:
    """The loader sets that one slot has built; the last two stay.

    Used by the slot's own thread, or by threads of its job, one at a time.
    """

    def __init__(self, seed: int | None) -> None:
        self._seed = seed
        self._lock = threading.RLock()  # guards _sets; held while a factory runs
        self._sets: list[_LoaderSet] = []  # the last used last

    def has(self, call: Call) -> bool:
        """Return whether this slot built the set of ``call``, so that it can be built."""
        with self._lock:
            return self._find(call) is not None

    def get(self, call: Call, seen: list[Any], *, pin: bool = False) -> Any:
        """Return what ``call`` gave on this slot, making it if it was not made yet.

        With a seed, a set starts each job from the state it was built in:
        ``seen`` holds the sets that the running job has had already.
        A pinned set is never let go.
        """
        with self._lock:
            found = self._find(call)
            if found is None:
                loaders = _build(call, self._seed)
                state = None if self._seed is None else LoaderState.capture(loaders)
                found = _LoaderSet(call, loaders, state, pin)
            else:
                self._sets.remove(found)
                if found.state is not None and found not in seen:
                    found.state.restore()
            self._sets.append(found)
            if found not in seen:
                seen.append(found)
            loose = [known for known in self._sets if not known.pinned]
            for known in loose[:-KEPT_SETS]:
                self._sets.remove(known)
            return found.loaders

    def _find(self, call: Call) -> _LoaderSet | None:
        return next((known for known in self._sets if known.call.same_as(call)), None)


@dataclass(eq=False, slots=True)
class _Shared:
    call: Call
    building: threading.Lock = field(default_factory=threading.Lock)
    built: bool = False
    data: Any = None


class SharedData:
    """Read-only data, built once in the process and shared by all slots.

    Thread-safe; slots that ask for the same data while it is being built wait
    for it. A factory that raises is called again by the next who asks.
    """

    def __init__(self, seed: int | None) -> None:
        self._seed = seed
        self._lock = threading.Lock()  # guards _entries; never held while a factory runs
        self._entries: list[_Shared] = []

    def get(self, call: Call) -> Any:
        """Return what ``call`` gave, making it if nobody has."""
        with self._lock:
            entry = next((known for known in self._entries if known.call.same_as(call)), None)
            if entry is None:
                entry = _Shared(call)
                self._entries.append(entry)
        with entry.building:
            if not entry.built:
                try:
                    entry.data = _build(call, self._seed)
                    synchronize_used_devices()  # other slots read it from streams of their own
                except BaseException:
                    with self._lock:
                        self._drop(entry)  # it holds what the failed job gave to the factory
                    raise
                entry.built = True
                with self._lock:
                    self._drop(entry)
                    self._entries.append(entry)  # not there if it failed before, for another job
            return entry.data

    def _drop(self, entry: _Shared) -> None:
        if entry in self._entries:
            self._entries.remove(entry)
