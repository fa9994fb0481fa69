"""``torch.cuda``'s random functions, redirected to the streams of the calling thread.

They initialize CUDA only if they need a state: a stream is made from its seed when it is
first used.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.cuda.random

from junky_core.job.seeding._current import current_streams

if TYPE_CHECKING:
    from junky_core.job.seeding._streams import JobStreams

__all__ = ["cuda_replacements"]


def cuda_replacements() -> list[tuple[Any, Any]]:
    """Return pairs of one of ``torch.cuda.random``'s functions and its replacement.

    ``get_rng_state_all`` and ``set_rng_state_all`` call those, so they need no replacement.
    """
    return [(getattr(torch.cuda.random, name), _per_job(name)) for name in _IN_JOB]


def _per_job(name: str) -> Callable[..., Any]:
    function = getattr(torch.cuda.random, name)
    in_job = _IN_JOB[name]

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        streams = current_streams()
        if streams is None:
            return function(*args, **kwargs)
        return in_job(streams, *args, **kwargs)

    return wrapper


def _index(device: int | str | torch.device = "cuda") -> int:
    if isinstance(device, int):
        return device
    index = torch.device(device).index
    return torch.cuda.current_device() if index is None else index


def _get_rng_state(streams: JobStreams, device: int | str | torch.device = "cuda") -> torch.Tensor:
    return streams.own_cuda(_index(device)).get_state()


def _set_rng_state(
    streams: JobStreams, new_state: torch.Tensor, device: int | str | torch.device = "cuda"
) -> None:
    streams.own_cuda(_index(device)).set_state(new_state)


def _manual_seed(streams: JobStreams, seed: int) -> None:
    if torch.cuda.is_available():
        streams.seed_cuda(int(seed), torch.cuda.current_device())


def _manual_seed_all(streams: JobStreams, seed: int) -> None:
    streams.seed_cuda(int(seed))


def _seed(streams: JobStreams) -> None:
    if torch.cuda.is_available():
        streams.seed_cuda(torch.Generator().seed(), torch.cuda.current_device())


def _seed_all(streams: JobStreams) -> None:
    streams.seed_cuda(torch.Generator().seed())


def _initial_seed(streams: JobStreams) -> int:
    index = torch.cuda.current_device()
    generator = streams.cuda(index)
    return (torch.cuda.default_generators[index] if generator is None else generator).initial_seed()


_IN_JOB: dict[str, Callable[..., Any]] = {
    "get_rng_state": _get_rng_state,
    "set_rng_state": _set_rng_state,
    "manual_seed": _manual_seed,
    "manual_seed_all": _manual_seed_all,
    "seed": _seed,
    "seed_all": _seed_all,
    "initial_seed": _initial_seed,
}
