"""Settings of the interpreter that a job may have spoilt for all other jobs."""

from __future__ import annotations

import sys

__all__ = ["ProcessSettings"]


class ProcessSettings:
    """The recursion limit and the module search path of the process, as they were when it is made.

    Both are process-wide: while a job runs, a change that it makes holds for all jobs.

    >>> settings = ProcessSettings()
    >>> sys.path.clear()
    >>> settings.restore()
    >>> "" in sys.path or len(sys.path) > 1
    True
    """

    def __init__(self) -> None:
        self._limit = sys.getrecursionlimit()
        self._path = list(sys.path)

    def restore(self) -> None:
        """Put back a higher recursion limit, and the folders that ``sys.path`` lacks; any thread.

        A higher limit and other folders stay: another job may need them.
        """
        if sys.getrecursionlimit() < self._limit:
            sys.setrecursionlimit(self._limit)
        if type(sys.path) is not list:
            sys.path = []
        sys.path += [folder for folder in self._path if folder not in sys.path]
