"""TorchScript, which several jobs compile to at the same time.

``torch.jit.script`` and ``torch.jit.trace`` put the classes of modules into one compilation unit
of the process. Of two jobs that compile the same class at the same time, one gets ``Can't
redefine method``. While a sweep runs on several slots, jobs take turns
(:mod:`junky_core.job.turns`).
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch.jit

from junky_core.job.turns import turn

__all__ = ["scripts_in_turn"]

# By module of torch.jit, what compiling a module goes through; private, so it may be missing.
_FUNCTIONS = (("_recursive", "create_script_module"),)

_lock = threading.Lock()  # guards the two below
_holders = 0
_put_back: list[Callable[[], None]] = []


@contextlib.contextmanager
def scripts_in_turn(*, slots: int) -> Iterator[None]:
    """Let jobs take turns at compiling to TorchScript inside the ``with`` block.

    Process-wide while it lasts; several blocks may overlap. One slot needs nothing.
    """
    global _holders
    if slots < 2:
        yield
        return
    with _lock:
        if _holders == 0:
            _replace()
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            while _holders == 0 and _put_back:
                _put_back.pop()()


def _replace() -> None:
    for module_name, name in _FUNCTIONS:
        module = getattr(torch.jit, module_name, None)
        plain = getattr(module, name, None)
        if plain is not None:
            setattr(module, name, _in_turn(plain))
            _put_back.append(functools.partial(setattr, module, name, plain))


def _in_turn(plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def function(*args: Any, **kwargs: Any) -> Any:
        with turn():
            return plain(*args, **kwargs)

    return function
