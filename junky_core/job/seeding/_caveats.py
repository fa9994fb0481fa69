"""What a seed cannot guarantee, as far as that is known in advance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

__all__ = ["reproducibility_warnings"]


def reproducibility_warnings(
    model: Any = None, device: torch.device | str | None = None, loaders: Any = None
) -> list[str]:
    """Return what may make results differ although the seed is the same, one sentence each.

    Changes nothing, draws nothing, starts no CUDA. Safe to call from several threads.

    Args:
        model: A module that will be trained.
        device: Where it will be trained.
        loaders: What a loader factory returned: a loader, or a tuple, list or mapping of them.

    Example:
        >>> reproducibility_warnings(torch.nn.Linear(2, 2), "cpu")
        []
        >>> reproducibility_warnings(loaders=iter([1, 2]))[0][:34]
        'loaders: list_iterator is an itera'
    """
    found = []
    if device is not None and torch.device(device).type not in ("cpu", "cuda"):
        found.append(
            f"{device}: only the CPU's and CUDA's random numbers are kept per job; those of "
            f"other backends are shared by all jobs."
        )
    if device is not None and torch.device(device).type == "cuda":
        found.extend(_cuda_warnings())
        if isinstance(model, torch.nn.Module) and _has_recurrent_dropout(model):
            found.append(
                "cuDNN keeps one dropout state per device for recurrent layers, which jobs share. "
                "Use torch.backends.cudnn.flags(enabled=False) there to give each job its own."
            )
    if isinstance(model, torch.nn.Module) and _is_compiled(model):
        found.append(
            "the model is compiled: torch.compile draws random numbers in its own way, so the "
            "result differs from that of the uncompiled model, and may differ between runs."
        )
    found.extend(
        f"{where}: {type(loader).__name__} is an iterator, so each job continues where the "
        f"job before it stopped. Return the loader itself, and make the iterator in the job."
        for where, loader in _named(loaders)
        if hasattr(loader, "__next__")
    )
    return found


def _cuda_warnings() -> Iterator[str]:
    if not torch.are_deterministic_algorithms_enabled():
        yield (
            "CUDA kernels may add in any order, so results of the same seed may differ in the last "
            "bits. torch.use_deterministic_algorithms(True), with CUBLAS_WORKSPACE_CONFIG=:4096:8 "
            "in the environment, chooses kernels that do not."
        )
    if torch.backends.cudnn.benchmark:
        yield (
            "torch.backends.cudnn.benchmark chooses kernels by their current speed, so "
            "the same seed may differ in the last bits."
        )


def _has_recurrent_dropout(model: torch.nn.Module) -> bool:
    # Where: get_dropout_state in ATen/native/cudnn/RNN.cpp of torch.
    return torch.backends.cudnn.enabled and any(
        isinstance(module, torch.nn.RNNBase) and module.dropout > 0 and module.num_layers > 1
        for module in model.modules()
    )


def _is_compiled(model: torch.nn.Module) -> bool:
    # OptimizedModule is recognized by name, because its module is slow to import.
    return any(
        type(module).__name__ == "OptimizedModule"
        or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )


def _named(loaders: Any, where: str = "loaders") -> Iterator[tuple[str, Any]]:
    if isinstance(loaders, dict):
        for key, value in loaders.items():
            yield from _named(value, f"{where}[{key!r}]")
    elif isinstance(loaders, (list, tuple)):
        for at, value in enumerate(loaders):
            yield from _named(value, f"{where}[{at}]")
    elif loaders is not None:
        yield where, loaders
