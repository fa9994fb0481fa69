"""Act on a module as soon as it is imported.

An app may import a library at its top, or in a job while other jobs run. The
action runs before any code can use the library: while the importing thread still
holds the module's lock.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from junky_core.job.fork_locks import free_in_children

__all__ = ["when_imported"]

_Action = Callable[[ModuleType], None]

# Guards _actions, and whether _FINDER is in sys.meta_path.
_lock = free_in_children(threading.Lock())
_actions: list[tuple[str, _Action]] = []


@contextlib.contextmanager
def when_imported(name: str, action: _Action) -> Iterator[None]:
    """Call ``action(module)`` now, or when the module is imported inside the ``with`` block.

    Also called when it is reloaded, since that undoes what was done to it. An import that
    fails calls nothing. ``action`` must not raise.

    >>> with when_imported("json", lambda module: print(module.__name__)):
    ...     pass
    json
    """
    acting = free_in_children(threading.RLock())  # guards the two below
    over = False
    done: Any = None  # the spec that was last acted on: each execution of a module has its own

    def act(module: ModuleType) -> None:
        nonlocal done
        spec = module.__spec__
        with acting:
            if not over and (spec is None or spec is not done):
                done = spec
                action(module)

    entry = (name, act)
    with _lock:
        if not _actions:
            sys.meta_path.insert(0, _FINDER)
        _actions.append(entry)
    try:
        if name in sys.modules:
            with contextlib.suppress(ImportError):  # another thread's import of it may fail
                act(importlib.import_module(name))  # waits for such an import
        yield
    finally:
        with _lock:
            _actions.remove(entry)
            if not _actions:
                with contextlib.suppress(ValueError):  # other code replaced the list
                    sys.meta_path.remove(_FINDER)
        with acting:  # an import may still be running in a thread that outlived its job
            over = True


class _Finder:
    """Finds no module itself: makes the loader that another finder returns call the actions."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not any(name == known for known, _ in tuple(_actions)):
            return None
        for finder in tuple(sys.meta_path):
            find = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None
            if finder is not self and find is not None:
                spec = find(name, path, target)
            if spec is not None:
                _call_after_exec(spec.loader, name)
                return spec
        return None


def _call_after_exec(loader: Any, name: str) -> None:
    exec_module = getattr(loader, "exec_module", None)
    if exec_module is None:
        return

    def exec_and_act(module: ModuleType) -> None:
        with contextlib.suppress(AttributeError):
            del loader.exec_module  # uncovers the method of the class
        exec_module(module)
        for known, action in tuple(_actions):
            if known == name:
                action(module)

    with contextlib.suppress(AttributeError):  # the loader has no instance attributes
        loader.exec_module = exec_and_act


_FINDER: Any = _Finder()
