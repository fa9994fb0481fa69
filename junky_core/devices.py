"""What ``devices`` means: one slot for each seat on each device."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from junky_core import accelerators
from junky_core.errors import DeviceError
from junky_core.values.user_text import shown
from junky_core.values.wording import count as number_of

__all__ = ["MOST_SLOTS", "SlotSpec", "parse_devices"]

MOST_SLOTS = 1024  # threads of this process; torch ends it when the system has none left

_FORMS = """accepted forms:
  'cuda:0'                    one slot on one device (a torch.device too)
  'cuda:0*3'                  three slots on one device
  ['cuda:0', 'cuda:1*2']      several devices; repeat one for more slots
  {'cuda:0': 3, 'cuda:1': 3}  slots by device
  'auto'                      one slot on each visible GPU, else on the CPU"""


@dataclass(frozen=True, slots=True)
class SlotSpec:
    """One seat on a device: its ``index`` in the sweep, from 1, and its ``device``."""

    index: int
    device: str


def parse_devices(devices: Any) -> list[SlotSpec]:
    """Turn any accepted form of ``devices`` into one spec for each slot.

    Args:
        devices: A ``torch.device``; a string, with a count if you like
            (``'cuda:0*3'``), or ``'auto'``; an iterable of these, where a
            repeated device gets more slots; a mapping device -> slots.

    Returns:
        The slots, handed out round-robin over the devices in the order given.

    Raises:
        DeviceError: A device is unknown or absent, a count is not a whole
            number above zero, or MPS is given more than one slot, which
            would crash. The message shows the accepted forms.

    >>> parse_devices({"cpu": 2})
    [SlotSpec(index=1, device='cpu'), SlotSpec(index=2, device='cpu')]
    """
    counts: dict[str, int] = {}
    for device, slots_more in _entries(devices):
        counts[device] = counts.get(device, 0) + slots_more
    total = sum(counts.values())
    if total > MOST_SLOTS:
        raise DeviceError(
            f"devices asks for {shown(total)} slots, at most {MOST_SLOTS} are possible: each is a "
            f"thread of this process, and jobs beyond them wait for a free one; {_FORMS}"
        )
    if not counts:
        raise DeviceError(f"devices is empty: {shown(devices)}; {_FORMS}")
    if sum(count for device, count in counts.items() if device.startswith("mps")) > 1:
        raise DeviceError(
            f"mps takes one slot, not {counts}: two threads at work there end the process "
            "(https://github.com/pytorch/pytorch/issues/197805). Write 'mps'"
        )
    slots: list[SlotSpec] = []
    for turn in range(max(counts.values())):
        for device, count in counts.items():
            if turn < count:
                slots.append(SlotSpec(len(slots) + 1, device))
    return slots


def _entries(devices: Any) -> Iterable[tuple[str, int]]:
    if isinstance(devices, Mapping):
        for device, count in devices.items():
            slots = _count(count, device, devices)
            for name, times in _one(device):
                yield name, times * slots
    elif isinstance(devices, (str, torch.device)):
        yield from _one(devices)
    elif isinstance(devices, Iterable) and not isinstance(devices, (bytes, torch.Tensor)):
        for device in devices:
            yield from _one(device)
    else:
        raise DeviceError(f"devices cannot be {_show(devices)}; {_FORMS}")


def _one(device: Any) -> Iterable[tuple[str, int]]:
    """Yield ``(device, slots)`` for one entry; ``auto`` may stand for several devices."""
    if isinstance(device, torch.device):
        yield _present(device, device), 1
        return
    if not isinstance(device, str):
        raise DeviceError(f"a device cannot be {_show(device)}; {_FORMS}")
    name, star, count_text = (part.strip() for part in device.partition("*"))
    count = 1
    if star:
        if not re.fullmatch(r"[0-9]+", count_text):
            raise DeviceError(
                f"the slot count in {shown(device)} is not a whole number: {shown(count_text)}; "
                f"{_FORMS}"
            )
        digits = count_text.lstrip("0")[: len(str(MOST_SLOTS)) + 1]  # so many are too many
        count = _count(int(digits or "0"), name, device)
    if name == "auto":
        for found in _visible():
            yield found, count
        return
    try:
        parsed = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"unknown device {shown(device)}; {_FORMS}") from error
    yield _present(parsed, device), count


def _count(count: Any, device: Any, given: Any) -> int:
    if isinstance(count, str) and ":" in count:
        index, _, times = count.partition(":")
        raise DeviceError(
            f"devices was read as {_plain(given)}: Hydra's command line takes {{{device}:{count}}} "
            f"for the key {str(device)!r} with the value {count!r}. "
            f"Write '{device}:{index}*{times}' instead; {_FORMS}"
        )
    try:
        if isinstance(count, bool):
            raise TypeError
        slots = operator.index(count)
    except TypeError:
        raise DeviceError(
            f"the slot count of device {str(device)!r} is not a whole number: {shown(count)}; "
            f"{_FORMS}"
        ) from None
    if slots < 1:
        raise DeviceError(
            f"device {str(device)!r} is given {shown(slots)} slots, at least 1 is needed; {_FORMS}"
        )
    return slots


def _visible() -> list[str]:
    return accelerators.visible_devices() or ["cpu"]


def _present(device: torch.device, given: Any) -> str:
    """Return the device's full name; raise if this machine does not have it."""
    if device.type == "cpu":
        if device.index:
            raise DeviceError(
                f"there is one CPU device, {str(given)!r} names another: "
                f"for {number_of(device.index, 'slot')} on it write 'cpu*{device.index}'; {_FORMS}"
            )
        return "cpu"
    module = accelerators.device_module(device.type)
    try:
        count = int(module.device_count()) if module is not None and module.is_available() else 0
    except (AttributeError, RuntimeError):
        count = 0
    if count == 0:
        raise DeviceError(
            f"device {str(given)!r} is absent: this machine shows no {device.type} device; {_FORMS}"
        )
    index = 0 if device.index is None else device.index
    if index >= count:
        raise DeviceError(
            f"device {str(given)!r} is absent: this machine shows "
            f"{number_of(count, f'{device.type} device')}, {device.type}:0 to "
            f"{device.type}:{count - 1}; {_FORMS}"
        )
    return f"{device.type}:{index}"


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _show(value: Any) -> str:
    return f"{shown(value)} ({type(value).__name__})"
