"""Accept only regular files: opening a fifo would hang, and a device stores nothing."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

__all__ = ["check_own", "check_regular", "open_regular"]

_KINDS = {
    stat.S_IFIFO: "a fifo",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def check_regular(path: Path) -> None:
    """Refuse a path that is a fifo, a device or a socket.

    Raises:
        OSError: It is; the message says which.
    """
    try:
        mode = path.stat().st_mode
    except OSError:  # it does not exist, or opening it raises the same error
        return
    _check(mode, path)


def check_own(path: Path) -> None:
    """Refuse a path that is not a regular file, or free for one.

    A symbolic link is refused, because another user of the folder could have pointed it to any
    file of the user who runs the sweep.

    Raises:
        OSError: It is a symbolic link, a folder, a fifo, a device or a socket; the message says
            which.
    """
    check_regular(path)
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, "it is a symbolic link, which is not followed", str(path))
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, "it is a folder", str(path))


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading, as bytes.

    Raises:
        OSError: It cannot be opened, or is not a regular file.
    """
    file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - Path has no opener
    try:
        _check(os.fstat(file.fileno()).st_mode, path)
    except BaseException:
        file.close()
        raise
    return file


def _open_at_once(path: str, flags: int) -> int:
    """Open a fifo without waiting for its writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check(mode: int, path: Path) -> None:
    kind = _KINDS.get(stat.S_IFMT(mode))
    if kind is not None:
        raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", str(path))
