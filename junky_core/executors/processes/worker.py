"""What runs in a worker process: the attempts of one slot, one at a time.

    driver                            worker
    setup, once                  ───> becomes like the driver's process, imports the script
    open                         ───> builds the slot's loaders
                                 <─── ready, or why not
    run: an attempt              ───> main thread: the same worker as on threads
                                 <─── begun
      events, warnings           <───
      would this score lead?     <───
      yes or no                  ───>
      the weights, in memory     <───
      .. that both share
      how they stand             ───>
    stop                         ───> reading thread: asks the attempt to end
                                 <─── how the attempt ended
    close                        ───> ends, as a script ends
    nothing more: it is gone          kills its own group (the fork server does so as well)

A message is a tuple: a kind and what belongs to it. Weights are written once, to a
file that is only memory where the system has such files; the driver gets the open
file. So training waits for no disk and no copy through the socket, and once the
driver has the file it no longer matters whether the worker lives.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import os
import queue
import signal
import socket
import sys
import tempfile
import threading
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from junky_core.accelerators import start
from junky_core.devices import SlotSpec
from junky_core.errors import ConfigError
from junky_core.events import Event
from junky_core.executors.contract import AttemptEnd, AttemptSettings, Worker
from junky_core.executors.messages import attempt_of, plain_end
from junky_core.executors.processes.channel import Channel
from junky_core.executors.processes.machine_data import MachineData
from junky_core.executors.processes.main_globals import set_globals
from junky_core.executors.processes.main_module import import_main
from junky_core.executors.processes.output import flush_output
from junky_core.executors.processes.sending import dumps, loads
from junky_core.executors.threads import ThreadExecutor
from junky_core.job.failures import describe
from junky_core.job.forks import OwnProcess
from junky_core.job.offers import Standing
from junky_core.job.torch_state import default_device
from junky_core.job.weights import weights_to_offer
from junky_core.jobs import Direction, EndKind
from junky_core.values.calls import Call
from junky_core.values.user_text import error_line

__all__ = ["ProcessSetup", "main"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSetup:
    """What a worker process is told first.

    Attributes:
        prepared: See :func:`junky_core.executors.processes.main_module.preparation`.
        environment: Variables for this worker alone.
        slot: Its slot; the device is the one that it has in this process.
        runner: What an attempt does, pickled: it may need the script.
        main_globals: See :func:`~junky_core.executors.processes.main_globals.packed_globals`.
        settings: What all attempts share.
        direction: Of scores.
        torch_state: See :func:`torch_state`.
        shared: Where files of data for all workers begin, see :class:`MachineData`.
    """

    prepared: dict[str, Any]
    environment: dict[str, str]
    slot: SlotSpec
    runner: bytes
    main_globals: bytes
    settings: AttemptSettings
    direction: Direction
    torch_state: dict[str, Any]
    shared: Path


def main(_given: object, connection: int, stdout: int, stderr: int) -> None:
    """Do what the driver says until it says that it is enough."""
    output = _Output(stdout, stderr)
    faulthandler.enable()  # after a segfault, the driver's user sees where it came from
    channel = Channel(socket.socket(fileno=connection))
    setup: ProcessSetup = loads(channel.receive() or b"")
    link = _Link(channel, setup.direction, output)
    os.environ.clear()
    os.environ.update(setup.prepared["environment"] | setup.environment)
    trouble = _start_device(setup)
    if trouble:
        link.send("ready", trouble)
        return
    torch.set_num_threads(setup.torch_state["threads"])  # for the script; the server has one
    try:
        import_main(setup.prepared)
        os.environ.update(setup.environment)
        set_torch_state(setup.torch_state, setup.slot.device)
        set_globals(setup.main_globals)
        runner = loads(setup.runner)
    except BaseException as error:  # noqa: BLE001 - the script's own
        link.send("refused", _why_not(error))
        return
    executor = ThreadExecutor(
        [setup.slot],
        runner,
        setup.settings,
        link,
        shared=MachineData(setup.settings.seed, setup.shared, link.warn),
        built_elsewhere=link.built_elsewhere,
    )
    worker = executor.worker(setup.slot)
    worker.slot.loader_sets.on_built = link.built
    link.start(worker)
    with executor.running(1), worker.attached():
        link.serve(worker)
    executor.close()


def _start_device(setup: ProcessSetup) -> str:
    """Start the device's runtime, which reads the environment once: the script may change it.

    Return why it cannot be started, ``""`` if it was.
    """
    try:
        start(torch.device(setup.slot.device).type)
    except Exception as error:  # noqa: BLE001 - a backend may raise its own
        chosen = ", ".join(f"{name}={value}" for name, value in setup.environment.items())
        return f"its device cannot be used in a worker process ({chosen}): {error_line(error)}"
    return ""


def torch_state() -> dict[str, Any]:
    """Return what the script may have set for its whole process, also under its guard."""
    return {
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "device": default_device(),
        "deterministic": torch.get_deterministic_debug_mode(),
        "precision": torch.get_float32_matmul_precision(),
        "anomaly": (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        "cudnn": {
            name: getattr(torch.backends.cudnn, name)
            for name in ("enabled", "benchmark", "deterministic", "allow_tf32")
        },
    }


def set_torch_state(state: dict[str, Any], device: str) -> None:
    """Set in this process what :func:`torch_state` found in another.

    Args:
        state: What it found.
        device: The slot's device in this process, instead of the default one of its type.
    """
    default = state["device"]
    own = default is not None and default.type == torch.device(device).type
    torch.set_default_device(device if own else default)
    torch.set_num_threads(state["threads"])
    torch.set_default_dtype(state["dtype"])
    torch.set_deterministic_debug_mode(state["deterministic"])
    torch.set_float32_matmul_precision(state["precision"])
    torch.autograd.set_detect_anomaly(*state["anomaly"])
    for name, value in state["cudnn"].items():
        setattr(torch.backends.cudnn, name, value)


def _executed(worker: Worker, plain: dict[str, Any]) -> AttemptEnd:
    try:
        attempt = attempt_of(plain, loads)
    except Exception as error:  # noqa: BLE001 - of a parameter that cannot be loaded here
        failure = describe(error)
        return AttemptEnd(
            EndKind.ERROR,
            0.0,
            score=plain["score"],
            error=failure.error,
            traceback=failure.traceback,
            exception=failure.exception,
            location=failure.location,
        )
    return worker.execute(attempt)


class _Output:
    """The worker's standard output and error: descriptors 1 and 2, and the streams on them."""

    def __init__(self, stdout: int, stderr: int) -> None:
        self._given = {1: stdout, 2: stderr}
        self.restore()
        for name, descriptor in (("stdout", 1), ("stderr", 2)):
            stream = io.TextIOWrapper(
                io.FileIO(descriptor, "w", closefd=False),
                encoding="utf-8",
                errors="backslashreplace",
                line_buffering=True,
                write_through=True,
            )
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)

    def restore(self) -> None:
        """Undo what a job did to the descriptors: it may have closed or redirected them."""
        flush_output()
        for descriptor, given in self._given.items():
            with contextlib.suppress(OSError):  # it has closed these as well
                os.dup2(given, descriptor)


