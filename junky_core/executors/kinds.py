"""The executors by name.

Importing this module does not import torch, so that settings can be checked without it.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["KILL_AFTER_S", "ExecutorKind"]

KILL_AFTER_S = 10.0


class ExecutorKind(str, Enum):
    """Where the jobs of a sweep run; each member equals its text."""

    THREADS = "threads"  # of this process, one for each slot
    PROCESSES = "processes"  # of this machine, one for each slot

    def __str__(self) -> str:
        return self.value
