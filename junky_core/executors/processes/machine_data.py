"""``shared(factory)`` on worker processes: built once per machine, mapped by each worker.

    the worker that asks first    locks, builds, writes a file ──┐
    others                        wait for the lock              ├──> map the file
    .. if it dies                 get the lock, and build it    ─┘

The mapping is private: the workers share the memory of tensors and of NumPy arrays, and one
that writes to them gets a copy of the pages it writes to. What is around them is pickled.
What has no such form is built by each worker.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from junky_core.executors.processes.sending import Pickler
from junky_core.job.loaders import Built, SharedData
from junky_core.values.calls import Call
from junky_core.values.user_text import class_name, error_line

if sys.platform != "win32":
    import fcntl

__all__ = ["MachineData"]

_SMALL = 1 << 12  # bytes: smaller arrays are pickled


class MachineData(SharedData):
    """Data that the workers of a machine share.

    Args:
        seed: The sweep's seed.
        path: Where its files begin: a folder, made when it is needed, and the start of a name.
        warn: Warns the user, once for each message.
    """

    def __init__(self, seed: int | None, path: Path, warn: Callable[[str], None]) -> None:
        super().__init__(seed)
        self._path = path
        self._warn = warn

    def build(self, call: Call) -> Built:
        """Return what another worker has built for this call, or build it for all of them."""
        key = call.digest()
        if key.startswith("~"):
            self._say_why_not(call, "its arguments can be compared only within a process")
            return super().build(call)
        path = self._path.with_name(f"{self._path.name}-{key}")
        with contextlib.ExitStack() as stack:
            try:
                path.parent.mkdir(mode=0o700, exist_ok=True)
                stack.enter_context(_locked(path.with_suffix(".lock")))
            except OSError as error:
                self._say_why_not(call, error_line(error))
                return super().build(call)
            if not path.exists():
                return self._build_for_all(call, path)
        if path.stat().st_size == 0:  # it has no form to share
            return super().build(call)
        data, draws = _read(path)
        if draws is not None and not draws.fit():
            return super().build(call)
        if draws is not None:
            draws.repeat()
        return data, draws

    def _build_for_all(self, call: Call, path: Path) -> Built:
        built: Built | None = super().build(call)
        part = path.with_suffix(".part")
        try:
            with part.open("wb") as file:
                torch.save(built, file, _Format, pickle.HIGHEST_PROTOCOL)
            built = None  # its memory is needed
            built = _read(part)
        except Exception as error:  # noqa: BLE001 - of users' objects, or a full disk
            self._say_why_not(call, f"its result cannot be shared ({error_line(error)})")
            part.write_bytes(b"")
        part.replace(path)
        return super().build(call) if built is None else built

    def _say_why_not(self, call: Call, why: str) -> None:
        name = getattr(call.factory, "__qualname__", None) or class_name(call.factory)
        self._warn(f"shared({name}) runs once in each worker process: {why}")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # children that were forked have it open as well
        os.close(descriptor)


def _read(path: Path) -> Built:
    shared = torch.serialization.get_default_mmap_options() == mmap.MAP_SHARED  # by the script
    built: Built = torch.load(path, weights_only=False, mmap=not shared)
    return built


class _ArrayPickler(Pickler):
    """Makes tensors of NumPy arrays: ``torch.save`` writes these so that they can be mapped."""

    def reducer_override(self, obj: Any) -> Any:
        numpy = sys.modules.get("numpy")
        if numpy is None or not isinstance(obj, numpy.ndarray):
            return super().reducer_override(obj)
        if type(obj) is numpy.memmap:
            raise pickle.PicklingError("a numpy.memmap is shared as it is")
        if type(obj) is not numpy.ndarray or obj.dtype.hasobject or obj.nbytes < _SMALL:
            return super().reducer_override(obj)
        order = "F" if obj.flags.fnc else "C"
        content = obj.ravel(order).view(numpy.uint8)
        if not content.flags.writeable:  # torch warns of a tensor that must not be written to
            content = content.copy()
        return _array, (
            torch.from_numpy(content),
            obj.dtype,
            obj.shape,
            order,
            obj.flags.writeable,
        )


class _Format:
    """What ``torch.save`` takes as its ``pickle_module``."""

    Pickler = _ArrayPickler


def _array(content: torch.Tensor, dtype: Any, shape: Any, order: Any, writeable: bool) -> Any:
    array = content.numpy().view(dtype).reshape(shape, order=order)
    array.flags.writeable = writeable
    return array
