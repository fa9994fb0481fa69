"""What torch keeps for each thread: jobs of one slot, which share a thread, do not share it.

    kept for each thread                       how a job finds it
    default device, function and dispatch      as in the thread that runs the sweep; what a job
    .. modes                                   leaves behind is removed
    autocast, gradients, flushing of           as in a new thread; set back after each job
    .. denormals, number of torch's threads

    kept for the process                       shared by all jobs, including those that run now
    default dtype, deterministic algorithms, float32 precision, anomaly detection,
    all of ``torch.backends``

Private names of torch, all of them in this module: ``_GLOBAL_DEVICE_CONTEXT`` (the
device that ``set_default_device`` set, ``None`` if none), and the stacks of modes.
"""

# ruff: noqa: SLF001  # no public name gives a default device without its index, or modes left behind

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch

__all__ = ["default_device", "own_torch_state"]


def default_device() -> torch.device | None:
    """Return what ``torch.set_default_device`` set in the calling thread, ``None`` if nothing."""
    context = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    found: torch.device | None = None if context is None else context.device
    return found


@contextlib.contextmanager
def own_torch_state(default: torch.device | None, kind: str) -> Iterator[None]:
    """Let what the code inside the ``with`` block sets for its thread end with the block.

    Args:
        default: The default device it finds.
        kind: The type of device it works on.
    """
    modes = torch._C._len_torch_function_stack()
    dispatch_modes = torch._C._len_torch_dispatch_stack()
    threads = torch.get_num_threads()
    flushes = _flushes_denormals()
    kinds = [one for one in {"cpu", kind} if torch.amp.is_autocast_available(one)]
    autocast = [(k, torch.is_autocast_enabled(k), torch.get_autocast_dtype(k)) for k in kinds]
    cached = torch.is_autocast_cache_enabled()
    if default is not None:
        torch.set_default_device(default)
    try:
        with torch.enable_grad():
            yield
    finally:
        _drop_modes(modes, dispatch_modes)
        if default_device() is not None:
            torch.set_default_device(None)
            _drop_modes(modes, dispatch_modes)  # it may put back one that the job left behind
        for one, enabled, dtype in autocast:
            torch.set_autocast_enabled(one, enabled)
            torch.set_autocast_dtype(one, dtype)
        torch.set_autocast_cache_enabled(cached)
        if _flushes_denormals() is not flushes:
            torch.set_flush_denormal(flushes)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def _drop_modes(modes: int, dispatch_modes: int) -> None:
    """Remove the modes that were entered and never left."""
    while torch._C._len_torch_function_stack() > modes:
        torch._C._pop_torch_function_stack()
    while torch._C._len_torch_dispatch_stack() > dispatch_modes:
        torch._C._pop_torch_dispatch_stack(None)


def _flushes_denormals() -> bool:
    least: Any = sys.float_info.min
    return bool(least / 2 == 0.0)  # the thread's mode counts for Python's numbers as well
