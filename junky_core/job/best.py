"""The one best model over all jobs of a sweep, on disk.

A job that beats the best copies its weights and continues; a writer thread puts
the copy on disk. While it writes, better models only replace the one that waits.
So memory holds at most three copies, and a burst of improvements costs one or two
writes.

    offered ──copy──> waiting (the newest best) ──writer──> temp file ──rename──> on disk

The file is replaced as a whole: a reader, or a crash at any instant, sees the
old one or the new one. Its score is recorded twice, by ``BestSaving`` just before
the rename and by ``BestSaved`` just after. Both have the content's SHA-256, so the
journal shows after a crash which file it was.
"""

from __future__ import annotations

import contextlib
import functools
import math
import mmap
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import torch

from junky_core.errors import ConfigError, ForkedChildError
from junky_core.events import BestSaved, BestSaving, Event, Notice, NoticeLevel
from junky_core.files import FileContent, KeptFile, write_atomically
from junky_core.job.forks import OwnProcess
from junky_core.job.offers import Best, Standing, Weights
from junky_core.job.scopes import outside_scopes
from junky_core.job.weights import weights_to_offer
from junky_core.jobs import Direction, rank_key
from junky_core.paths import remove_empty, try_to_write
from junky_core.values.user_text import error_line

__all__ = ["BestModel"]

# torch.save imports it when it is first called. The writer's thread must not: a child that a job
# forks at that time could never import it.
with contextlib.suppress(ImportError):  # torch before 2.6
    import torch.utils.serialization.config


