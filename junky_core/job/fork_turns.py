"""Forks of several jobs, one at a time.

``filelock``, which torch needs, refuses ``os.fork`` while another thread forks
(4.2.11 and 4.2.12, on Python 3.12 and newer), so that ``DataLoader`` workers
started on several slots died. And a child that was forked while another job
imported a module for the first time waits for ever when it needs that module:
the import's thread does not exist there. See :mod:`junky_core.job.turns`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator

from junky_core.job.turns import turn

__all__ = ["forks_in_turn"]

_FUNCTIONS = ("fork", "forkpty")

_lock = threading.Lock()  # guards the two below
_holders = 0
_put_back: list[Callable[[], None]] = []


@contextlib.contextmanager
def forks_in_turn() -> Iterator[None]:
    """Let jobs take turns at ``os.fork`` inside the ``with`` block.

    Process-wide while it lasts; several blocks may overlap.
    """
    global _holders
    with _lock:
        if _holders == 0:
            _put_back.extend(_wrap(name) for name in _FUNCTIONS if hasattr(os, name))
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0:
                while _put_back:
                    _put_back.pop()()


def _wrap(name: str) -> Callable[[], None]:
    plain = getattr(os, name)

    @functools.wraps(plain)
    def in_turn() -> object:
        with turn():
            return plain()

    def put_back() -> None:
        # Somebody who wrapped our wrapper keeps a working chain: it is left in place then.
        if getattr(os, name) is in_turn:
            setattr(os, name, plain)

    setattr(os, name, in_turn)
    return put_back
