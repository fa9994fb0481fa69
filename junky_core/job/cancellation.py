"""Ending a running job from outside, at its next cancellation point.

A thread cannot be killed. A job that must end (because of its time limit, or Ctrl-C)
ends at its next call of a model, a DataLoader, an optimizer, ``save_best`` or
``check()``. The hooks that notice those calls affect the whole process. They are in
place only while some job has been asked to end, so training pays nothing for them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.data import dataloader as _dataloader

from junky_core.job.patches import replaced, shared
from junky_core.job.scopes import current_scope

__all__ = ["CancellationPoints"]


class CancellationPoints:
    """Makes each call of a model, loader or optimizer a cancellation point while armed.

    Thread-safe. Jobs that were not asked to end run on.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the two below
        self._armed = False
        self._hooks = contextlib.ExitStack()

    def arm(self) -> None:
        """Install the hooks, if they are not installed."""
        with self._lock:
            if not self._armed:
                self._hooks.enter_context(_checked_calls())
                self._armed = True

    def disarm(self) -> None:
        """Remove the hooks, if they are installed."""
        with self._lock:
            self._hooks.close()
            self._armed = False


@shared
@contextlib.contextmanager
def _checked_calls() -> Iterator[None]:
    iterator = _dataloader._BaseDataLoaderIter  # noqa: SLF001 - loops call its __next__
    plain_next = iterator.__next__

    def checked_next(self: Any) -> Any:
        _check()
        return plain_next(self)

    with contextlib.ExitStack() as hooks:
        hooks.callback(torch.nn.modules.module.register_module_forward_pre_hook(_check).remove)
        hooks.callback(register_optimizer_step_pre_hook(_check).remove)
        hooks.enter_context(replaced(iterator, "__next__", checked_next))
        yield


def _check(*_: Any) -> None:
    scope = current_scope()
    if scope is not None:
        scope.job.check()
