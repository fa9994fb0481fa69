"""First imports of several jobs, one at a time.

Python locks each module by itself. Two threads that enter a circle of modules
at two places would wait for each other, so it lets one of them go on with a
module that is half imported: ``ImportError``, ``AttributeError``. What such an
import leaves in ``sys.modules`` may break every later one, also that of a
retry: of ``torch._dynamo``, which ``torch.compile``, checkpointing and some
optimizers import when they are first used, of scipy, and of an app's own
modules. See :mod:`junky_core.job.turns`.

    thread 1   imports a ─► has a's lock ─► a imports b ─► waits for b's ─► goes on with half a b
    thread 2   imports b ─► has b's lock ─► b imports a ─► waits for a's

A module that puts another object in its place in ``sys.modules`` (the lazy
modules of Hugging Face do) is a second trap: a thread that waited for it goes
on with the object that was there before. That object passes on what it is
asked for.

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

from junky_core.job.turns import turn

__all__ = ["first_imports_in_turn"]

_BOOTSTRAP: Any = importlib._bootstrap

_lock = threading.Lock()  # guards the two below
_holders = 0
_put_back: list[Callable[[], None]] = []


@contextlib.contextmanager
def first_imports_in_turn() -> Iterator[None]:
    """Let jobs take turns at importing what is not imported yet, inside the ``with`` block.

    Process-wide while it lasts; several blocks may overlap.
    """
    global _holders
    with _lock:
        if _holders == 0:
            _put_back.extend((_wrap_loading(), _wrap_waiting()))
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0:
                while _put_back:
                    _put_back.pop()()


def _wrap_loading() -> Callable[[], None]:
    plain = _BOOTSTRAP._find_and_load

    def _find_and_load(name: str, import_: Any) -> Any:
        with turn():
            return plain(name, import_)

    return _replace("_find_and_load", plain, _find_and_load)


def _wrap_waiting() -> Callable[[], None]:
    plain = _BOOTSTRAP._lock_unlock_module

    def _lock_unlock_module(name: str) -> None:
        found = sys.modules.get(name)
        plain(name)
        there = sys.modules.get(name)
        if there is None and isinstance(found, ModuleType):
            # Its import failed in another thread, and ``found`` is but half of it.
            there = _BOOTSTRAP._gcd_import(name)
            if isinstance(there, ModuleType):
                found.__dict__.update(there.__dict__)
        if there is not found and isinstance(found, ModuleType) and there is not None:
            found.__dict__.setdefault("__getattr__", functools.partial(getattr, there))

    return _replace("_lock_unlock_module", plain, _lock_unlock_module)


def _replace(name: str, plain: Any, new: Any) -> Callable[[], None]:
    # Python leaves frames of this file out of the tracebacks of failed imports.
    new.__code__ = new.__code__.replace(co_filename=plain.__code__.co_filename)
    setattr(_BOOTSTRAP, name, new)

    def put_back() -> None:
        # Somebody who wrapped our wrapper keeps a working chain: it is left in place then.
        if getattr(_BOOTSTRAP, name) is new:
            setattr(_BOOTSTRAP, name, plain)

    return put_back