def _why_not(error: BaseException) -> str:
    if isinstance(error, ConfigError):
        return str(error)
    lines = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return f"the worker process could not load the script or what it was sent:\n{lines.rstrip()}"


class _Offers:
    """Where jobs offer their models: the driver has the best one."""

    def __init__(self, link: _Link, direction: Direction) -> None:
        self.direction = direction
        self._link = link

    def offer(
        self, job: int, name: str, score: float, model: Any, *, check: bool = False
    ) -> Standing:
        """Send the weights if the score would lead; see ``BestModel.offer``."""
        standing = self._link.would_lead(job, score)
        weights = weights_to_offer(model, leads=standing.leads, check=check)
        return standing if weights is None else self._link.take(job, name, score, weights)


class _Link:
    """The way up to the driver."""

    def __init__(self, channel: Channel, direction: Direction, output: _Output) -> None:
        self.best = _Offers(self, direction)
        self._channel = channel
        self._output = output
        self._own = OwnProcess()
        self._asking = threading.Lock()  # held from a question to its answer
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._inbox: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()

    def send(self, kind: str, *content: Any, file: int | None = None) -> None:
        """Tell the driver, and send it an open file; nothing happens in a forked child."""
        if self._own:
            self._channel.send(dumps((kind, *content)), file)

    def start(self, worker: Worker) -> None:
        """Read what the driver says, in a thread."""
        threading.Thread(target=self._read, args=(worker,), name="junky-link", daemon=True).start()

    def serve(self, worker: Worker) -> None:
        """Do what the driver says, in the main thread."""
        while True:
            kind, *content = self._inbox.get()
            if kind == "close":
                return
            if kind == "open":
                self.send("ready", worker.open())
            else:
                self.send("begun")
                plain = plain_end(_executed(worker, content[0]), dumps, loads)
                self._output.restore()
                self.send("end", plain)

    def emit(self, event: Event) -> None:
        """Let the driver hear of an event."""
        self.send("emit", event)

    def warn(self, message: str) -> None:
        """Let the driver warn the user."""
        self.send("warn", message)

    def open_slot(self, slot: SlotSpec) -> None:
        """Do nothing: a worker opens no slots."""

    def close_slot(self, slot: SlotSpec, reason: str) -> None:
        """Do nothing: a worker closes no slots."""

    def would_lead(self, job: int, score: float) -> Standing:
        """Return how a model of this score would stand."""
        standing: Standing = self._ask("would_lead", job, score)
        return standing

    def built(self, call: Call) -> None:
        """Let the driver know of loaders that this slot has built."""
        self.send("built", call.digest())

    def built_elsewhere(self, call: Call) -> bool:
        """Return whether another slot has built these loaders."""
        return bool(self._ask("built_elsewhere", call.digest()))

    def take(self, job: int, name: str, score: float, weights: dict[str, Any]) -> Standing:
        """Send a copy of a model's weights; return how it stands once they have arrived."""
        with _memory_file() as file:
            torch.save(weights, file)
            file.flush()
            standing: Standing = self._ask("take", job, name, score, file=file.fileno())
        return standing

    def _ask(self, *question: Any, file: int | None = None) -> Any:
        with self._asking:
            self.send(*question, file=file)
            return self._answers.get()

    def _read(self, worker: Worker) -> None:
        try:
            while True:
                kind, *content = loads(self._channel.receive() or b"")
                if kind == "answer":
                    self._answers.put(content[0])
                elif kind == "stop":
                    name, end, message = content
                    worker.stop(name, EndKind(end), message)
                else:
                    self._inbox.put((kind, *content))
        except (EOFError, OSError):  # the driver is gone
            with contextlib.suppress(OSError):
                os.killpg(os.getpid(), signal.SIGKILL)
            os._exit(1)


def _memory_file() -> IO[bytes]:
    """Return an open file without a name, in memory if the system has such files."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("weights"), "w+b")
    return tempfile.TemporaryFile()
