"""What a worker process writes to its standard output and error, brought to the driver's.

    worker ──descriptors 1, 2──> pipes ──thread of the driver──> sys.stdout, sys.stderr

Lines arrive whole, so that those of several workers do not mix, and each has the
prefix of its job. A worker that writes without end waits for the driver to read;
nobody waits for the worker.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

from junky_core.job.scopes import outside_scopes

__all__ = ["WorkerOutput", "flush_output"]

_MOST_AT_ONCE = 1 << 16
_LONGEST_LINE = 1 << 20  # a longer one is divided, for it must fit in memory
_CLOSES_WITHIN_S = 1.0  # longer if the driver's own output is held up: by a stopped terminal


class _Pipe:
    """One of the two, and the beginning of a line that is not complete."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.read, self.write = os.pipe()
        os.set_blocking(self.read, False)
        self.pending = bytearray()


def flush_output() -> None:
    """Write what this process has printed, in Python or C, and still holds."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # a job may have closed or replaced it
            stream.flush()
    ctypes.CDLL(None).fflush(None)


def _write_to_own_stream(stream: str, text: str) -> None:
    target = getattr(sys, stream)
    if target is not None:
        target.write(text)
        target.flush()


class WorkerOutput:
    """The output of one worker process.

    Args:
        write: Called with ``"stdout"`` or ``"stderr"`` and whole lines, by one thread at a
            time. What it raises is ignored.

    Attributes:
        descriptors: For the worker, as its descriptors 1 and 2; open until :meth:`start`.
        prefix: For the beginning of each line that does not have it.
    """

    def __init__(self, write: Callable[[str, str], Any] = _write_to_own_stream) -> None:
        self.prefix = ""
        self._deliver = write
        self._pipes = [_Pipe("stdout"), _Pipe("stderr")]
        self.descriptors = tuple(pipe.write for pipe in self._pipes)
        self._lock = threading.Lock()  # guards the pipes; held while lines are delivered
        self._wake = os.pipe()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to read; the worker has its descriptors."""
        for pipe in self._pipes:
            os.close(pipe.write)
        self._thread = threading.Thread(target=self._work, name="junky-output", daemon=True)
        with outside_scopes():
            self._thread.start()

    def settle(self) -> None:
        """Deliver what the worker has written by now, also of a line that is not complete."""
        with self._lock:
            for pipe in list(self._pipes):
                self._take(pipe, _LONGEST_LINE)
                self._complete(pipe)

    def close(self) -> None:
        """Deliver what is there, and read no more; children of the worker may go on writing."""
        if self._thread is None:
            for pipe in self._pipes:
                os.close(pipe.write)
        else:
            os.write(self._wake[1], b"x")
            self._thread.join(_CLOSES_WITHIN_S)
            if self._thread.is_alive():
                return
            self.settle()
        for descriptor in (*self._wake, *(pipe.read for pipe in self._pipes)):
            os.close(descriptor)
        self._pipes = []

    def _work(self) -> None:
        while True:
            with self._lock:
                pipes = {pipe.read: pipe for pipe in self._pipes}
            ready = wait([self._wake[0], *pipes])
            if self._wake[0] in ready:
                return
            with self._lock:
                for descriptor in ready:
                    self._take(pipes[descriptor], _MOST_AT_ONCE)  # type: ignore[index]

    def _take(self, pipe: _Pipe, most: int) -> None:
        """Read what is there and deliver the lines that are complete. Under the lock."""
        try:
            data = os.read(pipe.read, most)
        except BlockingIOError:
            return
        if not data:
            self._complete(pipe)
            os.close(pipe.read)
            self._pipes.remove(pipe)
            return
        pipe.pending += data
        end = pipe.pending.rfind(b"\n") + 1
        if end == 0 and len(pipe.pending) >= _LONGEST_LINE:
            end = len(pipe.pending)
        self._write(pipe, end)

    def _complete(self, pipe: _Pipe) -> None:
        """Deliver the beginning of a line. Under the lock."""
        self._write(pipe, len(pipe.pending))

    def _write(self, pipe: _Pipe, end: int) -> None:
        """Deliver what is before ``end``. Under the lock."""
        if end == 0:
            return
        whole = bytes(pipe.pending[:end]).decode("utf-8", "replace").removesuffix("\n")
        del pipe.pending[:end]
        prefix = self.prefix
        lines = [
            line if line.startswith(prefix) else f"{prefix}{line}" for line in whole.split("\n")
        ]
        text = "\n".join(lines) + "\n"
        with contextlib.suppress(Exception):  # the driver's stream was closed, or refuses the text
            self._deliver(pipe.stream, text)