class BestModel:
    """Keeps the best model of a sweep in one file.

    Thread-safe. ``emit`` is called from the writer thread.

    Args:
        path: The file. Its folder is created if needed.
        direction: Whether higher or lower scores are better.
        emit: Where its events go.
    """

    def __init__(
        self,
        path: Path | str,
        direction: Direction = Direction.MAXIMIZE,
        emit: Callable[[Event], None] = lambda _event: None,
    ) -> None:
        self.path = Path(path).absolute()  # jobs may change the working folder
        self.direction = direction
        self._own = OwnProcess()
        self.emit = emit
        self._changed = threading.Condition()  # guards all below
        self._best: Best | None = None  # the leader, on disk or on its way there
        self._waiting: tuple[Best, Weights] | None = None
        self._saved: Best | None = None
        self._saved_file = FileContent()
        self._writing = False
        self._trouble = ""  # the last write's error, reported once
        self._problem = ""
        self._lost = ""  # how the file on disk was lost, until the next save
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

    @property
    def problem(self) -> str:
        """What the last :meth:`flush` found wrong: why the best is not on disk, and what is."""
        with self._changed:
            return self._problem

    def check_folder(self) -> None:
        """Check that the file can be written, leaving nothing behind.

        Raises:
            ConfigError: It cannot; says why.
        """
        if not self.path.name or self.path.is_dir():
            raise ConfigError(f"best_model_file_name names a folder, not a file: {self.path}")
        if self.path.exists() and not self.path.is_file():
            raise ConfigError(f"best_model_file_name names a device, not a file: {self.path}")
        made = [folder for folder in self.path.parents if not folder.exists()]
        probe = self.path.with_name(f".{self.path.name}.probe")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try_to_write(probe)
        except OSError as error:
            raise ConfigError(
                f"the best model cannot be written to {self.path}: {error}. "
                "Choose a folder that can be written in best_model_file_name"
            ) from error
        finally:
            remove_empty(made)  # the first save makes them again

    def restore(self, job: int, name: str, score: float, sha256: str) -> None:
        """Take the file on disk, with this content, as the best so far (a resumed sweep)."""
        with self._changed:
            self._best = self._saved = Best(job, name, score)
            self._saved_file = FileContent.of(self.path, sha256)
        with self._kept_lock:
            self._kept.hold()

    def miss(self, problem: str) -> None:
        """Record that the best so far is not on disk (a resumed sweep), until the next save."""
        with self._changed:
            self._lost = problem

    def rename(self, job: int, name: str) -> None:
        """Use ``name`` (that of its last attempt) where this job's model is the best."""
        with self._changed:
            if self._best is not None and self._best.job == job:
                self._best = replace(self._best, name=name)
            if self._saved is not None and self._saved.job == job:
                self._saved = replace(self._saved, name=name)
            if self._waiting is not None and self._waiting[0].job == job:
                self._waiting = (replace(self._waiting[0], name=name), self._waiting[1])

    def offer(
        self, job: int, name: str, score: float, model: Any, *, check: bool = False
    ) -> Standing:
        """Copy the model's weights if ``score`` leads; the lower job number wins ties.

        Waits for nothing but the copy itself.

        Args:
            job: The job's number.
            name: Name of its attempt.
            score: Its score.
            model: A module, or anything with ``state_dict()``.
            check: Check the model even if it does not lead.

        Raises:
            ForkedChildError: This is a forked child of the process that made it.
            ModelError: It has no ``state_dict()``; or its weights, if it leads
                or ``check`` is true, could not be loaded again.
        """
        if not self._own:
            raise ForkedChildError(f"{self.path} is written by the process that opened it alone")
        weights = weights_to_offer(model, leads=self.would_lead(job, score), check=check)
        if weights is None:
            return Standing(leads=False, best=self.best, serial=0)
        return self.take(job, name, score, weights)

    def would_lead(self, job: int, score: float) -> bool:
        """Return whether a model of this score would be the best so far."""
        with self._changed:
            leads = self._leads(job, score)
            if not leads:
                self._try_again()
            return leads

    def take(self, job: int, name: str, score: float, weights: Weights) -> Standing:
        """Take a copy of a model's weights if ``score`` leads, see :meth:`offer`."""
        with self._changed:
            if not self._leads(job, score):  # another job was faster
                return Standing(leads=False, best=self._best, serial=0)
            serial = 1 + (self._best.serial if self._best is not None else 0)
            self._best = Best(job, name, score, serial)
            self._waiting = (self._best, weights)
            self._try_again()
            if self._writer is None or not self._writer.is_alive():
                self._writer = threading.Thread(
                    target=self._write_all, name="junky-best-model", daemon=True
                )
                with outside_scopes():  # its starter is a job's thread; it belongs to no job
                    self._writer.start()
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
        """Wait until the waiting model is written; return whether the best is on disk.

        A write that failed before is tried once more; a file that was deleted
        after its save is written again. :attr:`problem` says what is wrong.
        """
        if not self._own:
            return False
        with self._changed:
            self._try_again()
            while self._writing or (self._waiting is not None and self._retry):
                if self._writer is None or not self._writer.is_alive():
                    break
                self._changed.wait(0.5)  # bounded: a signal must get through to the main thread
        self._look_at_the_file()
        with self._changed:
            self._problem = self._not_written() or self._lost
            return not self._problem

    def close(self) -> None:
        """End the writer thread. What has not been written by now is lost."""
        if not self._own:
            return
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

    def _try_again(self) -> None:
        """Let the writer retry what it could not write before. Call it under the lock."""
        if self._waiting is not None:
            self._retry = True
            self._changed.notify_all()

    def _not_written(self) -> str:
        """Return what is not on disk, ``""`` if everything is. Call it under the lock."""
        if self._waiting is None:
            return ""
        best = self._waiting[0]
        failed = f"the best model could not be written to {self.path}: {self._trouble or 'gave up'}"
        if self._saved == best:
            return f"{failed}. The file is in place, but a power cut may lose it"
        return f"{failed}. {_of(best)} leads, and its weights are not on disk; {self._on_disk()}"

    def _on_disk(self) -> str:
        if self._saved is None:
            return "no model of this sweep is"
        return f"the file holds the model of {_of(self._saved, small=True)}"

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
            try:
                self._write_one(best, weights)
            finally:
                del weights
                with self._changed:  # only now: flush() returns after the callbacks
                    self._writing = False
                    self._changed.notify_all()

    def _write_one(self, best: Best, weights: Weights) -> None:
        error, file = self._write(best, weights)
        with self._changed:
            first = bool(error) != bool(self._trouble)
            self._trouble = error
            ready: list[Callable[[], None]] = []
            if file is not None:
                # A retry may have been named while this was written.
                led = self._best is not None and self._best.serial == best.serial
                self._saved, self._saved_file = self._best if led else best, file
                self._lost = ""
            if not error:
                ready = [call for serial, call in self._on_saved if serial <= best.serial]
                self._on_saved = [entry for entry in self._on_saved if entry[0] > best.serial]
            elif self._waiting is None:
                self._waiting = (best, weights)  # tried again with the next save
        if first:
            self.emit(self._notice(error))
        for call in ready:
            call()

    def _write(self, best: Best, weights: Weights) -> tuple[str, FileContent | None]:
        """Write one model; return the error, if any, and the file if it is in place."""
        facts: dict[str, Any] = {
            "job": best.job,
            "name": best.name,
            "score": best.score,
            "path": str(self.path),
        }
        digest = ""

        def saving(sha256: str) -> None:
            nonlocal digest
            digest = sha256
            self.emit(BestSaving(sha256=sha256, **facts))

        try:
            write_atomically(
                self.path, functools.partial(_write_weights, weights), before_replace=saving
            )
        except BaseException as error:  # noqa: BLE001 - a failed save must not end training
            trouble = error_line(error)
            in_place = bool(digest) and FileContent.of(self.path).sha256 == digest
        else:
            trouble, in_place = "", True
        if in_place:
            with self._kept_lock:
                self._kept.hold()
        if not trouble:
            self.emit(BestSaved(sha256=digest, **facts))
        return trouble, FileContent.of(self.path, digest) if in_place else None

    def _look_at_the_file(self) -> None:
        """Write the saved file again if it was deleted; record it if it is lost anyway."""
        with self._changed:
            saved, file = self._saved, self._saved_file
        if saved is None:
            return
        trouble, found = "another program deleted or changed it (do two sweeps write to it?)", file
        try:
            with self._kept_lock:
                brought_back = self._kept.bring_back()
        except OSError as error:
            trouble = f"it was deleted, and could not be written again: {error}"
        else:
            if brought_back:
                message = f"the best model had been deleted; it is back: {self.path}"
                self.emit(Notice(level=NoticeLevel.WARNING, message=message))
                found = FileContent.of(self.path, file.sha256)
            trouble = "" if found.is_at(self.path) else trouble
        with self._changed:
            if self._saved_file is not file:  # a save came between
                return
            self._saved_file = found
            if trouble:
                self._saved = None
                self._lost = (
                    f"the best model is no longer in {self.path}: {trouble}. "
                    f"It was that of {_of(saved, small=True)}"
                )

    def _notice(self, error: str) -> Notice:
        if not error:
            return Notice(
                level=NoticeLevel.INFO, message=f"the best model is on disk again: {self.path}"
            )
        return Notice(
            level=NoticeLevel.ERROR,
            message=f"THE BEST MODEL COULD NOT BE SAVED to {self.path}: {error}. "
            "Training continues; the file there, if any, is the last complete one. "
            "Saving is retried with the next save and at the end",
        )


def _of(best: Best, *, small: bool = False) -> str:
    return f"{'job' if small else 'Job'} {best.job} with the score {best.score:.6g}"


def _write_weights(weights: Weights, file: IO[bytes]) -> None:
    if isinstance(weights, mmap.mmap):
        file.write(weights)
    else:
        torch.save(weights, file)
