"""One worker process and the ways to it, as the driver has them."""

from __future__ import annotations

import contextlib
import signal
import socket
from typing import Any

from junky_core.executors.processes.channel import Channel
from junky_core.executors.processes.fork_server import ForkServer, ServedProcess
from junky_core.executors.processes.output import WorkerOutput
from junky_core.executors.processes.sending import dumps, loads

__all__ = ["WorkerProcess"]

_WORKER = "junky_core.executors.processes.worker:main"
LEAVES_WITHIN_S = 5.0  # after it has closed its connection


class WorkerProcess:
    """One worker process and the ways to it.

    Attributes:
        ready: It waits for a job, or has one.
        killed: It was killed from here.
        closed: Freed by the worker that has it.
    """

    def __init__(self, server: ForkServer) -> None:
        self.ready = self.killed = self.closed = False
        self.output = WorkerOutput()
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self.served: ServedProcess = server.fork(
                    _WORKER, None, [theirs.fileno(), *self.output.descriptors]
                )
        except BaseException:
            ours.close()
            self.output.close()
            raise
        self.channel = Channel(ours, self.served.sentinel)
        self.output.start()
        self._left = False  # it closed its connection, but goes on

    def send(self, *message: Any) -> None:
        """Tell the process; nothing happens if it has ended."""
        self.send_bytes(dumps(message))

    def send_bytes(self, data: bytes) -> None:
        """Tell the process what is pickled already."""
        with contextlib.suppress(EOFError, OSError):
            self.channel.send(data)

    def next(self, timeout_s: float | None = None) -> tuple[Any, ...] | None:
        """Return what the process says, ``()`` after a while, ``None`` if it has ended."""
        try:
            data = self.channel.receive(timeout_s)
        except (EOFError, OSError):
            if not self.served.wait(LEAVES_WITHIN_S):
                self._left = True
                self.served.kill()
                self.served.wait()
            return None
        if data is None:
            return ()
        message: tuple[Any, ...] = loads(data)
        return message

    def kill(self) -> None:
        """Kill it and what it has started; nothing happens if it has ended."""
        if not self.served.wait(0):
            self.killed = True
            self.served.kill()

    @property
    def exit_code(self) -> int | None:
        """The exit status, ``-n`` for signal n; ``None`` if the server was ended."""
        return 1 if self._left else self.served.exit_code

    @property
    def how(self) -> str:
        """How it ended."""
        code = self.served.exit_code
        if self._left:
            return "it closed its connection to the sweep"
        if code is None:
            return "the server of worker processes was ended"
        if code >= 0:
            return f"exit status {code}"
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"

    def close(self) -> None:
        """Free what it needed here; it has ended."""
        self.output.close()
        self.channel.close()
        self.served.close()
