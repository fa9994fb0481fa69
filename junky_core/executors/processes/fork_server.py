"""The server that forks a sweep's worker processes, as its parent process sees it.

    driver ──"fork" and a worker's descriptors──> server ──fork──> worker
           <──the worker's number, later its exit status──┘

The server (:mod:`junky_core.executors.processes.serving`) has imported torch
already, so a worker is ready in milliseconds and shares its memory. It is started
by ``exec``: threads and GPUs that the driver uses do it no harm. It kills its
workers' process groups as soon as the driver is gone, however the driver ended.
"""

from __future__ import annotations

import array
import contextlib
import json
import multiprocessing.spawn
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType

from junky_core.errors import ConfigError, JunkyError

__all__ = ["ForkServer", "ForkServerError", "ServedProcess", "is_supported"]

# What is registered first with atexit runs last.
_START = (
    "import atexit, json, sys; atexit.register(lambda: leave()); "
    "told = json.load(sys.stdin); sys.path[:] = told['path']; "
    "from junky_core.executors.processes.serving import leave, main; main(told)"
)
# torch.cuda.is_available() then asks without starting CUDA, which no forked child could use.
_ENVIRONMENT = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
_CLOSES_WITHIN_S = 5.0


class ForkServerError(JunkyError, RuntimeError):
    """The server of worker processes could not be started, or has ended."""


def is_supported() -> bool:
    """Return whether this system can run the server."""
    return sys.platform == "linux"


