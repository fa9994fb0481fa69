"""The one best model over all jobs of a sweep, on disk.

A job that beats the best pays for a copy of its weights and goes on; a writer
thread puts the copy on disk. While it writes, later and better models only
replace the one that waits, so memory holds at most three copies, and a burst
of improvements costs one or two writes.

    offered ──copy──> waiting (the newest best) ──writer──> temp file ──rename──> on disk

The file is replaced as a whole: a reader, or a crash at any instant, sees the
old one or the new one. Which score belongs to it is told twice, by
``BestSaving`` just before the rename and ``BestSaved`` just after, both with
the content's SHA-256, so that whoever reads the journal after a crash knows
which of the two it was.
"""

from __future__ import annotations

import copy
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from junky_core.atomic import KeptFile, write_atomically
from junky_core.errors import ConfigError, ModelError
from junky_core.events import BestSaved, BestSaving, Event, Notice
from junky_core.jobs import rank_key
from junky_core.scopes import outside_scopes

__all__ = ["Best", "BestModel", "Standing", "copy_weights", "unwrapped"]

# Modules that hold the model as `module` and put that before every name in the state dict.
_WRAPPERS = (
    torch.nn.DataParallel,
    torch.nn.parallel.DistributedDataParallel,
    torch.optim.swa_utils.AveragedModel,
)


@dataclass(frozen=True, slots=True)
class Best:
    """A best model: whose it is, its ``score``, and its place in the order of saves."""

    job: int
    name: str
    score: float
    serial: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """How an offered score stands: whether it leads, and who leads now."""

    leads: bool
    best: Best | None
    serial: int  # of the save it led to; 0 for none


