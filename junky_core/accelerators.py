"""Any of torch's accelerators, worked in the same way: CUDA, ROCm, XPU, MTIA, MPS, plug-ins.

All that is asked of one is asked of ``torch.get_device_module(type)``, so that a backend works
as far as its module goes. With streams, each slot has its own, in this order:

    who calls run()   tensors made ──┐
    default stream    tensors made ──┤ waited for as a slot opens and at each attempt's start
    slot's stream                    └► attempt 1 ► synchronize ► attempt 2 ► synchronize

Without streams (MPS has one for the whole process) the order is the backend's own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

__all__ = [
    "DeviceQueue",
    "device_module",
    "empty_caches",
    "in_use",
    "start",
    "synchronize_used_devices",
    "visible_devices",
]


def device_module(kind: str) -> Any | None:
    """Return torch's module for devices of type ``kind`` (``torch.cuda``), ``None`` if none."""
    try:
        return torch.get_device_module(kind)
    except (AttributeError, RuntimeError):
        return None


def visible_devices() -> list[str]:
    """Return the accelerator devices that this machine shows, ``[]`` if none."""
    kind = _accelerator_type()
    module = None if kind is None else device_module(kind)
    if module is None or not module.is_available():
        return []
    return [f"{kind}:{index}" for index in range(int(module.device_count()))]


def _accelerator_type() -> str | None:
    """Return the one type of accelerator that this torch works with, here or not; starts none."""
    if not hasattr(torch, "accelerator"):  # torch before 2.6
        return "cuda"
    try:
        found = torch.accelerator.current_accelerator()
    except RuntimeError:  # torch 2.6 built without any
        return None
    return None if found is None else found.type


def start(kind: str) -> None:
    """Start the runtime of devices of type ``kind``; nothing happens if it runs, or has none.

    Raises:
        RuntimeError: It cannot be started, or shows no device.
    """
    module = None if kind == "cpu" else device_module(kind)
    if module is not None:
        _call(module, "init")


def in_use() -> bool:
    """Return whether this process has started the runtime of torch's accelerator."""
    return _started() is not None


def _started(kind: str | None = None) -> Any | None:
    """Return the module of ``kind``, or of torch's accelerator, if the process uses it already."""
    kind = kind or _accelerator_type()
    module = None if kind is None else device_module(kind)
    return module if module is not None and _call(module, "is_initialized") else None


def _call(module: Any, name: str, *args: Any) -> Any:
    """Return what the module's function gives, ``None`` if it has no such function."""
    function = getattr(module, name, None)
    return None if function is None else function(*args)


def _used(module: Any) -> list[int]:
    """Return the devices on which torch holds memory.

    The others are left alone: to synchronise with a device is to start a context on it, which
    takes some hundred MB there.
    """
    every = range(int(module.device_count()))
    if not hasattr(module, "memory_reserved"):
        return list(every)
    return [index for index in every if module.memory_reserved(index)]


def synchronize_used_devices() -> None:
    """Wait for all work on each device that the process uses, whichever is current.

    Raises:
        RuntimeError: What went wrong there, unless it is another device that is poisoned: that is
            the affair of who uses it.
    """
    module = _started()
    if module is None or not hasattr(module, "Stream"):  # without streams: one queue, in order
        return
    for index in _used(module):
        try:
            module.synchronize(index)
        except RuntimeError:
            if index == module.current_device() or _answers(module, index):
                raise


def _answers(module: Any, index: int) -> bool:
    """Return whether a device that gave an error gives none now; a poisoned one does for ever."""
    try:
        module.synchronize(index)
    except RuntimeError:
        return False
    return True


def empty_caches(device: torch.device | None = None) -> None:
    """Give back what the allocators of ``device``'s type, and of one in use, keep for later."""
    modules = [_started()]
    if device is not None and device.type != "cpu":
        modules.append(device_module(device.type))
    for module in {id(module): module for module in modules if module is not None}.values():
        _call(module, "empty_cache")


class DeviceQueue:
    """One slot's work on its device: what it has to wait for, and when it is done.

    ``follow_caller`` is for the thread that sets the slot to work; the rest for the slot's own
    thread and those of its job.

    Args:
        device: The slot's device. On the CPU there is nothing to wait for.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream: Any = None
        self._callers: Any = None

    def follow_caller(self) -> None:
        """Have the slot wait, when it next begins, for what the calling thread has launched."""
        module = None if self.device.type == "cpu" else _started(self.device.type)
        if module is not None:  # else nothing was launched yet
            self._callers = _call(module, "current_stream", self.device)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Have the calling thread launch its work here inside the ``with`` block.

        Its device is current, so that a bare ``.cuda()`` lands there; work goes to the slot's
        own stream, after what the default stream holds; backward runs in the calling thread
        instead of the one autograd thread that all slots of a device would share.
        """
        module = self._module()
        if module is None:
            yield
            return
        with contextlib.ExitStack() as stack:
            if hasattr(module, "device"):
                stack.enter_context(module.device(self.device))
            if hasattr(module, "Stream"):
                if self._stream is None:
                    self._stream = module.Stream(self.device)
                before = module.current_stream(self.device)
                if before != self._stream:  # else entered inside itself
                    self._stream.wait_stream(before)
                    if self._callers is not None and self._callers != before:
                        self._stream.wait_stream(self._callers)
                stack.enter_context(module.stream(self._stream))
            stack.enter_context(torch.autograd.set_multithreading_enabled(False))
            yield

    def synchronize(self) -> bool:
        """Wait until the device has done what the slot launched; return whether it was asked.

        Only streams are waited for, never the whole device: neighbours continue, and those that
        capture a graph may not be disturbed. Nor any other device, which may be poisoned.

        Raises:
            RuntimeError: What went wrong there since the last error.
        """
        module = self._module()
        if module is None:
            return False
        if not hasattr(module, "Stream"):
            module.synchronize()
            return True
        current = module.current_stream(self.device)  # the job may have made another current
        if self._stream is not None and self._stream != current:
            self._stream.synchronize()
        current.synchronize()
        return True

    def _module(self) -> Any | None:
        return None if self.device.type == "cpu" else device_module(self.device.type)