class ServedProcess:
    """A worker process, forked by the server.

    Attributes:
        pid: Its number, which is also that of its process group.
    """

    def __init__(self, server: ForkServer, pid: int, status: Connection) -> None:
        self.pid = pid
        self._server = server
        self._status = status
        self._lock = threading.Lock()  # guards the two below
        self._ended = False
        self._exit_code: int | None = None

    @property
    def sentinel(self) -> int:
        """A descriptor that is readable once the process has ended, or the server has."""
        return self._status.fileno()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the process has ended; return whether it has."""
        if not self._ended:
            wait([self._status], timeout_s)
        with self._lock:
            if not self._ended and self._status.poll():
                try:
                    self._exit_code = int(self._status.recv_bytes())
                except (EOFError, OSError):  # the server died: nobody is left to watch the process
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.killpg(self.pid, signal.SIGKILL)
                self._ended = True
            return self._ended

    @property
    def exit_code(self) -> int | None:
        """Its exit status, ``-n`` if signal n ended it; ``None`` while it runs or if not known."""
        with self._lock:
            return self._exit_code

    def kill(self) -> None:
        """Kill its process group; nothing happens if it has ended."""
        self._server.kill(self.pid)

    def close(self) -> None:
        """Release the descriptor. The process must have ended."""
        self._status.close()


class ForkServer:
    """Starts the server when it is first needed.

    Thread-safe. Use it as a context manager, or call :meth:`close`.

    Args:
        preload: Modules that the server imports besides torch and this package, such as
            ``"lightning"``. They must start no thread and touch no GPU when they are imported.

    Attributes:
        folder: For files of the workers; whoever needs it makes it. It is removed when the
            server is closed, or when this process ends, however it does.

    Example:
        >>> with ForkServer() as server:
        ...     process = server.fork("os:getpid", {})
        ...     process.wait(60), process.exit_code
        (True, 0)
    """

    def __init__(self, preload: Sequence[str] = ()) -> None:
        self._preload = tuple(preload)
        # By default a process has its own, and a server that replaces another would differ from it.
        given = os.environ.get("PYTHONHASHSEED", "")
        self._hash_seed = given if given.isdecimal() else str(secrets.randbelow(1 << 32))
        self.folder = Path(tempfile.gettempdir()).absolute() / f"junky-{uuid.uuid4().hex}"
        self._lock = threading.Lock()  # guards the three below; held while the server starts
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._ready = False

    def __enter__(self) -> ForkServer:  # noqa: PYI034 - Self is Python 3.11's
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: object, _tb: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The server's process, ``None`` if it has not been started."""
        with self._lock:
            return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the server, without waiting for its imports; nothing happens if it runs."""
        with self._lock:
            self._start()

    def fork(self, target: str, given: object, descriptors: Sequence[int] = ()) -> ServedProcess:
        """Fork a worker, which calls ``target(given, *descriptors)`` and ends.

        It is in a separate session and process group and ignores SIGINT. Its standard
        input is the null device.

        Args:
            target: ``"module:function"``.
            given: A JSON value.
            descriptors: Open files for the worker, which has them under other numbers.

        Raises:
            ConfigError: A module to preload could not be imported.
            ForkServerError: The server could not be started, or has ended.
        """
        receiver, sender = multiprocessing.Pipe(duplex=False)
        try:
            with sender, self._lock:
                self._start()
                self._wait_until_ready()
                told = json.dumps({"do": "fork", "target": target, "given": given}).encode()
                self._send(told, [sender.fileno(), *descriptors])
            answer = json.loads(receiver.recv_bytes())
            if answer["problem"]:
                raise ForkServerError(f"no process can be started: {answer['problem']}")
        except BaseException as error:
            receiver.close()
            if not isinstance(error, (EOFError, OSError)):
                raise
            how = self._how_it_ended()
            self._end()  # the next call starts another
            raise ForkServerError(f"the server of worker processes has ended ({how})") from error
        return ServedProcess(self, answer["pid"], receiver)

    def kill(self, pid: int) -> None:
        """Kill the process group of the worker ``pid``, unless it has ended."""
        with self._lock, contextlib.suppress(OSError):  # if the server is gone, they are
            self._send(json.dumps({"do": "kill", "pid": pid}).encode(), [])

    def close(self) -> None:
        """End the server, which kills the workers that are left; wait until it has."""
        self._end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self) -> None:
        starting = self._process
        if starting is not None and not self._ready:
            starting.kill()  # imports take seconds, and whoever waits for them holds the lock
        with self._lock:
            process, self._process = self._process, None
            if self._socket is not None:
                self._socket.close()
                self._socket = None
            self._ready = False
        if process is None:
            return
        try:
            process.wait(_CLOSES_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _start(self) -> None:
        if self._process is not None:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        told = {
            "path": [folder for folder in sys.path if isinstance(folder, str)],
            "socket": theirs.fileno(),
            "driver": os.getpid(),
            "preload": self._preload,
            "folder": str(self.folder),
        }
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - our own interpreter
                    [*_interpreter(), "-c", _START],
                    stdin=subprocess.PIPE,
                    env={**os.environ, **_ENVIRONMENT, "PYTHONHASHSEED": self._hash_seed},
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # signals of the terminal are for the driver alone
                )
        except OSError as error:
            ours.close()
            raise ForkServerError(f"no process can be started: {error}") from error
        self._socket = ours
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
            stdin.write(json.dumps(told).encode())

    def _wait_until_ready(self) -> None:
        if self._ready:
            return
        assert self._socket is not None
        message = self._socket.recv(1 << 16)
        if not message:
            raise ForkServerError(
                f"the server of worker processes did not start ({self._how_it_ended()}); "
                "what it printed says why"
            )
        problem = json.loads(message)["problem"]
        if problem:
            raise ConfigError(f"preload: {problem}")
        self._ready = True

    def _send(self, message: bytes, descriptors: Sequence[int]) -> None:
        if self._socket is None:
            raise BrokenPipeError
        socket.send_fds(self._socket, [message], array.array("i", descriptors))

    def _how_it_ended(self) -> str:
        process = self._process
        if process is None:
            return "it was closed"
        try:
            status = process.wait(_CLOSES_WITHIN_S)
        except subprocess.TimeoutExpired:
            return "it does not answer"
        return f"exit status {status}" if status >= 0 else signal.Signals(-status).name


def _interpreter() -> list[str]:
    """Return the command for an interpreter with this one's options (``-W``, ``-X``, ``-O``)."""
    command = multiprocessing.spawn.get_command_line()
    if "-c" not in command:
        raise ForkServerError("worker processes need a Python interpreter; this program is frozen")
    return command[: command.index("-c")]
