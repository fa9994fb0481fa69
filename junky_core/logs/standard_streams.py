"""Keep jobs running when the reader of standard output is gone (``| head``, a closed terminal).

Without this, a job that prints would fail with ``BrokenPipeError``, and the
process would end with status 120 although all its jobs finished.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["unbreakable_streams"]

_NAMES = ("stdout", "stderr")
_GONE = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ECONNRESET)  # EIO: the terminal was closed


class _Unbreakable:
    """A text stream that discards its output once its reader is gone."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write ``text``."""
        self._tried(lambda: self._stream.write(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write each of ``lines``."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush the stream."""
        self._tried(self._stream.flush)

    def _tried(self, step: Callable[[], Any]) -> None:
        try:
            step()
        except OSError as error:
            if error.errno not in _GONE:
                raise
            _to_nowhere(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Any:
        return iter(self._stream)


@contextlib.contextmanager
def unbreakable_streams() -> Iterator[None]:
    """Allow the readers of standard output and error to go away, inside the block.

    A closed descriptor (``>&-``) is opened on the null device and stays open:
    otherwise the next file would get its number, and the output of C libraries.
    """
    _occupy()
    replaced: dict[str, _Unbreakable] = {}
    for name in _NAMES:
        stream = getattr(sys, name)
        if stream is not None and stream is getattr(sys, f"__{name}__"):
            replaced[name] = _Unbreakable(stream)
            setattr(sys, name, replaced[name])
    try:
        yield
    finally:
        for name, stream in replaced.items():
            with contextlib.suppress(OSError, ValueError):  # ValueError: the user closed it
                stream.flush()  # buffered text would otherwise fail when the process ends
            if getattr(sys, name) is stream:
                setattr(sys, name, getattr(sys, f"__{name}__"))


def _occupy() -> None:
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one


def _to_nowhere(stream: Any) -> None:
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
        stream.flush()
