"""Check paths that users give, before anything is created."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from junky_core.errors import ConfigError, JunkyError
from junky_core.values.user_text import shown

__all__ = ["check_path", "folder_trouble", "remove_empty", "try_to_write", "user_path"]

_NAME_BYTES, _PATH_BYTES = 255, 4095  # the limits of Linux's file systems, and of Linux


def user_path(what: str, given: Any, error: type[JunkyError] = ConfigError) -> Path:
    """Return ``given`` as a path that can exist; ``~`` is the home folder.

    Args:
        what: The name of the argument or key, for the message.
        given: A string or a path.
        error: The class of error to raise.

    Raises:
        JunkyError: It is neither a string nor a path, or no file can have that name.

    >>> user_path("sweep_dir", "runs/one")
    PosixPath('runs/one')
    >>> user_path("sweep_dir", 5)
    Traceback (most recent call last):
    junky_core.errors.ConfigError: sweep_dir must be a string or a path, not 5
    """
    path = check_path(what, given, error)
    try:
        return path.expanduser()
    except RuntimeError:
        user = path.parts[0]
        raise error(f"{what} is {shown(str(path))}: no user is called {shown(user[1:])}") from None


def check_path(what: str, given: Any, error: type[JunkyError] = ConfigError) -> Path:
    """Do the same as :func:`user_path`, but treat ``~`` as an ordinary name.

    Raises:
        JunkyError: As :func:`user_path`.
    """
    try:
        text = os.fspath(given)
    except TypeError:
        text = None
    if not isinstance(text, str):
        raise error(f"{what} must be a string or a path, not {shown(given)}")
    problem = _problem(text)
    if problem:
        raise error(f"{what} is {shown(text)}: {problem}")
    return Path(text)


def folder_trouble(folder: Path) -> str:
    """Return why a folder cannot be created and written to, ``""`` if it can.

    Nothing is left behind.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    probe = folder / f".junky.{os.getpid()}.probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try_to_write(probe)
    except OSError as error:
        return str(error)
    finally:
        remove_empty(made)
    return ""


def try_to_write(file: Path) -> None:
    """Create a file and remove it again.

    Raises:
        OSError: It cannot be created, or is a symbolic link, which is not followed.
    """
    flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    os.close(os.open(file, flags, 0o666))
    file.unlink()


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders that are empty, the innermost first; stop at one that is not."""
    for folder in folders:
        try:
            folder.rmdir()
        except FileNotFoundError:  # it was not created, though those around it were
            continue
        except OSError:
            break


def _problem(text: str) -> str:
    if "\0" in text:
        return "a path cannot contain a NUL character"
    try:
        encoded = os.fsencode(text)
    except UnicodeError:
        return "it contains half of a surrogate pair, which a file name cannot"
    longest = max(map(len, encoded.split(b"/")))
    if longest > _NAME_BYTES:
        return f"a name in it has {longest} bytes; file systems allow at most {_NAME_BYTES}"
    if len(os.path.abspath(encoded)) > _PATH_BYTES:  # noqa: PTH100 - nothing is resolved
        return f"it has {len(encoded)} bytes; the system allows at most {_PATH_BYTES}"
    return ""
