"""What jobs must not do at the same time: import a module for the first time, fork.

Both touch state of the whole process that Python protects for one module, or
not at all. While a sweep has several slots, jobs take turns.

Threads of one job do not wait for one another: a module that starts threads as
it is imported, and waits for them, works as it does in a plain script. Nor does
a sweep inside a job wait for that job. A job that has waited a minute continues
without its turn, so that a slow turn of another job does not block it for ever. A thread
of no job, such as the one that watches the sweep, continues after a second.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

from junky_core.job.scopes import JobScope, current_scope, slot_facets

__all__ = ["in_turn", "turn"]

_WAIT_AT_MOST_S = 60.0
_OTHERS_WAIT_AT_MOST_S = 1.0


class _Turns:
    """Who has the turn, and how many times (turns nest)."""

    def __init__(self) -> None:
        self.changed = threading.Condition()  # guards the two below
        self.holder: object = None
        self.depth = 0


class _Local(threading.local):
    depth = 0  # turns that this thread has


_turns = _Turns()
_local = _Local()


@contextlib.contextmanager
def turn() -> Iterator[None]:
    """Run the ``with`` block while no other job is in such a block."""
    turns, me = _turns, _who()
    limit_s = _OTHERS_WAIT_AT_MOST_S if isinstance(me, int) else _WAIT_AT_MOST_S
    with turns.changed:
        has_it = turns.changed.wait_for(
            lambda: turns.depth == 0 or _belongs_to(me, turns.holder), limit_s
        )
        if has_it:
            if turns.depth == 0:
                turns.holder = me
            turns.depth += 1
            _local.depth += 1
    try:
        yield
    finally:
        if has_it:
            turns = _turns  # a new one, if this is a forked child by now
            with turns.changed:
                _local.depth -= 1
                turns.depth -= 1
                if turns.depth == 0:
                    turns.holder = None
                    turns.changed.notify_all()


def in_turn(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function``, to be called by one job at a time."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with turn():
            return function(*args, **kwargs)

    return call


def _who() -> object:
    """Return the job or slot that the calling thread works for, or else the thread's number."""
    scope = current_scope()
    if scope is not None:
        return scope
    facets = slot_facets()
    return threading.get_ident() if facets is None else facets


def _belongs_to(me: object, holder: object) -> bool:
    while isinstance(me, JobScope) and me is not holder:
        me = me.parent
    return me is holder or (isinstance(me, int) and me == holder)


def _in_forked_child() -> None:
    """Forget the threads that the child does not have."""
    global _turns
    holder = _turns.holder
    _turns = _Turns()
    if _local.depth:
        _turns.holder, _turns.depth = holder, _local.depth


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_child)
