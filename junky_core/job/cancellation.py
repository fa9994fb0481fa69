"""Ending a running job from outside, at its next check point.

A thread cannot be killed. A job that must end (its time is over, Ctrl-C) ends
at its next call of a model, a DataLoader, an optimizer, ``save_best`` or
``check()``. The hooks that see those calls are process-wide and are only in
place while some job has been asked to end, so training pays nothing for them.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.data import dataloader as _dataloader

from junky_core.job.scopes import current_scope

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CheckPoints"]

_lock = threading.Lock()  # guards the two below
_armed = 0  # sweeps that need the DataLoader's check; they may overlap and end in any order
_unpatch: Callable[[], None] | None = None


def _check(*_: Any) -> None:
    scope = current_scope()
    if scope is not None:
        scope.job.check()


class CheckPoints:
    """Makes calls of models, loaders and optimizers check points; ``arm`` and ``disarm`` once.

    Thread-safe. Jobs that were not asked to end pass through unharmed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _undo
        self._undo: list[Callable[[], None]] = []

    def arm(self) -> None:
        """Put the hooks in place, if they are not."""
        with self._lock:
            if self._undo:
                return
            self._undo.append(
                torch.nn.modules.module.register_module_forward_pre_hook(_check).remove
            )
            self._undo.append(register_optimizer_step_pre_hook(_check).remove)
            self._undo.append(_check_in_loaders())

    def disarm(self) -> None:
        """Take the hooks away."""
        with self._lock:
            for undo in reversed(self._undo):
                undo()
            self._undo.clear()


def _check_in_loaders() -> Callable[[], None]:
    global _armed, _unpatch
    with _lock:
        if _armed == 0:
            _unpatch = _patch_loaders()
        _armed += 1

    def undo() -> None:
        global _armed
        with _lock:
            _armed -= 1
            if _armed == 0:
                assert _unpatch is not None
                _unpatch()

    return undo


def _patch_loaders() -> Callable[[], None]:
    iterator = _dataloader._BaseDataLoaderIter  # noqa: SLF001 - loops call its __next__
    plain_next = iterator.__next__

    def checked_next(self: Any) -> Any:
        _check()
        return plain_next(self)

    iterator.__next__ = checked_next  # type: ignore[method-assign]

    def undo() -> None:
        if iterator.__next__ is checked_next:
            iterator.__next__ = plain_next  # type: ignore[method-assign]

    return undo
