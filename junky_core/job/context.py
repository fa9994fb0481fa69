"""What a job can ask of its sweep."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from junky_core.errors import ForkedChildError, JobStopped
from junky_core.events import Event, ScoreReported
from junky_core.job.exception_links import chain
from junky_core.job.forks import OwnProcess
from junky_core.job.loaders import LoaderSets, SharedData
from junky_core.job.offers import Offers, Standing
from junky_core.job.seeding import reproducibility_warnings
from junky_core.jobs import EndKind, rank_key
from junky_core.values.calls import Call
from junky_core.values.user_text import class_name, repr_of

__all__ = ["JobContext"]


class JobContext:
    """One attempt of a job, as its own code sees it.

    All methods may be called from the slot's thread and from threads that the
    job started.

    Attributes:
        device: The slot's ``torch.device``.
        name: ``Thread-<slot>_<n>``, the n-th attempt of that slot, from 0.
        num: The job's number in the sweep, from 0.
        params: The varying parameters, in a dict that belongs to this job.
        log_prefix: ``"<name>: "``, to start each printed line with.
        seed: The sweep's seed, ``None`` if it has none.
        slot: The slot's number, from 1.
        attempt: 1, or more if the job runs again.
        folder: Under Hydra the job's folder, once the job has ended; otherwise the sweep's, or
            ``None`` if it has none. If the text of an error is cut elsewhere, its full text is
            written there.
    """

    def __init__(
        self,
        *,
        device: torch.device,
        name: str,
        num: int,
        params: dict[str, Any],
        seed: int | None,
        slot: int,
        attempt: int,
        best: Offers,
        loader_sets: LoaderSets,
        shared: SharedData,
        rng: random.Random,
        emit: Callable[[Event], None],
        warn: Callable[[str], None] = lambda _message: None,
        timeout_s: float | None = None,
        score: float | None = None,
        on_device: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
        folder: Path | None = None,
    ) -> None:
        self.device = device
        self.name = name
        self.num = num
        self.params = params
        self.log_prefix = f"{name}: "
        self.seed = seed
        self.slot = slot
        self.attempt = attempt
        self.folder = folder
        self._own = OwnProcess()
        self._best = best
        self._loader_sets = loader_sets
        self._shared = shared
        self._rng = rng
        self._emit = emit
        self._warn = warn
        self._looked_at: set[int] = set()  # models and loaders checked for reproducibility
        self._timeout_s = timeout_s
        self._started = time.monotonic()
        self._seen_sets: list[Any] = []
        self._seen_data: list[Any] = []
        self._lock = threading.Lock()  # guards the scores and the save's serial
        self._score = score
        self._on_device = on_device
        self._serial = 0
        self._saved_once = False
        self._stop: tuple[EndKind, str] | None = None
        self._loader_failure: tuple[BaseException, Call] | None = None

    @property
    def rng(self) -> random.Random:
        """This job's own random number generator, seeded with ``seed`` if there is one."""
        return self._rng

    @property
    def score(self) -> float | None:
        """The best score that this job has reported so far, ``None`` if none."""
        with self._lock:
            return self._score

    def loaders(self, factory: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return ``factory(*args, **kwargs)``, built once on this slot for the same call.

        The same call is the same code with the same closure values and the
        same arguments; configs are compared by content. So a lambda in the task
        function matches itself. The last two sets are kept. Each job gets the set in
        the state it was built in. If the sweep has a seed, the factory draws from its own
        stream. In a job that seeds itself, the factory draws from the job's stream, and
        another job gets the set only if it used the same seed.

        Raises:
            Whatever the factory raises; the job then runs on another slot.
        """
        self.check()
        call = Call(factory, args, kwargs)
        try:
            loaders = self._loader_sets.get(call, self._seen_sets)
        except Exception as error:
            self._loader_failure = (error, call)
            raise
        self._look_at(loaders, loaders=loaders)
        return loaders

    def shared(self, factory: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return ``factory(*args, **kwargs)``, built once on this machine, for all slots.

        For data that is only read: a data set in memory, a vocabulary. Loaders
        belong in :meth:`loaders`, because two threads must not share one. If slots are
        processes, they share the memory of tensors and NumPy arrays, and have copies of
        everything else.
        """
        self._check_process("shared")
        self.check()
        return self._shared.get(Call(factory, args, kwargs), self._seen_data)

    def save_best(self, model: Any, score: float) -> bool:
        """Report ``score``, and save ``model`` if it is the best of the whole sweep.

        Costs a copy of the weights if it is the best, and almost nothing otherwise.
        Another thread writes the file.

        Args:
            model: The ``torch.nn.Module``.
            score: Any number, or a tensor or array with one element. NaN and
                infinities are recorded, but are never best.

        Returns:
            Whether it is the best of the sweep so far.

        Raises:
            TypeError: ``score`` is not a number.
            ForkedChildError: This is a forked child of the job.
            ModelError: ``model`` has no ``state_dict()``, or its weights could
                not be loaded again with ``weights_only=True``.
        """
        self._check_process("save_best")
        self.check()
        with self._on_device():  # also in a thread of no job: the copy must come after the work
            value = _as_float(score)
            self._look_at(model, model=model)
            with self._lock:
                first, self._saved_once = not self._saved_once, True
            # The score counts only if the model could be saved.
            standing = self._best.offer(self.num, self.name, value, model, check=first)
        with self._lock:
            improved = self._score is None or (
                rank_key(value, 0, self._best.direction)
                < rank_key(self._score, 0, self._best.direction)
            )
            if improved:
                self._score = value
            self._serial = max(self._serial, standing.serial)
        self._report(value, improved, standing)
        return standing.leads

    def _check_process(self, method: str) -> None:
        if not self._own:
            raise ForkedChildError(
                f"{method} was called in a forked child of job {self.num}. Only the job's own "
                "process can do that: send the child's result to it (with a pipe, a queue or the "
                f"exit status), and call {method} there"
            )

    def check(self) -> None:
        """End this job here if it has exceeded its time limit or the sweep is ending.

        Call it in loops that use neither a model nor a loader.

        Raises:
            JobStopped: The job has to end; do not catch it.
        """
        if self._stop is None:
            if self._timeout_s is None or time.monotonic() - self._started < self._timeout_s:
                return
            self.stop(
                EndKind.TIMEOUT, f"job {self.num} exceeded its time limit of {self._timeout_s:g} s"
            )
        assert self._stop is not None
        kind, message = self._stop
        raise JobStopped(message, kind.value)

    def stop(self, kind: EndKind, message: str) -> None:
        """Ask this job to end at its next cancellation point; from any thread."""
        if self._stop is None:
            self._stop = (kind, message)

    def release_data(self) -> None:
        """End the workers of its loaders, and hold no loaders and shared data; for its end.

        A thread that outlives the job, of a loader or a progress bar, holds this context.
        What it asks for from now on is built for it alone.
        """
        seen, self._seen_sets = self._seen_sets, []
        self._loader_sets = LoaderSets(self.seed)
        for loaders in seen:
            loaders.state.stop_workers()
        self._shared, self._seen_data = SharedData(self.seed), []
        self._loader_failure = None

    @property
    def deadline(self) -> float | None:
        """When its time limit is reached, as a value of ``time.monotonic()``."""
        return None if self._timeout_s is None else self._started + self._timeout_s

    @property
    def save_serial(self) -> int:
        """Number of its last save that was the best, 0 for none; see ``BestModel.when_saved``."""
        with self._lock:
            return self._serial

    def failed_loaders(self, error: BaseException) -> Call | None:
        """Return the loader call whose failure ``error`` is or comes from."""
        if self._loader_failure is None:
            return None
        failure, self._loader_failure = self._loader_failure, None  # it holds what it was given
        return failure[1] if any(link is failure[0] for link in chain(error)) else None

    def _look_at(self, what: Any, **kind: Any) -> None:
        """If there is a seed, warn once of each thing that may still change the result."""
        if self.seed is None or id(what) in self._looked_at:
            return
        self._looked_at.add(id(what))
        for message in reproducibility_warnings(device=self.device, **kind):
            self._warn(message)

    def _report(self, score: float, improved: bool, standing: Standing) -> None:
        best = standing.best
        self._emit(
            ScoreReported(
                job=self.num,
                name=self.name,
                score=score,
                improved=improved,
                overall=standing.leads,
                best_score=None if best is None else best.score,
                best_name=None if best is None else best.name,
            )
        )


def _as_float(score: Any) -> float:
    try:
        return float(score)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TypeError(
            f"save_best needs a number as score, not {class_name(score)}: {repr_of(score)[:200]}"
        ) from error
