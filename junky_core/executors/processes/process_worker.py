"""One slot's worker process, as its driver thread sees it.

The driver thread sends an attempt and handles what the process says until the
attempt has ended, or the process has:

    the process                          the attempt is
    says how it ended                    that
    was ended by a signal, os._exit      crashed
    .. SIGKILL, not from here            crashed, of too little memory of the host
    .. SIGTERM or SIGHUP that the        interrupted
    .. sweep got as well
    closed its connection, and runs on   killed, and crashed
    was ended with the fork server       lost
    was asked to end, and did not        killed, and ended as it was asked to:
    .. within kill_after_s               timeout or interrupted

The next attempt then finds a new process. A process that does not wait for a job
yet hears nothing (it imports the script, or builds loaders), so it is killed at
once when the sweep is closed.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from contextlib import AbstractContextManager
from typing import Any

from junky_core.errors import ConfigError
from junky_core.executors.contract import AttemptEnd, HearingRunner, Link
from junky_core.executors.messages import plain_attempt
from junky_core.executors.processes.built_loaders import BuiltLoaders
from junky_core.executors.processes.fork_server import ForkServer, ForkServerError
from junky_core.executors.processes.running_attempt import RunningAttempt
from junky_core.executors.processes.sending import dumps
from junky_core.executors.processes.worker import ProcessSetup
from junky_core.executors.processes.worker_process import WorkerProcess
from junky_core.jobs import Attempt, EndKind
from junky_core.values.user_text import error_line

__all__ = ["ProcessWorker"]

_TRIES = 3  # to start a process and have it build its loaders
_LOOK_EVERY_S = 0.2  # for an attempt that was asked to end
_CLOSES_WITHIN_S = 5.0
_SESSION_SIGNALS = (-signal.SIGTERM, -signal.SIGHUP)  # batch systems send them to all processes
_STOP_COMES_WITHIN_S = 0.5  # after such a signal, if the sweep got it as well
_WAS_KILLED = "it reached no cancellation point"


class ProcessWorker:
    """Runs the attempts of one slot in a process.

    Args:
        setup: What the process is told first.
        link: The way up to the engine.
        server: Starts the process.
        kill_after_s: Seconds after which an attempt that was asked to end is killed.
        built: The loaders that the workers of the sweep have built.
        hears: The runner in this process, if it hears how attempts end.
    """

    def __init__(
        self,
        setup: ProcessSetup,
        link: Link,
        server: ForkServer,
        kill_after_s: float,
        built: BuiltLoaders,
        hears: HearingRunner | None = None,
    ) -> None:
        self._setup = setup
        self._built = built
        self._link = link
        self._server = server
        self._kill_after_s = kill_after_s
        self._hears = hears
        self._working = threading.RLock()  # held while a thread waits for the process
        self._changed = threading.Condition()  # guards all below, and flags of the process
        self._process: WorkerProcess | None = None
        self._asked: tuple[str, EndKind, str] | None = None  # the last stop: of what, and why
        self._asked_at = 0.0
        self._closed = False
        self._close_until = 0.0

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
            end = self._execute(attempt)
        if self._hears is not None:
            self._hears.hear(attempt, end)
        return end

    def stop(self, name: str, kind: EndKind, message: str) -> None:
        """Ask an attempt to end at its next cancellation point; from any thread."""
        with self._changed:
            if not self._is_asked(name):
                self._asked_at = time.monotonic()
            self._asked = (name, kind, message)
            self._changed.notify_all()
            process = self._process
        if process is not None:
            process.send("stop", name, kind.value, message)

    def ask_to_close(self) -> None:
        """Let the process end, without waiting for it."""
        with self._changed:
            self._closed = True
            self._close_until = time.monotonic() + _CLOSES_WITHIN_S
            self._changed.notify_all()
            process = self._process
            ready = process is not None and process.ready
        if process is not None and ready:
            process.send("close")
        elif process is not None:
            process.kill()

    def close(self) -> None:
        """End the process after :meth:`ask_to_close`: kill it if that takes some seconds."""
        with self._changed:
            process = self._process
            left_s = self._close_until - time.monotonic()
        if process is None:
            return
        process.served.wait(max(0.0, left_s))
        process.kill()
        if self._working.acquire(timeout=_CLOSES_WITHIN_S):  # else whoever waits for it ends it
            try:
                self._end(process)
            finally:
                self._working.release()

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
                opened = self._opening(process, *message) if message else None
                if opened is not None:
                    if opened:
                        self._end(process, kill=True)
                    return opened
            self._end(process)
            died = process.how
        return f"its worker process died {_TRIES} times before it had a job: {died}"

    def _start(self) -> WorkerProcess | None:
        """Start a process, unless the sweep was closed."""
        with self._changed:
            if self._closed:
                return None
        process = WorkerProcess(self._server)
        with self._changed:
            if not self._closed:
                self._process = process
                return process
        self._end(process, kill=True)
        return None

    def _opening(self, process: WorkerProcess, kind: str, *content: Any) -> str | None:
        """Hear what the process says while it opens; return how that ended, if it has.

        Raises:
            ConfigError: It refuses what it was sent.
        """
        if kind == "refused":
            self._end(process, kill=True)
            raise ConfigError(content[0])
        if kind == "ready":
            with self._changed:
                process.ready = True
                if self._closed:  # and the process was not told so
                    return "the sweep was closed"
            return str(content[0])
        getattr(self._link, kind)(*content)
        return None

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

    def _ready_process(self) -> tuple[WorkerProcess | None, str]:
        """Return a process that waits for a job, or why there is none."""
        with self._changed:
            process = self._process
        if process is not None and process.served.wait(0):  # it died with nothing to do
            self._end(process)
            process = None
        try:
            reason = "" if process is not None else self._open()
        except ConfigError as error:  # the script has been changed since the sweep began
            reason = str(error)
        with self._changed:
            return self._process, reason or "the sweep was closed"

    def _attempt(
        self, process: WorkerProcess, attempt: Attempt, plain: dict[str, Any]
    ) -> AttemptEnd | None:
        """Run an attempt; return ``None`` if the process died before it began."""
        running = RunningAttempt(
            self._link,
            attempt,
            lambda standing: process.send("answer", standing),
            process.channel.received_file,
        )
        process.output.prefix = f"{attempt.name}: "
        process.send("run", plain)
        with self._changed:
            asked = self._asked if self._is_asked(attempt.name) else None
        if asked is not None:  # just before it began
            process.send("stop", asked[0], asked[1].value, asked[2])
        while (message := self._next(process, _LOOK_EVERY_S)) is not None:
            if message:
                end = running.hear(message)
                if end is not None:
                    process.output.settle()
                    process.output.prefix = ""
                    return end
            if self._is_overdue(attempt.name):
                process.kill()
        self._end(process)
        why = self._why_it_ended(process, attempt.name)
        if not running.began and why is None:
            return None
        return running.died(process.exit_code, process.how, why)

    def _end(self, process: WorkerProcess, *, kill: bool = False) -> None:
        """Have no process any more."""
        if kill:
            process.kill()
        process.served.wait()
        with self._changed:
            if self._process is process:
                self._process = None
            already, process.closed = process.closed, True
        if not already:
            process.close()

    def _next(
        self, process: WorkerProcess, timeout_s: float | None = None
    ) -> tuple[Any, ...] | None:
        """Return what the process says, ``()`` after a while, ``None`` if it has ended."""
        message = process.next(timeout_s)
        return () if message and self._hear_of_loaders(process, *message) else message

    def _is_asked(self, name: str) -> bool:
        """Return whether the attempt was asked to end. Under the lock."""
        return self._asked is not None and self._asked[0] == name

    def _hear_of_loaders(self, process: WorkerProcess, kind: str, *content: Any) -> bool:
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
        with self._changed:
            late = time.monotonic() - self._asked_at > self._kill_after_s
            return self._is_asked(name) and late

    def _why_it_ended(self, process: WorkerProcess, name: str) -> tuple[EndKind, str] | None:
        """Return how the attempt was asked to end, if that is why its process has ended."""
        with self._changed:
            if process.exit_code in _SESSION_SIGNALS:
                self._changed.wait_for(
                    lambda: self._closed or self._is_asked(name), _STOP_COMES_WITHIN_S
                )
            elif not process.killed:
                return None
            if self._asked is not None and self._is_asked(name):
                _, kind, why = self._asked
                return kind, f"{why}; {_WAS_KILLED}" if process.killed else why
            return (EndKind.INTERRUPTED, "the sweep was closed") if self._closed else None
