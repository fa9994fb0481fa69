"""The methods of torch's default generators, redirected to the streams of the calling thread.

``torch.manual_seed``, ``torch.get_rng_state`` and similar functions call them, and so do apps
(``torch.default_generator.manual_seed(1)``). The default generators are objects of a C type, and
torch knows them by their address. So they cannot be replaced, and the type's attributes cannot be
set. But the dictionary behind the type can be changed, if the interpreter's cache of methods is
invalidated.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from junky_core.job.seeding._current import current_streams

if TYPE_CHECKING:
    from junky_core.job.seeding._streams import JobStreams

__all__ = ["methods_per_job"]

_BEGIN = ("get_state", "manual_seed", "seed", "set_state")
_LOOK = ("clone_state", "get_offset", "initial_seed", "set_offset")
_default: torch.Generator = torch.default_generator


@contextlib.contextmanager
def methods_per_job() -> Iterator[None]:
    """Redirect a default generator's methods to the job's own inside the ``with`` block.

    Seeding, and reading or setting a state, gives the job its own stream if it has none.
    Other generators, and threads of no job, are not affected.

    Raises:
        RuntimeError: This interpreter does not allow it.
    """
    methods: dict[str, Any] = gc.get_referents(vars(torch.Generator))[0]
    before = {name: methods[name] for name in (*_BEGIN, *_LOOK) if name in methods}
    _set_methods(
        methods, {name: _per_job(method, name in _BEGIN) for name, method in before.items()}
    )
    try:
        if torch.Generator.manual_seed is before["manual_seed"]:
            raise RuntimeError("the methods of torch.Generator cannot be replaced")
        yield
    finally:
        _set_methods(methods, before)


def _set_methods(methods: dict[str, Any], new: dict[str, Any]) -> None:
    methods.update(new)
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(torch.Generator))


def _per_job(method: Callable[..., Any], begins: bool) -> Callable[..., Any]:
    @functools.wraps(method)
    def wrapper(self: torch.Generator, *args: Any, **kwargs: Any) -> Any:
        streams = current_streams()
        own = None if streams is None else _own(streams, self, begins)
        return method(self if own is None else own, *args, **kwargs)

    return wrapper


def _own(streams: JobStreams, generator: torch.Generator, begins: bool) -> torch.Generator | None:
    """Return the job's own in place of a default generator, ``None`` for any other."""
    if generator is _default:
        return streams.own_cpu() if begins else streams.cpu
    defaults = torch.cuda.default_generators
    if defaults and any(generator is default for default in defaults):
        index = generator.device.index
        return streams.own_cuda(index) if begins else streams.cuda(index)
    return None
