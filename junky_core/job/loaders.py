"""Loader sets of one slot, and data that all slots share.

Two threads must not use the same DataLoader. So each slot builds its own in its own
thread, once for each distinct call, and passes it to each of its jobs. Read-only data
needs no copies: :class:`SharedData` builds it once for all slots.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from junky_core.accelerators import synchronize_used_devices
from junky_core.job.libraries.accelerate import FactoryStates, factory_states
from junky_core.job.seeding import FactoryDraws, LoaderState, loader_streams
from junky_core.values.calls import Call

__all__ = ["Built", "LoaderSets", "SharedData"]

Built = tuple[Any, "FactoryDraws | None"]  # what a factory returned, and what it drew

KEPT_SETS = 2  # the job's own and the one before it; more would fill the memory


def _build(call: Call, seed: int | None) -> Built:
    if seed is not None:
        with loader_streams(seed):
            return call.run(), None
    with FactoryDraws.noted() as draws:
        made = call.run()
    return made, draws


@dataclass(eq=False, slots=True)
class _LoaderSet:
    call: Call
    loaders: Any
    state: LoaderState  # what it was like when it was built
    draws: FactoryDraws | None  # without a seed: from the streams of the job that built it
    libraries: FactoryStates  # what the factory left in other libraries' state
    pinned: bool


class LoaderSets:
    """The loader sets that one slot has built; the last two are kept.

    Used by the slot's own thread, or by threads of its job, one at a time.

    Attributes:
        on_built: Called with each call that a set was built for.
    """

    def __init__(self, seed: int | None) -> None:
        self.on_built: Callable[[Call], None] = lambda _call: None
        self._seed = seed
        self._lock = threading.RLock()  # guards _sets; held while a factory runs
        self._sets: list[_LoaderSet] = []  # the last used last

    def has(self, call: Call) -> bool:
        """Return whether this slot has built the set of ``call``, so that it is known to work."""
        with self._lock:
            return any(known.call.same_as(call) for known in self._sets)

    def get(self, call: Call, seen: list[Any], *, pin: bool = False) -> Any:
        """Return what ``call`` returned on this slot, building it first if needed.

        Each job gets a set in the state it was built in; ``seen`` holds the sets that the
        running job has already had. If the factory drew from streams that its job had
        seeded itself, another job gets the set only if the factory would draw the same
        numbers there, and the job's streams continue as if it had drawn them. A pinned set
        is never dropped.
        """
        with self._lock:
            found = next((known for known in seen if known.call.same_as(call)), None)
            if found is None:
                found = self._ready(call)
                if found is None:
                    with factory_states() as libraries:
                        loaders, draws = _build(call, self._seed)
                    self.on_built(call)
                    if pin:
                        draws = None  # built before any job, for all of them
                    state = LoaderState.capture(loaders)
                    found = _LoaderSet(call, loaders, state, draws, libraries, pin)
                seen.append(found)
            if found in self._sets:
                self._sets.remove(found)
            self._sets.append(found)
            loose = [known for known in self._sets if not known.pinned]
            for known in loose[:-KEPT_SETS]:
                self._sets.remove(known)
            return found.loaders

    def _ready(self, call: Call) -> _LoaderSet | None:
        """Return the set of ``call`` that another job left, in the state it was built in."""
        for known in self._sets:
            if known.call.same_as(call) and (known.draws is None or known.draws.fit()):
                known.state.restore()
                known.libraries.restore()
                if known.draws is not None:
                    known.draws.repeat()
                return known
        return None


@dataclass(eq=False, slots=True)
class _Shared:
    call: Call
    building: threading.Lock = field(default_factory=threading.Lock)
    built: bool = False
    data: Any = None
    draws: FactoryDraws | None = None

    def fits(self) -> bool:
        return not self.built or self.draws is None or self.draws.fit()


class SharedData:
    """Read-only data, built once and shared by all slots of the process.

    Thread-safe; slots that ask for the same data while it is being built wait
    for it. If a factory raises, the next request calls it again.
    """

    def __init__(self, seed: int | None) -> None:
        self._seed = seed
        self._lock = threading.Lock()  # guards _entries; never held while a factory runs
        self._entries: list[_Shared] = []

    def get(self, call: Call, seen: list[Any]) -> Any:
        """Return what ``call`` returned, building it first if needed.

        ``seen`` holds what the running job has already had. As with loaders, if the factory
        drew from streams that its job had seeded, only jobs in which it would draw the same
        numbers get the same data.
        """
        for entry in seen:
            if entry.call.same_as(call):
                return entry.data
        while True:
            entry = self._entry(call)
            with entry.building:
                if not entry.built:
                    self._fill(entry)
                elif not entry.fits():
                    continue  # it was being built when it was found
                elif entry.draws is not None:
                    entry.draws.repeat()
            seen.append(entry)
            return entry.data

    def build(self, call: Call) -> Built:
        """Make the call; for subclasses, which may have its result from elsewhere."""
        return _build(call, self._seed)

    def close(self) -> None:
        """Forget all that was built."""
        with self._lock:
            self._entries.clear()

    def _entry(self, call: Call) -> _Shared:
        with self._lock:
            same = [known for known in self._entries if known.call.same_as(call)]
            for known in same:
                if known.fits():
                    return known
            for known in same[:-1]:
                self._entries.remove(known)
            self._entries.append(_Shared(call))
            return self._entries[-1]

    def _fill(self, entry: _Shared) -> None:
        try:
            entry.data, entry.draws = self.build(entry.call)
            synchronize_used_devices()  # other slots read it in their own CUDA streams
        except BaseException:
            with self._lock:
                self._drop(entry)  # it holds the failed job's arguments
            raise
        entry.built = True
        with self._lock:
            self._drop(entry)
            self._entries.append(entry)  # not there if it failed before, for another job

    def _drop(self, entry: _Shared) -> None:
        if entry in self._entries:
            self._entries.remove(entry)
