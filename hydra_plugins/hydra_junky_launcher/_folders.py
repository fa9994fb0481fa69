"""A working folder for each job: on Linux a thread can have its own.

``unshare(CLONE_FS)`` gives it to the calling thread and to the threads that it starts
later. The main thread keeps the process's folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

__all__ = ["folders_per_thread", "in_this_folder", "unshare_folder"]

_CLONE_FS = 0x200  # linux/sched.h: folder, root and umask are shared between threads
_lock = threading.Lock()  # guards _found
_found: bool | None = None  # what folders_per_thread() found


@functools.lru_cache(maxsize=1)
def _system_unshare() -> Callable[[int], int] | None:
    try:
        return cast("Callable[[int], int]", ctypes.CDLL(None, use_errno=True).unshare)
    except (OSError, AttributeError, TypeError):  # not Linux
        return None


def unshare_folder() -> bool:
    """Give the calling thread its own folder, if the system can; say whether it did."""
    unshare = _system_unshare()
    return unshare is not None and unshare(_CLONE_FS) == 0


def in_this_folder() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """Return what puts a pool's thread into the folder that the calling thread is in now."""
    return functools.partial(_in_folder, str(Path.cwd()))


@contextlib.contextmanager
def _in_folder(folder: str) -> Iterator[None]:
    if unshare_folder():  # else it would move the job that started the pool's thread
        os.chdir(folder)
    yield


def folders_per_thread() -> bool:
    """Return whether a thread can have its own working folder here; tried once.

    Linux can. Containers may forbid it, and some kernels report success and do nothing.
    """
    global _found
    with _lock:
        if _found is None:
            folder = str(Path.cwd())
            elsewhere = next(p for p in (tempfile.gettempdir(), os.sep) if not _same(p, folder))
            seen: list[bool] = []

            def try_out() -> None:
                if unshare_folder():
                    os.chdir(elsewhere)
                    seen.append(_same(str(Path.cwd()), elsewhere))

            thread = threading.Thread(target=try_out)
            thread.start()
            thread.join()
            _found = seen == [True] and str(Path.cwd()) == folder
            if str(Path.cwd()) != folder:
                os.chdir(folder)
        return _found


def _same(one: str, other: str) -> bool:
    with contextlib.suppress(OSError):
        return Path(one).samefile(other)
    return False
