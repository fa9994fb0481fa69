"""``current_job()``, and the job that it returns outside a sweep."""

from __future__ import annotations

import functools
import os
import random
import threading
from collections.abc import Callable, Hashable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from junky_core.devices import parse_devices
from junky_core.errors import BestModelError
from junky_core.files import file_sha256
from junky_core.job.best import BestModel
from junky_core.job.context import JobContext
from junky_core.job.loaders import LoaderSets, SharedData
from junky_core.job.scopes import current_scope
from junky_core.jobs import Direction

__all__ = ["current_job"]


def current_job() -> JobContext:
    """Return the job that the calling thread works for.

    Outside a sweep (``python train.py``, a notebook cell) it is a stand-alone job on
    the first configured device, or else the first GPU, or else the CPU. ``save_best``
    works there too.

    >>> current_job().name
    'Thread-1_0'
    """
    scope = current_scope()
    if scope is not None:
        job = scope.job
        assert isinstance(job, JobContext)
        return job
    return _standalone()


_standalone_lock = threading.Lock()  # guards the dict
_standalone_jobs: dict[Hashable, _StandaloneJob] = {}


def _standalone() -> JobContext:
    settings = _standalone_settings()
    key = settings.get("key"), os.getpid()  # a forked child saves for itself
    with _standalone_lock:
        if key not in _standalone_jobs:
            for earlier in _standalone_jobs.values():
                earlier.release()
            _standalone_jobs.clear()  # another run began
            slot = parse_devices(settings.get("devices", "auto"))[0]
            seed = settings.get("seed")
            best = BestModel(
                settings.get("best_model_path", "model.pt"),
                Direction(settings.get("direction", Direction.MAXIMIZE)),
            )
            _standalone_jobs[key] = _StandaloneJob(
                device=torch.device(slot.device),
                name="Thread-1_0",
                num=settings.get("num", 0),
                params=dict(settings.get("params", {})),
                seed=seed,
                slot=1,
                attempt=1,
                best=best,
                loader_sets=LoaderSets(None),  # a plain run seeds itself
                shared=SharedData(None),
                rng=random.Random(seed),  # noqa: S311
                emit=lambda _event: None,
            )
        return _standalone_jobs[key]


class _StandaloneJob(JobContext):
    """A job outside a sweep: its saves are on disk when ``save_best`` returns."""

    _best: BestModel

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._saving = threading.Lock()  # guards the best model and the flag
        self._released = False

    def release(self) -> None:
        """End the best model's thread and close its file, because another run has begun."""
        with self._saving:
            self._released = True
            self._best.close()

    def save_best(self, model: Any, score: float) -> bool:
        with self._saving:
            if self._released:  # a job whose run is over is still in use
                self._best = _opened_again(self._best)
            try:
                leads = super().save_best(model, score)
                if leads and not self._best.flush():
                    raise BestModelError(self._best.problem)
                return leads
            finally:
                if self._released:
                    self._best.close()


def _opened_again(closed: BestModel) -> BestModel:
    best, saved = BestModel(closed.path, closed.direction), closed.saved
    if saved is not None:
        best.restore(saved.job, saved.name, saved.score, file_sha256(closed.path))
    return best


@functools.lru_cache(maxsize=1)
def _front_ends() -> tuple[Callable[[], Mapping[str, Any] | None], ...]:
    """Return the functions of the entry points; reading those takes a millisecond."""
    found = metadata.entry_points(group="junky_core.standalone")
    return tuple(entry.load() for entry in found)


def _standalone_settings() -> Mapping[str, Any]:
    """Ask the installed front ends (entry points) whether one of their runs is active."""
    for settings_of_run in _front_ends():
        settings = settings_of_run()
        if settings is not None:
            return dict(settings, best_model_path=Path(settings["best_model_path"]))
    return {}
