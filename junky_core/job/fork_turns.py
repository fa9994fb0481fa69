"""Forks of several jobs, one at a time.

``filelock``, which torch needs, refuses ``os.fork`` while another thread forks
(4.2.11 and 4.2.12, on Python 3.12 and newer), so that ``DataLoader`` workers
started on several slots died. And a child that is forked while another job imports
a module for the first time waits for ever when it needs that module, because the
thread that imports it does not exist in the child. See :mod:`junky_core.job.turns`.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

from junky_core.job.fork_locks import free_streams
from junky_core.job.patches import replaced, shared
from junky_core.job.turns import in_turn

__all__ = ["forks_in_turn"]

_FUNCTIONS = ("fork", "forkpty")


@shared
@contextlib.contextmanager
def forks_in_turn() -> Iterator[None]:
    """Let jobs take turns at ``os.fork`` inside the ``with`` block.

    Process-wide while it lasts; several blocks may overlap.
    """
    with contextlib.ExitStack() as stack:
        for name in _FUNCTIONS:
            if hasattr(os, name):
                stack.enter_context(
                    replaced(os, name, in_turn(_freeing_streams(getattr(os, name))))
                )
        yield


def _freeing_streams(fork: Callable[[], Any]) -> Callable[[], Any]:
    @functools.wraps(fork)
    def call() -> Any:
        made = fork()
        pid = made[0] if isinstance(made, tuple) else made  # forkpty: (pid, descriptor)
        if pid == 0:
            free_streams()
        return made

    return call
