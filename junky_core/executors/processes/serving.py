"""The server that forks worker processes: what runs in it.

It has one thread, so that a forked child finds no lock held, and imports
nothing of the script, which may use a GPU or start threads.

    told by the driver         does
    fork, with descriptors     forks a worker, and answers with its number; with its exit
    .. for the worker          status once it has ended
    kill                       kills the worker's process group
    nothing more: it is gone   kills all groups, and ends

A worker's group is killed also when the worker has ended by itself, for children that it left.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import torch

from junky_core.accelerators import in_use
from junky_core.errors import ConfigError
from junky_core.executors.processes.output import flush_output
from junky_core.job.forks import OwnProcess
from junky_core.job.seeding import installed_streams, look_at_operators

__all__ = ["leave", "main"]

# What torch imports when it is first used: at a worker's first step, it would take a second.
_LATE_IMPORTS = (
    "torch",
    "torch._dynamo",
    "torch.utils.data",
    "torch.utils.serialization",
    "junky_core.autotrain",
    "junky_core.executors.processes.worker",
)
_LOOK_EVERY_MS = 500  # for a driver that is gone, where children it forked keep its socket open
_MOST_DESCRIPTORS = 16
_SESSION_SIGNALS = (signal.SIGTERM, signal.SIGHUP)

_own = OwnProcess()  # the server, or a worker
_status = 0  # with which it ends
_kept: list[object] = []  # what a worker never frees


def main(told: Mapping[str, Any]) -> None:
    """Serve until the driver is gone; in a forked child, do the worker's work.

    Args:
        told: ``socket``, a descriptor; ``driver``, a process number; ``preload``, module names;
            ``folder``, to be removed at the end.
    """
    global _status
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for signum in _SESSION_SIGNALS:  # it must be there to end the workers: the driver decides
        signal.signal(signum, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    channel = socket.socket(fileno=told["socket"])
    with contextlib.ExitStack() as stack:
        with _ending_with(told["driver"]):
            problem = _import_all(told["preload"])
            # Each worker does this, and finds it done: it writes to 60 MB of what they share.
            with contextlib.suppress(ConfigError):  # each of them says so
                stack.enter_context(installed_streams(seeded=False))
                look_at_operators()
        with contextlib.suppress(BrokenPipeError):
            channel.send(json.dumps({"problem": problem}).encode())
        gc.collect()
        gc.freeze()  # a collection in a child would otherwise write to every page it shares
        work = _Server(channel, told["driver"]).serve()
        if work is not None:
            _kept.append(stack.pop_all())  # undoing it would copy shared memory
            try:
                work()
            except BaseException:
                _status = 1
                raise
        else:
            shutil.rmtree(told["folder"], ignore_errors=True)


def leave() -> None:
    """End the process at once, when all threads and ``atexit`` functions have ended.

    The interpreter would free each object, and so copy all memory that a worker shares
    with the server: a second for each worker.
    """
    if not _own:  # a child that a job has forked
        return
    with contextlib.suppress(Exception):
        flush_output()
    os._exit(_status)


@contextlib.contextmanager
def _ending_with(driver: int) -> Iterator[None]:
    """End this process if the driver does inside the ``with`` block: it takes seconds.

    By a timer, for a thread would be there at the first fork.
    """

    def look(*_: object) -> None:
        if os.getppid() != driver:
            os._exit(1)

    before = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, _LOOK_EVERY_MS / 1000, _LOOK_EVERY_MS / 1000)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _import_all(preload: Sequence[str]) -> str:
    """Import what workers need; return why a module that the user named cannot be."""
    for name in _LATE_IMPORTS:
        importlib.import_module(name)
    torch.set_num_threads(1)  # OpenMP's threads would be missing in a forked child, which waits
    for name in preload:
        try:
            importlib.import_module(name)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the user's to know
            last = traceback.format_exception_only(type(error), error)[-1].strip()
            return f"{name!r} could not be imported: {last}"[:2000]
        if in_use():
            return f"{name!r} uses a GPU when it is imported, so worker processes could use none"
    return ""


class _Server:
    """Forks, kills and reaps."""

    def __init__(self, channel: socket.socket, driver: int) -> None:
        self._channel = channel
        self._driver = driver
        self._workers: dict[int, Connection] = {}  # by number: where its exit status goes
        self._wake, self._wakes = os.pipe()
        for end in (self._wake, self._wakes):
            os.set_blocking(end, False)

    def serve(self) -> Callable[[], None] | None:
        """Return when the driver is gone; or, in a child, with its work."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wakes, warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while os.getppid() == self._driver:
            ready = dict(poll.poll(_LOOK_EVERY_MS))
            if self._wake in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake, 1 << 16)
                self._reap()
            if self._channel.fileno() in ready:
                try:
                    message, descriptors, _, _ = socket.recv_fds(
                        self._channel, 1 << 16, _MOST_DESCRIPTORS
                    )
                except ConnectionError:
                    break
                if not message:
                    break
                work = self._obey(json.loads(message), descriptors)
                if work is not None:
                    return work
        for pid in self._workers:
            _kill_group(pid)
        for pid in self._workers:
            os.waitpid(pid, 0)
        return None

    def _obey(self, told: Mapping[str, Any], descriptors: list[int]) -> Callable[[], None] | None:
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        if told["do"] == "kill":
            if told["pid"] in self._workers:
                _kill_group(told["pid"])
            return None
        status = Connection(descriptors[0], readable=False)
        with warnings.catch_warnings():  # of the threads of a library's own, which end at a fork
            warnings.simplefilter("ignore", DeprecationWarning)
            problem = ""
            try:
                pid = os.fork()
            except OSError as error:  # no process, or no memory for one
                pid, problem = -1, str(error)
        if pid == 0:
            status.close()
            self._become_worker()
            return lambda: _call(told["target"], told["given"], descriptors[1:])
        for descriptor in descriptors[1:]:
            os.close(descriptor)
        if pid > 0:
            with contextlib.suppress(OSError):
                os.setpgid(pid, pid)
            self._workers[pid] = status
        with contextlib.suppress(OSError):
            status.send_bytes(json.dumps({"pid": pid, "problem": problem}).encode())
        if pid < 0:
            status.close()
        return None

    def _become_worker(self) -> None:
        """Leave all that is the server's, in the child."""
        global _own
        _own = OwnProcess()
        with contextlib.suppress(OSError):  # the server does it as well: who is first
            os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        for signum in (signal.SIGCHLD, *_SESSION_SIGNALS):
            signal.signal(signum, signal.SIG_DFL)
        self._channel.close()
        for status in self._workers.values():
            status.close()
        self._workers.clear()
        os.close(self._wake)
        os.close(self._wakes)
        # Python's own generator does this by itself. CUDA's starts no runtime here.
        torch.seed()
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            numpy.random.seed()

    def _reap(self) -> None:
        """Report the workers that have ended."""
        for pid in list(self._workers):
            # Its number is free for others only once it was waited for: until then, kill.
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                continue
            _kill_group(pid)
            _, status = os.waitpid(pid, 0)
            with contextlib.suppress(OSError), self._workers.pop(pid) as report:
                report.send_bytes(str(os.waitstatus_to_exitcode(status)).encode())


def _kill_group(pid: int) -> None:
    for kill in (os.killpg, os.kill):  # a job may have moved its process to another group
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _call(target: str, given: object, descriptors: Sequence[int]) -> None:
    module, _, name = target.partition(":")
    getattr(importlib.import_module(module), name)(given, *descriptors)
