"""Which streams the calling thread draws from."""

# ruff: noqa: SLF001  # torch has no public way to its per-thread objects

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from torch import _C

from junky_core.job.thread_ends import note_this_thread

if TYPE_CHECKING:
    from junky_core.job.seeding._streams import JobStreams

__all__ = ["KEY", "current_streams", "entered", "hidden_streams", "leave_streams", "several_inside"]

# torch keeps objects by name for each of its threads and, what threading.local would not do,
# hands them on with the rest of a thread's state to the autograd threads that work for it.
KEY = "junky_core.job.seeding.streams"
# Looked up so that this module loads in any torch.
_get_obj: Any = getattr(_C, "_get_obj_in_tls", None)
_has_obj: Any = getattr(_C, "_is_key_in_tls", None)

_inside: set[int] = set()  # threads that are in streams; of a set, adding and discarding are atomic


def current_streams() -> JobStreams | None:
    """Return the streams that the calling thread draws from, ``None`` outside any."""
    if _has_obj is None or not _has_obj(KEY):
        return None
    streams: JobStreams | None = _get_obj(KEY)
    return streams


def hidden_streams() -> AbstractContextManager[None]:
    """Take the calling thread out of any streams inside the ``with`` block."""
    return entered(None)


def several_inside() -> bool:
    """Return whether the calling thread is in streams, and another thread too."""
    return current_streams() is not None and len(_inside) > 1


def leave_streams() -> None:
    """Take the calling thread out of any streams, for good."""
    _C._stash_obj_in_tls(KEY, None)


@contextlib.contextmanager
def entered(streams: JobStreams | None) -> Iterator[None]:
    """Make ``streams`` the calling thread's, and do no more, inside the ``with`` block."""
    outer = current_streams()
    note_this_thread()  # torch keeps what is stashed until the thread is gone
    _C._stash_obj_in_tls(KEY, streams)
    outermost = outer is None and streams is not None
    if outermost:
        _inside.add(threading.get_ident())
    try:
        yield
    finally:
        if outermost:
            _inside.discard(threading.get_ident())
        _C._stash_obj_in_tls(KEY, outer)
