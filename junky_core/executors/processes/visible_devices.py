"""Which GPUs a worker process sees: that of its slot, and no other.

    driver's CUDA_VISIBLE_DEVICES    slot's device    worker's    device in the worker
    not set                          cuda:1           1           cuda:0
    2,3                              cuda:1           3           cuda:0
    GPU-8932f937,GPU-a1b2c3d4        cuda:1           GPU-a1b2..  cuda:0
    anything                         cpu              -1          cpu
    .. and no slot is on a GPU       cpu              the same    cpu

So ``cuda``, ``cuda:0`` and Lightning's ``devices=1`` are right in code that knows nothing of
slots. ROCm reads ``HIP_VISIBLE_DEVICES`` first and XPU ``ZE_AFFINITY_MASK``. Devices of other
types keep their names: their index is that of the driver.

The rules are those of the runtimes:

- CUDA: https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html
- ROCm: https://rocm.docs.amd.com/en/latest/conceptual/gpu-isolation.html
- XPU: https://oneapi-src.github.io/level-zero-spec/level-zero/latest/core/PROG.html#affinity-mask
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from junky_core.errors import DeviceError

__all__ = ["worker_devices"]

_NONE = "-1"  # an invalid index ends the list; ROCm takes an empty text for "not set"


def worker_devices(
    device: str, environment: Mapping[str, str], *, hide: bool
) -> tuple[dict[str, str], str]:
    """Return the variables that a worker needs, and what its slot's device is called there.

    Args:
        device: The slot's device in this process.
        environment: That of this process.
        hide: Hide all GPUs from a slot on the CPU.

    Raises:
        DeviceError: The device is not in the list that the environment gives.

    >>> worker_devices("cuda:1", {"CUDA_VISIBLE_DEVICES": "2,3"}, hide=True)
    ({'CUDA_VISIBLE_DEVICES': '3'}, 'cuda:0')
    """
    kind, _, index = device.partition(":")
    if kind == "cpu":
        names = _variables("cuda") if hide else ()
        return _set(names, _NONE, environment), device
    names = _variables(kind)
    given = next((environment[name] for name in names if environment.get(name)), "")
    if not names or (kind == "xpu" and not re.fullmatch("[0-9, ]*", given)):
        return {}, device  # "0.1" is a part of a device: how torch counts these depends on the mode
    return _set(names, _entry(given, int(index or 0), kind, names), environment), f"{kind}:0"


def _variables(kind: str) -> tuple[str, ...]:
    """Return what the runtime reads, in this order; the first that has a text counts."""
    if kind == "cuda":
        hip = ("HIP_VISIBLE_DEVICES",) if torch.version.hip else ()
        return (*hip, "CUDA_VISIBLE_DEVICES")
    return ("ZE_AFFINITY_MASK",) if kind == "xpu" else ()


def _set(names: tuple[str, ...], value: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Set the first, and others that are set already: some libraries compare them."""
    return {name: value for name in names if name == names[0] or name in environment}


def _entry(given: str, index: int, kind: str, names: tuple[str, ...]) -> str:
    if not given:
        return str(index)
    entries = [entry.strip() for entry in given.split(",")]
    if kind == "xpu":  # a set: Level Zero keeps its own order
        entries = [str(number) for number in sorted({int(entry) for entry in entries})]
    if index >= len(entries):
        raise DeviceError(
            f"{kind}:{index} cannot be given to a worker process, because {names[0]}={given} names "
            f"only {len(entries)} devices. It was probably changed after this process had started "
            "to use its devices; set it before"
        )
    return entries[index]
