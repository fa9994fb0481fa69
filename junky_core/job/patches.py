"""Patches of the whole process, in place only while a sweep needs them.

Several sweeps may run in one process, one after another or at the same time. The
first that needs a patch puts it in place, the last one takes it away:

    sweep 1   |---------- patched ----------|
    sweep 2             |---------- patched ----------|
    process   |------------- patched once ------------|

Other code may patch the same attribute in the meantime. If it wrapped our patch, its
wrapper stays in place and still calls ours after the sweep. So a patch must keep working
when it is no longer needed: it keeps the original in a closure, never in a variable that
is emptied at the end.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from junky_core.job.fork_locks import free_in_children

__all__ = ["replaced", "shared"]

_NOT_THERE = object()


def shared(
    block: Callable[[], AbstractContextManager[Any]],
) -> Callable[[], AbstractContextManager[None]]:
    """Let overlapping ``with`` blocks share one: the first enters ``block``, the last leaves it.

    A decorator for context managers without arguments, thread-safe. The first and the
    last may be different threads. If ``block`` raises on entry, the next one tries again.

    >>> @shared
    ... @contextlib.contextmanager
    ... def patched():
    ...     print("in place")
    ...     yield
    ...     print("gone")
    >>> with patched(), patched():
    ...     print("used")
    in place
    used
    gone
    """
    # Guards the two below, and is held while the block is entered or left.
    lock = free_in_children(threading.Lock())
    holders = 0
    entered = contextlib.ExitStack()

    @contextlib.contextmanager
    @functools.wraps(block)
    def held() -> Iterator[None]:
        nonlocal holders
        with lock:
            if holders == 0:
                entered.enter_context(block())
            holders += 1
        try:
            yield
        finally:
            with lock:
                holders -= 1
                if holders == 0:
                    entered.close()

    return held


@contextlib.contextmanager
def replaced(owner: Any, name: str, new: Any) -> Iterator[None]:
    """Replace an attribute of a module or class inside the ``with`` block.

    Afterwards the attribute is as before, inherited or not there at all if it was so. If it
    is not ``new`` by then, because other code has replaced it, it is left alone.

    >>> import math
    >>> with replaced(math, "pi", 3):
    ...     math.pi
    3
    >>> math.pi
    3.141592653589793
    """
    before = vars(owner).get(name, _NOT_THERE)
    setattr(owner, name, new)
    try:
        yield
    finally:
        if vars(owner).get(name) is not new:
            pass
        elif before is _NOT_THERE:
            delattr(owner, name)
        else:
            setattr(owner, name, before)
