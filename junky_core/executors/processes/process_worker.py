"""One slot's worker process, as its driver thread sees it.

The driver thread sends an attempt and handles what the process says until the
attempt has ended, or the process has:

    the process                        the attempt is
    says how it ended                  that
    was ended by a signal, os._exit    crashed
    .. SIGKILL, not from here          crashed, of too little memory of the host
    was ended with the fork server     lost
    was asked to end, and did not      killed, and ended as it was asked to:
    .. within kill_after_s             timeout or interrupted

The next attempt then finds a new process.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
import time
from contextlib import AbstractContextManager
from multiprocessing.connection import wait
from typing import Any

from junky_core.errors import ConfigError
from junky_core.events import ScoreReported
from junky_core.executors.contract import AttemptEnd, Link
from junky_core.executors.messages import end_of, plain_attempt
from junky_core.executors.processes.built_loaders import BuiltLoaders
from junky_core.executors.processes.fork_server import ForkServer, ForkServerError, ServedProcess
from junky_core.executors.processes.output import WorkerOutput
from junky_core.executors.processes.sending import dumps, loads
from junky_core.executors.processes.worker import ProcessSetup
from junky_core.job.best import BestModel
from junky_core.job.offers import Standing
from junky_core.jobs import Attempt, EndKind
from junky_core.values.user_text import error_line

__all__ = ["ProcessWorker"]

_WORKER = "junky_core.executors.processes.worker:main"
_TRIES = 3  # to start a process and have it build its loaders
_LOOK_EVERY_S = 0.2  # for an attempt that was asked to end
_CLOSES_WITHIN_S = 5.0


class _Process:
    """One worker process and the ways to it."""

    def __init__(self, server: ForkServer) -> None:
        self.output = WorkerOutput()
        self.connection, theirs = multiprocessing.Pipe()
        try:
            with theirs:
                self.served: ServedProcess = server.fork(
                    _WORKER, None, [theirs.fileno(), *self.output.descriptors]
                )
        except BaseException:
            self.connection.close()
            self.output.close()
            raise
        self.output.start()
        self.closed = False  # by the worker that has it
        self._sending = threading.Lock()  # guards writing to the connection

    def send(self, *message: Any) -> None:
        """Tell the process; nothing happens if it has ended."""
        self.send_bytes(dumps(message))

    def send_bytes(self, data: bytes) -> None:
        """Tell the process what is pickled already."""
        with contextlib.suppress(OSError), self._sending:
            self.connection.send_bytes(data)

    def close(self) -> None:
        """Free what it needed here; it has ended."""
        self.output.close()
        self.connection.close()
        self.served.close()


class ProcessWorker:
    """Runs the attempts of one slot in a process.

    Args:
        setup: What the process is told first.
        link: The way up to the engine.
        server: Starts the process.
        kill_after_s: Seconds after which an attempt that was asked to end is killed.
        built: The loaders that the workers of the sweep have built.
    """

    def __init__(
        self,
        setup: ProcessSetup,
        link: Link,
        server: ForkServer,
        kill_after_s: float,
        built: BuiltLoaders,
    ) -> None:
        self._setup = setup
        self._built = built
        self._link = link
        self._server = server
        self._kill_after_s = kill_after_s
        self._working = threading.RLock()  # held while a thread waits for the process
        self._lock = threading.Lock()  # guards the four below, and _Process.closed
        self._process: _Process | None = None
        self._asked: tuple[str, EndKind, str] | None = None  # the last stop: of what, and why
        self._asked_at = 0.0
        self._closed = False

    def attached(self) -> AbstractContextManager[None]:
        """Return a block that does nothing: the driver thread runs no job."""
        return contextlib.nullcontext()

    def open(self) -> str:
        """Start the process, and have it build its loaders; return why it cannot, or ``""``.

        Raises:
            ConfigError: No process could be started: the script or what is sent is at fault.
        """
        with self._working:
            return self._open()

    def execute(self, attempt: Attempt) -> AttemptEnd:
        """Run an attempt to its end; never raise what the job raises."""
        with self._working:
            return self._execute(attempt)

    def _open(self) -> str:
        died = ""
        for _ in range(_TRIES):
            try:
                process = self._start()
            except ForkServerError as error:  # the next try starts another
                died = str(error)
                continue
            if process is None:
                return "the sweep was closed"
            process.send_bytes(dumps(self._setup))
            process.send("open")
            while (message := self._next(process)) is not None:
                if not message:
                    continue
                kind, *content = message
                if kind == "ready":
                    if content[0]:
                        self._end(process, kill=True)
                    return str(content[0])
                if kind == "refused":
                    self._end(process, kill=True)
                    raise ConfigError(content[0])
                getattr(self._link, kind)(*content)
            died = _how_it_ended(process.served)
            self._end(process)
        return f"its worker process died {_TRIES} times before it had a job: {died}"

    def _execute(self, attempt: Attempt) -> AttemptEnd:
        began = time.monotonic()
        try:
            plain = plain_attempt(attempt, dumps)
        except ConfigError as error:
            text = error_line(error)
            return AttemptEnd(
                EndKind.ERROR, 0.0, score=attempt.score, error=text, traceback=text, exception=error
            )
        reason = ""
        for _ in range(_TRIES):
            process, reason = self._ready_process()
            if process is None:
                break
            end = self._attempt(process, attempt, plain)
            if end is not None:
                return end
            reason = f"its worker process died {_TRIES} times before it took a job"
        return AttemptEnd(
            EndKind.LOST,
            time.monotonic() - began,
            score=attempt.score,
            error=reason,
            closes_slot=reason,
        )

    def _ready_process(self) -> tuple[_Process | None, str]:
        """Return a process that waits for a job, or why there is none."""
        with self._lock:
            process = self._process
        if process is not None and process.served.wait(0):  # it died with nothing to do
            self._end(process)
            process = None
        try:
            reason = "" if process is not None else self._open()
        except ConfigError as error:  # the script has been changed since the sweep began
            reason = str(error)
        with self._lock:
            return self._process, reason or "the sweep was closed"

    def _attempt(
        self, process: _Process, attempt: Attempt, plain: dict[str, Any]
    ) -> AttemptEnd | None:
        """Run an attempt; return ``None`` if the process died before it began."""
        running = _Running(self._link, process, attempt)
        process.output.prefix = f"{attempt.name}: "
        process.send("run", plain)
        with self._lock:
            asked = self._asked
        if asked is not None and asked[0] == attempt.name:  # just before it began
            process.send("stop", asked[0], asked[1].value, asked[2])
        killed = False
        while (message := self._next(process, _LOOK_EVERY_S)) is not None:
            if message:
                end = running.hear(message)
                if end is not None:
                    process.output.settle()
                    process.output.prefix = ""
                    return end
            if not killed and self._is_overdue(attempt.name):
                killed = True
                process.served.kill()
        self._end(process)
        if not running.began and not killed:
            return None
        with self._lock:
            asked = self._asked if killed else None
        return running.died(asked)

    def stop(self, name: str, kind: EndKind, message: str) -> None:
        """Ask an attempt to end at its next cancellation point; from any thread."""
        with self._lock:
            if self._asked is None or self._asked[0] != name:
                self._asked_at = time.monotonic()
            self._asked = (name, kind, message)
            process = self._process
        if process is not None:
            process.send("stop", name, kind.value, message)

    def ask_to_close(self) -> None:
        """Let the process end, without waiting for it."""
        with self._lock:
            self._closed = True
            process = self._process
        if process is not None:
            process.send("close")

    def close(self) -> None:
        """End the process: kill it if it has not ended within some seconds."""
        with self._lock:
            process = self._process
        if process is None:
            return
        process.served.wait(_CLOSES_WITHIN_S)
        process.served.kill()
        if self._working.acquire(timeout=_CLOSES_WITHIN_S):  # else whoever waits for it ends it
            try:
                self._end(process)
            finally:
                self._working.release()

    def _start(self) -> _Process | None:
        process = _Process(self._server)
        with self._lock:
            if not self._closed:
                self._process = process
                return process
        self._end(process, kill=True)
        return None

    def _end(self, process: _Process, *, kill: bool = False) -> None:
        """Have no process any more."""
        if kill:
            process.served.kill()
        process.served.wait()
        with self._lock:
            if self._process is process:
                self._process = None
            already, process.closed = process.closed, True
        if not already:
            process.close()

    def _next(self, process: _Process, timeout_s: float | None = None) -> tuple[Any, ...] | None:
        """Return what the process says, ``()`` after a while, ``None`` if it has ended."""
        connection = process.connection
        ready = wait([connection, process.served.sentinel], timeout_s)
        if not ready:
            return ()
        try:
            if connection in ready or connection.poll():
                message: tuple[Any, ...] = loads(connection.recv_bytes())
                if message[0] == "take":
                    message = (*message, connection.recv_bytes())
                return () if self._hear_of_loaders(process, *message) else message
        except (EOFError, OSError):
            process.served.wait()
        return None

    def _hear_of_loaders(self, process: _Process, kind: str, *content: Any) -> bool:
        """Return whether the message was about loaders, after doing what it asks for."""
        slot = self._setup.slot.index
        if kind == "built":
            self._built.add(slot, *content)
        elif kind == "built_elsewhere":
            process.send("answer", self._built.elsewhere(slot, *content))
        else:
            return False
        return True

    def _is_overdue(self, name: str) -> bool:
        with self._lock:
            asked = self._asked is not None and self._asked[0] == name
            return asked and time.monotonic() - self._asked_at > self._kill_after_s


class _Running:
    """An attempt that runs in the process, once it ``began`` there."""

    def __init__(self, link: Link, process: _Process, attempt: Attempt) -> None:
        self._link = link
        self._process = process
        self._attempt = attempt
        self._score = attempt.score
        self._serial = 0
        self._started = time.monotonic()
        self.began = False

    def hear(self, message: tuple[Any, ...]) -> AttemptEnd | None:
        """Do what the process asks for; return how the attempt ended, if it has."""
        kind, *content = message
        best = self._link.best
        assert isinstance(best, BestModel)  # in the driver it is
        if kind == "begun":
            self.began = True
        elif kind == "end":
            return self._ended(content[0])
        elif kind == "would_lead":
            self._answer(Standing(leads=best.would_lead(*content), best=best.best, serial=0))
        elif kind == "take":
            job, name, score, weights = content
            standing = best.take(job, name, score, weights)
            self._serial = max(self._serial, standing.serial)
            self._answer(standing)
        elif kind == "warn":
            self._link.warn(*content)
        else:
            (event,) = content
            if isinstance(event, ScoreReported) and event.improved:
                self._score = event.score
            self._link.emit(event)
        return None

    def died(self, asked: tuple[str, EndKind, str] | None) -> AttemptEnd:
        """Return how the attempt ended: its process has."""
        served = self._process.served
        how = _how_it_ended(served)
        if asked is not None:
            _, kind, why = asked
            error = f"{why}; it was killed, for it came to no cancellation point"
        else:
            # Without an exit status, the server has died, which is not the job's fault.
            kind = EndKind.LOST if served.exit_code is None else EndKind.CRASHED
            error = f"the worker process ended: {how}"
        by_kernel = asked is None and served.exit_code == -signal.SIGKILL
        if by_kernel:
            error += ", as the system does when memory is short"
        return AttemptEnd(
            kind=kind,
            duration_s=time.monotonic() - self._started,
            score=self._score,
            serial=self._serial,
            error=error,
            traceback=error,
            location=("process", how),
            host_memory=by_kernel,
        )

    def _answer(self, standing: Standing) -> None:
        self._process.send("answer", standing)

    def _ended(self, plain: dict[str, Any]) -> AttemptEnd:
        end = end_of(plain, loads)
        if end.value_is_repr:  # said once
            self._link.warn(
                "values that jobs return are replaced by their repr() if they cannot be pickled"
            )
        return end


def _how_it_ended(served: ServedProcess) -> str:
    code = served.exit_code
    if code is None:
        return "the server of worker processes was ended"
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
