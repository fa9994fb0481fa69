"""Makes an executor of a given kind."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from junky_core.executors.contract import ExecutorFactory
from junky_core.executors.kinds import KILL_AFTER_S, ExecutorKind
from junky_core.executors.processes.executor import ProcessExecutor
from junky_core.executors.threads import ThreadExecutor

__all__ = ["executor_factory"]


def executor_factory(
    kind: ExecutorKind, *, kill_after_s: float = KILL_AFTER_S, preload: Sequence[str] = ()
) -> ExecutorFactory:
    """Return what makes an executor of this kind.

    Args:
        kind: Which one.
        kill_after_s: Processes: seconds after which an attempt that was asked to end is killed.
        preload: Processes: modules that workers find imported.
    """
    if kind is ExecutorKind.PROCESSES:
        return functools.partial(ProcessExecutor, preload=preload, kill_after_s=kill_after_s)
    return ThreadExecutor
