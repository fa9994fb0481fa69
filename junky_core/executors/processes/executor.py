"""Attempts in worker processes of this machine: the executor for ``executor=processes``."""

from __future__ import annotations

import contextlib
import math
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from junky_core.devices import SlotSpec
from junky_core.executors.contract import (
    AttemptRunner,
    AttemptSettings,
    HearingRunner,
    Link,
)
from junky_core.executors.kinds import KILL_AFTER_S
from junky_core.executors.processes.built_loaders import BuiltLoaders
from junky_core.executors.processes.fork_server import ForkServer
from junky_core.executors.processes.main_globals import packed_globals
from junky_core.executors.processes.main_module import preparation
from junky_core.executors.processes.process_worker import ProcessWorker
from junky_core.executors.processes.sending import packed
from junky_core.executors.processes.visible_devices import worker_devices
from junky_core.executors.processes.worker import ProcessSetup, torch_state
from junky_core.executors.slots import torch_threads
from junky_core.executors.threads import ThreadExecutor
from junky_core.job.scopes import JobScope
from junky_core.jobs import JobResult

__all__ = ["ProcessExecutor"]


class ProcessExecutor:
    """Slots whose jobs run in processes of their own, one for each slot.

    Args:
        slots: The seats.
        runner: What an attempt does. It is sent to each worker.
        settings: What all attempts share.
        link: The way up to the engine.
        preload: Modules that workers find imported, see :class:`ForkServer`.
        kill_after_s: Seconds after which an attempt that was asked to end is killed.
        server: Starts the workers. By default a server of its own, which ends with it.

    Attributes:
        threads: Torch threads of each slot, ``None`` if torch is left alone.
        wait_s: 0, because no further slot opens by itself.
        kill_after_s: The argument, ``None`` if it is infinite.

    Raises:
        ConfigError: The runner cannot be sent; says which part of it.
        DeviceError: A slot's device cannot be made the only one that a worker sees.
    """

    wait_s = 0.0

    def __init__(
        self,
        slots: Sequence[SlotSpec],
        runner: AttemptRunner,
        settings: AttemptSettings,
        link: Link,
        *,
        preload: Sequence[str] = (),
        kill_after_s: float = KILL_AFTER_S,
        server: ForkServer | None = None,
    ) -> None:
        self.threads = torch_threads(len(slots), settings.threads_per_slot, settings.seed)
        self._link = link
        self._on_gpus = any(slot.device != "cpu" for slot in slots)
        self.kill_after_s = kill_after_s if math.isfinite(kill_after_s) else None
        self._kill_after_s = kill_after_s
        self._built = BuiltLoaders()
        self._hears = runner if isinstance(runner, HearingRunner) else None
        self._here = ThreadExecutor(slots[:1], runner, settings, link)  # for scope_of
        self._server = server or ForkServer(preload)
        self._owns_server = server is None
        found_by_name: list[Any] = []
        packed_runner = packed(runner, "what jobs run", found_by_name)
        self._setup = ProcessSetup(
            prepared=preparation(),
            environment={},
            slot=slots[0],
            runner=packed_runner,
            main_globals=packed_globals(found_by_name),
            settings=replace(settings, threads_per_slot=self.threads),
            direction=link.best.direction,
            torch_state=torch_state(),
            shared=self._server.folder / uuid.uuid4().hex,
        )
        self._lock = threading.Lock()  # guards _workers
        self._workers: dict[int, ProcessWorker] = {}  # by slot
        for slot in slots:
            self.worker(slot)

    @contextlib.contextmanager
    def running(self, slots: int) -> Iterator[None]:  # noqa: ARG002 - the executor's contract
        """Let jobs run inside the ``with`` block."""
        self._server.start()
        yield

    def worker(self, slot: SlotSpec) -> ProcessWorker:
        """Return the worker of ``slot``; a new one for a slot that is not known yet."""
        with self._lock:
            worker = self._workers.get(slot.index)
            if worker is None:
                worker = self._workers[slot.index] = ProcessWorker(
                    self._setup_of(slot),
                    self._link,
                    self._server,
                    self._kill_after_s,
                    self._built,
                    self._hears,
                )
            return worker

    def _setup_of(self, slot: SlotSpec) -> ProcessSetup:
        environment, device = worker_devices(
            slot.device, self._setup.prepared["environment"], hide=self._on_gpus
        )
        return replace(self._setup, slot=replace(slot, device=device), environment=environment)

    def scope_of(self, result: JobResult) -> JobScope:
        """Return a scope like that of a job which is over, to do something for it once more."""
        return self._here.scope_of(result)

    def close(self) -> None:
        """End all worker processes."""
        with self._lock:
            workers = list(self._workers.values())
        for worker in workers:
            worker.ask_to_close()
        for worker in workers:
            worker.close()
        for path in self._server.folder.glob(f"{self._setup.shared.name}*"):
            path.unlink(missing_ok=True)
        if self._owns_server:
            self._server.close()
        self._here.close()
