"""Reused loaders, put back into the state in which they were built."""

# ruff: noqa: SLF001  # persistent workers and global generators have no public names

from __future__ import annotations

import contextlib
import itertools
import random
import sys
import types
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from junky_core.job.seeding._streams import JobStreams

__all__ = ["LoaderState"]

MAX_OBJECTS = 20_000  # visited in one set of loaders, nearest first
MAX_ITEMS = 256  # visited in one list, tuple, set or mapping: a dataset's samples are alike
_SCALARS = (bool, int, float, str)
_LEAVES = (
    *(_SCALARS),
    bytes,
    bytearray,
    complex,
    type(None),
    type,
    types.ModuleType,
    types.BuiltinFunctionType,
    torch.Tensor,
    torch.dtype,
    torch.device,
    JobStreams,
)


class LoaderState:
    """The random state of the loaders that a slot keeps from job to job.

    What is remembered, wherever it is reachable from what the factory returned
    (containers, loaders, samplers, datasets, transforms, closures; about the
    nearest 20,000 objects, of a long list the first 256):

    - each ``torch.Generator``, ``random.Random``, NumPy ``Generator`` and ``RandomState``;
    - the numbers, strings and flags that a sampler, or a batch sampler, has as attributes
      (``DistributedSampler.epoch``).

    Persistent workers are stopped, because they have drawn ahead.

    Used by one slot, one thread at a time. A dataset that several slots share is
    one object with one state. So create a dataset that draws in the factory.

    Example:
        >>> generator = torch.Generator().manual_seed(1)
        >>> loader = DataLoader(range(9), shuffle=True, generator=generator)
        >>> state = LoaderState.capture(loader)
        >>> first = torch.cat(list(loader))
        >>> state.restore()
        >>> torch.equal(first, torch.cat(list(loader)))
        True
    """

    def __init__(self, restorers: list[Callable[[], Any]], loaders: list[DataLoader[Any]]) -> None:
        self._restorers = restorers
        self._loaders = loaders

    @staticmethod
    def capture(loaders: Any) -> LoaderState:
        """Remember the state of ``loaders``, in whatever form the factory returned them."""
        restorers = []
        data_loaders = []
        for found in _reachable(loaders):
            if isinstance(found, DataLoader):
                data_loaders.append(found)
                continue
            restorer = _restorer(found)
            if restorer is not None:
                restorers.append(restorer)
        return LoaderState(restorers, data_loaders)

    def restore(self) -> None:
        """Put all that was remembered back as it was."""
        self.stop_workers()
        for restorer in self._restorers:
            restorer()

    def stop_workers(self) -> None:
        """End persistent workers; a loader that is used again starts others."""
        for loader in self._loaders:
            with contextlib.suppress(Exception):  # they may have died
                _stop_workers(loader)


def _restorer(found: Any) -> Callable[[], Any] | None:
    """Return what puts ``found`` back into the state it is in, ``None`` if it has none."""
    if isinstance(found, torch.Generator):
        defaults = (torch.default_generator, *torch.cuda.default_generators)
        if any(found is default for default in defaults):
            return None  # a job's stream replaces it
        return partial(found.set_state, found.get_state())
    if isinstance(found, random.Random):
        if found is random._inst or isinstance(found, random.SystemRandom):
            return None
        return partial(found.setstate, found.getstate())
    if isinstance(found, Sampler):
        return partial(_restore_scalars, found, _scalars(found))
    return _numpy_restorer(found)


def _numpy_restorer(found: Any) -> Callable[[], Any] | None:
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    if isinstance(found, numpy.random.Generator):
        found = found.bit_generator
    if isinstance(found, numpy.random.BitGenerator):
        return partial(setattr, found, "state", found.state)
    if isinstance(found, numpy.random.RandomState) and not _is_global(found):
        return partial(found.set_state, found.get_state(legacy=False))
    return None


def _is_global(found: Any) -> bool:
    """Return whether it is NumPy's global object or its replacement."""
    mtrand = sys.modules["numpy.random.mtrand"]
    return found is mtrand._rand or type(found).__name__ == "JobRandomState"


def _stop_workers(loader: DataLoader[Any]) -> None:
    iterator = loader._iterator
    if iterator is not None:
        loader._iterator = None
        shut_down = getattr(iterator, "_shutdown_workers", None)
        if shut_down is not None:
            shut_down()


def _scalars(owner: Any) -> dict[str, Any]:
    return {
        name: value
        for name, value in getattr(owner, "__dict__", {}).items()
        if type(value) in _SCALARS
    }


def _restore_scalars(owner: Any, scalars: dict[str, Any]) -> None:
    for name, value in scalars.items():
        if getattr(owner, name, None) != value:
            setattr(owner, name, value)


def _reachable(start: Any) -> Iterator[Any]:
    """Yield the objects reachable from ``start``, each once, nearest first."""
    waiting = deque([start])
    seen: dict[int, Any] = {}  # by id; keeps the objects, so that no id is reused
    while waiting and len(seen) < MAX_OBJECTS:
        found = waiting.popleft()
        if isinstance(found, _LEAVES) or id(found) in seen:
            continue
        seen[id(found)] = found
        yield found
        waiting.extend(_parts(found))


def _parts(found: Any) -> Iterator[Any]:
    if isinstance(found, Mapping) and type(found).__module__ in ("builtins", "collections"):
        yield from itertools.islice(found.values(), MAX_ITEMS)
    elif isinstance(found, (list, tuple, set, frozenset, deque)):
        yield from itertools.islice(found, MAX_ITEMS)
    elif isinstance(found, partial):
        yield from (found.func, found.args, found.keywords)
    elif isinstance(found, types.MethodType):
        yield from (found.__self__, found.__func__)
    elif isinstance(found, types.FunctionType):
        yield found.__defaults__
        yield found.__kwdefaults__
        for cell in found.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # still empty
                continue
    attributes = getattr(found, "__dict__", None)
    if isinstance(attributes, dict):
        yield from list(attributes.values())
    for kind in type(found).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            value = getattr(found, name, None)
            if value is not None:
                yield value