def copy_weights(model: Any) -> dict[str, Any]:
    """Return a copy of the model's state dict on the CPU; tied weights stay tied.

    Args:
        model: A module, or anything with ``state_dict()``. Of a wrapper it is
            the model inside, see :func:`unwrapped`.

    Raises:
        ModelError: It has no ``state_dict()``.
    """
    _check_model(model)
    copies: dict[Any, torch.Tensor] = {}

    def copied(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            if value.layout != torch.strided or value.is_quantized or value.is_meta:
                return value.detach().cpu().clone()
            storage = value.untyped_storage()
            key = (
                storage.data_ptr(),
                value.storage_offset(),
                value.shape,
                value.stride(),
                value.dtype,
            )
            if value.numel() == 0 or key not in copies:
                # clone() keeps strides; for a view it copies what is seen, not the whole storage.
                fresh = value.detach().to("cpu", copy=True)
                if value.numel() == 0:
                    return fresh
                copies[key] = fresh
            return copies[key]
        return copy.deepcopy(value)

    state = unwrapped(model).state_dict()
    result: OrderedDict[str, Any] = OrderedDict()
    for name, value in state.items():
        result[name] = copied(value)
    metadata = getattr(state, "_metadata", None)
    if metadata is not None:
        result._metadata = copy.copy(metadata)  # type: ignore[attr-defined]  # noqa: SLF001 - load_state_dict reads it
    return result


def unwrapped(model: Any) -> Any:
    """Return the model inside ``torch.compile``, ``DataParallel`` and the like.

    What ``make_model_method`` returns can then load the weights, whatever the
    training wrapped round its model.

    >>> model = torch.nn.Linear(1, 1)
    >>> unwrapped(torch.nn.DataParallel(model)) is model
    True
    """
    while True:
        compiled = getattr(model, "_orig_mod", None)  # torch.compile's OptimizedModule
        if isinstance(compiled, torch.nn.Module):
            model = compiled
        elif isinstance(model, _WRAPPERS):
            model = model.module
        else:
            return model


def _check_model(model: Any) -> None:
    if not callable(getattr(model, "state_dict", None)):
        raise ModelError(
            "save_best needs a torch.nn.Module, it was given "
            f"{type(model).__name__}: {_short(model)}"
        )


class BestModel:
    """Keeps the best model of a sweep in one file.

    Thread-safe. ``emit`` is called from the writer thread.

    Args:
        path: The file. Its folder is made if need be.
        direction: ``"maximize"`` or ``"minimize"``.
        emit: Where its events go.

    Raises:
        ConfigError: The direction is neither, or the folder cannot be written.
    """

    def __init__(
        self,
        path: Path | str,
        direction: str = "maximize",
        emit: Callable[[Event], None] = lambda _event: None,
    ) -> None:
        if direction not in ("maximize", "minimize"):
            raise ConfigError(f"direction is {direction!r}; it must be 'maximize' or 'minimize'")
        self.path = Path(path).absolute()  # jobs may change the working folder
        self.direction = direction
        self.emit = emit
        self._changed = threading.Condition()  # guards all below
        self._best: Best | None = None  # the leader, on disk or on its way there
        self._waiting: tuple[Best, dict[str, Any]] | None = None
        self._saved: Best | None = None
        self._writing = False
        self._trouble = ""  # the last write's error, said once
        self._retry = False
        self._on_saved: list[tuple[int, Callable[[], None]]] = []
        self._writer: threading.Thread | None = None
        self._closed = False
        self._kept = KeptFile(self.path)  # brings the file back if its folder is deleted
        self._kept_lock = threading.Lock()  # guards _kept

    @property
    def best(self) -> Best | None:
        """The leader; after :meth:`flush` returned ``True`` it is the one on disk."""
        with self._changed:
            return self._best

    @property
    def saved(self) -> Best | None:
        """The one on disk."""
        with self._changed:
            return self._saved

    def check_place(self) -> None:
        """Make sure, as far as a look can tell, that the file can be written; touch nothing.

        Raises:
            ConfigError: It cannot; says why.
        """
        if not self.path.name or self.path.is_dir():
            raise ConfigError(f"best_model_file_name names a folder, not a file: {self.path}")
        there = next(folder for folder in self.path.parents if os.path.lexists(folder))
        if not there.is_dir():
            problem = f"{there} is no folder"
        elif not os.access(there, os.W_OK | os.X_OK):
            problem = f"{there} is not writable"
        else:
            return
        raise ConfigError(
            f"the best model cannot be written to {self.path}: {problem}. "
            "Choose a folder that can be written in best_model_file_name"
        )

    def check_folder(self) -> None:
        """Make sure that the file can be written, leaving nothing behind.

        Raises:
            ConfigError: It cannot; says why.
        """
        if not self.path.name or self.path.is_dir():
            raise ConfigError(f"best_model_file_name names a folder, not a file: {self.path}")
        made = [folder for folder in self.path.parents if not folder.exists()]
        probe = self.path.with_name(f".{self.path.name}.probe")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise ConfigError(
                f"the best model cannot be written to {self.path}: {error}. "
                "Choose a folder that can be written in best_model_file_name"
            ) from error
        finally:
            for folder in made:  # innermost first; the first save makes them again
                try:
                    folder.rmdir()
                except OSError:
                    break

    def restore(self, job: int, name: str, score: float) -> None:
        """Take the file on disk as the best so far (a resumed sweep)."""
        with self._changed:
            self._best = self._saved = Best(job, name, score)
        with self._kept_lock:
            self._kept.hold()

    def rename(self, job: int, name: str) -> None:
        """Tell under which name the job that leads is listed (its last attempt's)."""
        with self._changed:
            if self._best is not None and self._best.job == job:
                self._best = Best(job, name, self._best.score, self._best.serial)

    def offer(self, job: int, name: str, score: float, model: Any) -> Standing:
        """Copy the model's weights if ``score`` leads; the lower job number wins ties.

        Waits for nothing but the copy itself.

        Raises:
            ModelError: It has no ``state_dict()``, whether it leads or not.
        """
        _check_model(model)
        with self._changed:
            if not self._leads(job, score):
                return Standing(leads=False, best=self._best, serial=0)
        weights = copy_weights(model)
        with self._changed:
            if not self._leads(job, score):  # another job was faster
                return Standing(leads=False, best=self._best, serial=0)
            serial = 1 + (self._best.serial if self._best is not None else 0)
            self._best = Best(job, name, score, serial)
            self._waiting = (self._best, weights)
            self._retry = True
            if self._writer is None:
                self._writer = threading.Thread(
                    target=self._write_all, name="junky-best-model", daemon=True
                )
                with outside_scopes():  # its starter is a job's thread; it belongs to no job
                    self._writer.start()
            self._changed.notify_all()
            return Standing(leads=True, best=self._best, serial=serial)

    def when_saved(self, serial: int, callback: Callable[[], None]) -> None:
        """Call ``callback`` once save ``serial``, or a better one, is on disk.

        Called at once, in this thread, if it already is; else in the writer's.
        """
        with self._changed:
            if serial > (self._saved.serial if self._saved is not None else 0):
                self._on_saved.append((serial, callback))
                return
        callback()

    def flush(self) -> bool:
        """Wait until what waits is written; return whether the best is on disk.

        A write that failed before is tried once more; a file that was deleted
        after its save is written anew.
        """
        with self._changed:
            self._retry = True
            self._changed.notify_all()
            while self._writing or (self._waiting is not None and self._retry):
                if self._writer is None:
                    break
                self._changed.wait(0.5)  # bounded: a signal must get through to the main thread
            written = self._waiting is None
        return written and self._bring_back()

    def close(self) -> None:
        """End the writer thread. What could not be written by now is given up."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        with self._kept_lock:
            self._kept.release()

    def _leads(self, job: int, score: float) -> bool:
        if not math.isfinite(score):
            return False
        if self._best is None:
            return True
        mine = rank_key(score, job, self.direction)
        return mine < rank_key(self._best.score, self._best.job, self.direction)

    def _write_all(self) -> None:
        while True:
            with self._changed:
                while (self._waiting is None or not self._retry) and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                assert self._waiting is not None
                best, weights = self._waiting
                self._waiting, self._writing, self._retry = None, True, False
            error = self._write(best, weights)
            with self._changed:
                first = bool(error) != bool(self._trouble)
                self._trouble = error
                ready: list[Callable[[], None]] = []
                if not error:
                    self._saved = best
                    ready = [call for serial, call in self._on_saved if serial <= best.serial]
                    self._on_saved = [entry for entry in self._on_saved if entry[0] > best.serial]
                elif self._waiting is None:
                    self._waiting = (best, weights)  # tried again with the next save
                del weights
            if first:
                self.emit(self._notice(error))
            for call in ready:
                call()
            with self._changed:  # only now: who flushes must find the callbacks done
                self._writing = False
                self._changed.notify_all()

    def _write(self, best: Best, weights: Mapping[str, Any]) -> str:
        """Write one model; return what went wrong, ``""`` if nothing."""
        facts: dict[str, Any] = {
            "job": best.job,
            "name": best.name,
            "score": best.score,
            "path": str(self.path),
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            sha256 = write_atomically(
                self.path,
                lambda file: torch.save(weights, file),
                before_replace=lambda digest: self.emit(BestSaving(sha256=digest, **facts)),
            )
        except Exception as error:  # noqa: BLE001 - a failed save must not end training
            return f"{type(error).__name__}: {error}"
        with self._kept_lock:
            self._kept.hold()
        self.emit(BestSaved(sha256=sha256, **facts))
        return ""

    def _bring_back(self) -> bool:
        try:
            with self._kept_lock:
                if self._kept.bring_back():
                    self.emit(
                        Notice(
                            level="warning",
                            message=f"the best model had been deleted; it is back: {self.path}",
                        )
                    )
        except OSError as error:
            self.emit(self._notice(f"{type(error).__name__}: {error}"))
            return False
        return True

    def _notice(self, error: str) -> Notice:
        if not error:
            return Notice(level="info", message=f"the best model is on disk again: {self.path}")
        return Notice(
            level="error",
            message=f"THE BEST MODEL COULD NOT BE SAVED to {self.path}: {error}. Training goes on; "
            "the file there, if any, is the last one that was saved whole. "
            "It is tried again with the next save and at the end",
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "..."
