"""First imports of several jobs, one at a time.

Python has a lock for each module. Two threads that import a cycle of modules from
different ends would wait for each other, so Python lets one of them continue with a
half-imported module: ``ImportError``, ``AttributeError``. What such an import leaves
in ``sys.modules`` may break every later import of it, including that of a retry. This
happens with ``torch._dynamo`` (``torch.compile``, checkpointing and some optimizers
import it when they are first used), with scipy, and with an app's own modules. See
:mod:`junky_core.job.turns`.

    thread 1   imports a ─► has a's lock ─► a imports b ─► waits for b's ─► goes on with half a b
    thread 2   imports b ─► has b's lock ─► b imports a ─► waits for a's

A module that puts another object in its place in ``sys.modules`` (the lazy
modules of Hugging Face do) is a second trap: a thread that waited for it continues
with the object that was there before. So that object forwards attribute access to
the new one.

Modules that are imported already cost nothing: neither function replaced here
is called for them.
"""

# ruff: noqa: SLF001  # Python has no public hook that comes before a module's lock

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from junky_core.job.patches import replaced, shared
from junky_core.job.turns import turn

__all__ = ["first_imports_in_turn", "importing"]

_BOOTSTRAP: Any = importlib._bootstrap


class _Local(threading.local):
    imports = 0  # that this thread is in the middle of


_local = _Local()


@shared
@contextlib.contextmanager
def first_imports_in_turn() -> Iterator[None]:
    """Let jobs take turns at importing what is not imported yet, inside the ``with`` block.

    Process-wide while it lasts; several blocks may overlap.
    """
    with (
        _wrapped("_find_and_load", _loading_in_turn),
        _wrapped("_lock_unlock_module", _waiting_for_a_whole_module),
    ):
        yield


def importing() -> bool:
    """Say whether the calling thread runs the code of a module that is being imported.

    Only imports that began inside :func:`first_imports_in_turn` count.
    """
    return _local.imports > 0


def _loading_in_turn(plain: Any) -> Any:
    def _find_and_load(name: str, import_: Any) -> Any:
        with turn():
            _local.imports += 1
            try:
                return plain(name, import_)
            finally:
                _local.imports -= 1

    return _find_and_load


def _waiting_for_a_whole_module(plain: Any) -> Any:
    def _lock_unlock_module(name: str) -> None:
        found = sys.modules.get(name)
        plain(name)
        there = sys.modules.get(name)
        if there is None and isinstance(found, ModuleType):
            # Its import failed in another thread, and ``found`` is half imported.
            there = _BOOTSTRAP._gcd_import(name)
            if isinstance(there, ModuleType):
                found.__dict__.update(there.__dict__)
        if there is not found and isinstance(found, ModuleType) and there is not None:
            found.__dict__.setdefault("__getattr__", functools.partial(getattr, there))

    return _lock_unlock_module


def _wrapped(name: str, wrap: Callable[[Any], Any]) -> contextlib.AbstractContextManager[None]:
    plain = getattr(_BOOTSTRAP, name)
    wrapper = wrap(plain)
    # Python leaves frames of this file out of the tracebacks of failed imports.
    wrapper.__code__ = wrapper.__code__.replace(co_filename=plain.__code__.co_filename)
    return replaced(_BOOTSTRAP, name, wrapper)
