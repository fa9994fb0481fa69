"""The streams of one attempt, and which of them the calling thread draws from."""

# ruff: noqa: SLF001  # torch has no public way to its per-thread objects

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import _C

from junky_core.thread_ends import note_this_thread

if TYPE_CHECKING:
    import numpy as np

__all__ = ["JobStreams", "current_streams"]

# torch keeps objects by name for each of its threads and, what threading.local would not do,
# hands them on with the rest of a thread's state to the autograd threads that work for it.
KEY = "junky_core.seeding.streams"
# Looked up so that this module loads in any torch: a sweep without a seed needs none of it.
_get_obj: Any = getattr(_C, "_get_obj_in_tls", None)
_has_obj: Any = getattr(_C, "_is_key_in_tls", None)


class JobStreams:
    """The random streams of one attempt of a job.

    All start from ``seed``, as these lines at the head of a plain script would
    start the process-wide ones::

        torch.manual_seed(seed)              # the CPU and every CUDA device
        random.seed(seed)
        numpy.random.seed(seed % 2**32)

    What threads inside :meth:`thread` draw comes from these streams and leaves
    the process's own alone, and ``torch.manual_seed``, ``torch.set_rng_state``,
    ``random.seed`` and kin called there reach these streams only.

    All of it may be used from several threads; threads of one job that draw at
    the same time share its streams, so which gets which number is up to chance,
    as in any script.

    Args:
        seed: Any integer that ``torch.manual_seed`` takes, 0 included.

    Attributes:
        seed: As given.
        cpu: What torch draws from on the CPU.
        python: What the functions of ``random`` draw from.

    Example:
        >>> with JobStreams(7).thread():
        ...     in_a_job = torch.rand(2)
        >>> generator = torch.manual_seed(7)
        >>> torch.equal(in_a_job, torch.rand(2))
        True
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.cpu = torch.Generator().manual_seed(seed)
        self.python = random.Random(seed)  # noqa: S311
        # Made when first asked for. No lock guards them, for a DataLoader worker may be forked
        # while another thread holds it: setdefault is atomic, and of two that make one, one wins.
        self._made: dict[str, Any] = {}
        self._cuda: dict[int, torch.Generator] = {}
        self._cuda_seeds: dict[int | None, int] = {None: seed}  # None: each device not named

    @property
    def rng(self) -> random.Random:
        """A ``random.Random(seed)`` that nothing but the job's own code draws from."""
        if "rng" not in self._made:
            self._made.setdefault("rng", random.Random(self.seed))  # noqa: S311
        rng: random.Random = self._made["rng"]
        return rng

    @property
    def numpy(self) -> np.random.RandomState:
        """What NumPy's global functions draw from."""
        if "numpy" not in self._made:
            import numpy as np

            self._made.setdefault("numpy", np.random.RandomState(self.seed % 2**32))
        numpy: np.random.RandomState = self._made["numpy"]
        return numpy

    def cuda(self, index: int) -> torch.Generator:
        """Return what torch draws from on CUDA device ``index``; starts CUDA."""
        generator = self._cuda.get(index)
        if generator is None:
            seed = self._cuda_seeds.get(index, self._cuda_seeds[None])
            made = torch.Generator(f"cuda:{index}").manual_seed(seed)
            generator = self._cuda.setdefault(index, made)
        return generator

    def seed_cuda(self, seed: int, index: int | None = None) -> None:
        """Seed one CUDA device's stream, or all of them; starts no CUDA.

        Args:
            seed: As for ``torch.cuda.manual_seed``.
            index: The device; ``None`` for all.
        """
        if index is None:
            self._cuda_seeds = {None: seed}
        else:
            self._cuda_seeds[index] = seed
        for at, generator in tuple(self._cuda.items()):
            if index is None or index == at:
                generator.manual_seed(seed)

    def thread(self) -> AbstractContextManager[None]:
        """Let the calling thread draw from these streams inside the ``with`` block.

        For the slot's own thread and for each thread that the job starts. May be
        entered again inside itself; inside other streams, these hide those.
        """
        return _drawing_from(self)


def current_streams() -> JobStreams | None:
    """Return the streams that the calling thread draws from, ``None`` outside any."""
    if _has_obj is None or not _has_obj(KEY):
        return None
    streams: JobStreams | None = _get_obj(KEY)
    return streams


class DefaultGenerator(torch.Generator):
    """Stands for torch's default CPU generator: each thread's own, whoever asks.

    ``torch.random``'s functions ask it while a seeded sweep runs. Outside a job it is the
    process's default generator in all but one thing: given to an operator there, it has a state
    of its own.
    """

    def _target(self) -> torch.Generator:
        streams = current_streams()
        return torch.default_generator if streams is None else streams.cpu

    def get_state(self) -> torch.Tensor:
        return self._target().get_state()

    def set_state(self, new_state: torch.Tensor) -> torch.Generator:
        return self._target().set_state(new_state)

    def graphsafe_get_state(self) -> torch.Generator:
        return self._target().graphsafe_get_state()

    def graphsafe_set_state(self, state: torch.Generator) -> torch.Generator:
        return self._target().graphsafe_set_state(state)

    def clone_state(self) -> torch.Generator:
        return self._target().clone_state()

    def manual_seed(self, seed: int) -> torch.Generator:
        return self._target().manual_seed(seed)

    def seed(self) -> int:
        return self._target().seed()

    def initial_seed(self) -> int:
        return self._target().initial_seed()


STAND_IN = DefaultGenerator()


@contextlib.contextmanager
def _drawing_from(streams: JobStreams) -> Iterator[None]:
    from junky_core.seeding._globals import installed_streams

    # A thread that outlives the sweep's own block still finds all in place.
    with installed_streams():
        from junky_core.seeding._operators import intercepted

        with intercepted(), entered(streams):
            yield


def hidden_streams() -> AbstractContextManager[None]:
    """Take the calling thread out of any streams inside the ``with`` block."""
    return entered(None)


@contextlib.contextmanager
def entered(streams: JobStreams | None) -> Iterator[None]:
    """Make ``streams`` the calling thread's, and do no more, inside the ``with`` block."""
    outer = current_streams()
    note_this_thread()  # torch keeps what is stashed until the thread is gone
    _C._stash_obj_in_tls(KEY, streams)
    try:
        yield
    finally:
        _C._stash_obj_in_tls(KEY, outer)
