"""The streams of one attempt."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch

from junky_core.job.fork_locks import free_in_children
from junky_core.job.seeding._current import current_streams, entered, hidden_streams, leave_streams
from junky_core.job.seeding._globals import at_end, installed_streams, intercept_operators

if TYPE_CHECKING:
    import numpy as np

__all__ = ["JobStreams", "loader_streams"]


class JobStreams:
    """The random streams of one attempt of a job.

    With a ``seed`` all start from it, as these lines at the head of a plain script would start
    the process-wide ones::

        torch.manual_seed(seed)              # the CPU and every CUDA device
        random.seed(seed)
        numpy.random.seed(seed % 2**32)

    Without a seed, the job draws from the process-wide ones until it seeds one of
    them, or reads or sets its state. From then on it has its own stream in place of that
    one. A job of a sweep inside another job draws from that job's streams until then.

    What threads inside :meth:`thread` draw comes from the job's own streams and leaves
    the process's own alone, and ``torch.manual_seed``, ``torch.set_rng_state``,
    ``random.seed`` and so on called there affect these streams only.

    All of it may be used from several threads; threads of one job that draw at
    the same time share its streams, so which thread gets which number is random,
    as in any script.

    Args:
        seed: Any integer that ``torch.manual_seed`` takes, 0 included; ``None`` for a job that
            may seed itself.
        outer: The streams of the job that the sweep was started in, if any.

    Attributes:
        seed: As given.
        cpu: What torch draws from on the CPU; ``None``: from the process-wide generator.
        python: What the functions of ``random`` draw from; ``None`` as above.
        numpy: What NumPy's global functions draw from; ``None`` as above.
        copied: By the keys of :meth:`states`, where streams began that are copies.
        apart: Whether a stream of torch's is the job's own, or about to be.
        threads: Those that draw from these streams, or from those of a sweep around or inside.

    Example:
        >>> with JobStreams(7).thread():
        ...     in_a_job = torch.rand(2)
        >>> with JobStreams().thread():
        ...     generator = torch.manual_seed(7)
        ...     seeded_by_the_job = torch.rand(2)
        >>> generator = torch.manual_seed(7)
        >>> plain = torch.rand(2)
        >>> torch.equal(in_a_job, plain) and torch.equal(seeded_by_the_job, plain)
        True
    """

    def __init__(self, seed: int | None = None, outer: JobStreams | None = None) -> None:
        self.seed = seed
        self._outer = outer if seed is None else None
        self.cpu: torch.Generator | None = None
        self.python: random.Random | None = None
        self._numpy: np.random.RandomState | None = None
        self._shared: set[str] = set()  # streams that are the outer job's own
        self._cuda: dict[int, torch.Generator] = {}
        self._cuda_seeds: dict[int | None, int] = {}  # None: each device not named
        self._rng: random.Random | None = None
        self.copied: dict[str, Any] = {}
        self.apart: bool = seed is not None or (outer is not None and outer.apart)
        self.threads: set[int] = set() if self._outer is None else self._outer.threads
        if seed is not None:
            self.cpu = torch.Generator().manual_seed(seed)
            self.python = random.Random(seed)  # noqa: S311
            self._cuda_seeds[None] = seed
        elif outer is not None:
            self.cpu, self.python, self._numpy = outer.cpu, outer.python, outer.numpy
            lent = {"cpu": self.cpu, "python": self.python, "numpy": self._numpy}
            self._shared = {kind for kind, stream in lent.items() if stream is not None}

    @property
    def begun(self) -> bool:
        """Whether any stream is the job's own."""
        return bool(self.cpu or self.python or self._numpy or self._cuda or self._cuda_seeds)

    @property
    def rng(self) -> random.Random:
        """A ``random.Random(seed)`` that nothing but the job's own code draws from."""
        with _begin_lock:
            if self._rng is None:
                self._rng = random.Random(self.seed)  # noqa: S311
            return self._rng

    @property
    def numpy(self) -> np.random.RandomState | None:
        if self._numpy is None and self.seed is not None:
            import numpy as np

            with _begin_lock:
                if self._numpy is None:
                    self._numpy = np.random.RandomState(self.seed % 2**32)
        return self._numpy

    def cuda(self, index: int) -> torch.Generator | None:
        """Return what torch draws from on CUDA device ``index``; starts CUDA.

        ``None``: from the process-wide generator.
        """
        generator = self._own_cuda(index)
        if generator is None and self._outer is not None:
            return self._outer.cuda(index)
        return generator

    def _own_cuda(self, index: int) -> torch.Generator | None:
        generator = self._cuda.get(index)
        if generator is None:
            seed = self._cuda_seeds.get(index, self._cuda_seeds.get(None))
            if seed is not None:
                made = torch.Generator(f"cuda:{index}").manual_seed(seed)
                generator = self._cuda.setdefault(index, made)
        return generator

    def seed_cuda(self, seed: int, index: int | None = None) -> None:
        """Seed one CUDA device's stream, or all of them; starts no CUDA.

        Args:
            seed: As for ``torch.cuda.manual_seed``.
            index: The device; ``None`` for all.
        """
        self._part()
        if index is None:
            self._cuda_seeds = {None: seed}
        else:
            self._cuda_seeds[index] = seed
        for at, generator in tuple(self._cuda.items()):
            if index is None or index == at:
                generator.manual_seed(seed)

    def _part(self) -> None:
        """Turn the calling thread's torch operators to these streams, one of which begins."""
        intercept_operators()
        from junky_core.job.seeding._operators import use_own_key  # not every torch loads it

        self.apart = True  # before asking which threads there are, see intercepted()
        use_own_key(self)

    # A stream that begins without a seed continues where the process-wide one is, so that
    # get_rng_state() and set_rng_state() fit together even if other threads draw in between.

    def own_cpu(self) -> torch.Generator:
        """Return :attr:`cpu`, begun as a copy of the process-wide generator if there is none."""
        if self.cpu is None or "cpu" in self._shared:
            self._part()
            with _begin_lock, hidden_streams():
                if self.cpu is None or "cpu" in self._shared:
                    made = _copy_of(self.cpu or torch.default_generator, torch.Generator())
                    self.copied["cpu"] = made.get_state().numpy().copy()  # holds no tensor
                    self.cpu = made
                    self._shared.discard("cpu")
        return self.cpu

    def own_cuda(self, index: int) -> torch.Generator:
        """Return the same for CUDA device ``index``; starts CUDA."""
        generator = self._own_cuda(index)
        if generator is None:
            self._part()
            torch.cuda.init()
            default = self.cuda(index) or torch.cuda.default_generators[index]
            with _begin_lock, hidden_streams():
                made = _copy_of(default, torch.Generator(f"cuda:{index}"))
                self.copied[f"cuda:{index}"] = made.get_state().numpy().copy()
                generator = self._cuda.setdefault(index, made)
        return generator

    def own_python(self) -> random.Random:
        """Return :attr:`python`, begun in the same way."""
        if self.python is None or "python" in self._shared:
            with _begin_lock, hidden_streams():
                if self.python is None or "python" in self._shared:
                    state, made = (self.python or random).getstate(), random.Random()  # noqa: S311
                    made.setstate(state)
                    seed = _seed_of_copy("python", repr(state).encode())
                    if seed is not None:
                        made.seed(seed)
                    self.copied["python"] = made.getstate()
                    self.python = made
                    self._shared.discard("python")
        return self.python

    def own_numpy(self) -> np.random.RandomState:
        """Return :attr:`numpy`, begun in the same way."""
        found = self.numpy
        if found is None or "numpy" in self._shared:
            import numpy as np

            with _begin_lock, hidden_streams():
                if self._numpy is None or "numpy" in self._shared:
                    state: Any = (self._numpy or np.random).get_state()
                    made = np.random.RandomState()
                    made.set_state(state)
                    seed = _seed_of_copy("numpy", state[1].tobytes() + repr(state[2:]).encode())
                    if seed is not None:
                        made.seed(seed % 2**32)
                    self.copied["numpy"] = made.get_state()
                    self._numpy = made
                    self._shared.discard("numpy")
                found = self._numpy
        return found

    def states(self) -> dict[str, Any]:
        """Return the states of the streams that are the job's own, as :meth:`set_state` takes them.

        They can be pickled, and equal ones give equal pickles.
        """
        found: dict[str, Any] = {}
        if self.cpu is not None:
            found["cpu"] = self.cpu.get_state().numpy()
        if self.python is not None:
            found["python"] = self.python.getstate()
        if self.numpy is not None:
            found["numpy"] = self.numpy.get_state()
        if self._cuda_seeds:
            found["cuda"] = dict(self._cuda_seeds)
        for index, generator in tuple(self._cuda.items()):
            found[f"cuda:{index}"] = generator.get_state().numpy()
        return found

    def set_state(self, kind: str, state: Any) -> None:
        """Put the stream ``kind``, begun if need be, into a state that :meth:`states` returned."""
        if kind == "cpu":
            self.own_cpu().set_state(torch.from_numpy(state))
        elif kind == "python":
            self.own_python().setstate(state)
        elif kind == "numpy":
            self.own_numpy().set_state(state)
        elif kind == "cuda":
            self._part()
            self._cuda_seeds = dict(state)
        else:
            self.own_cuda(int(kind.partition(":")[2])).set_state(torch.from_numpy(state))

    def thread(self) -> AbstractContextManager[None]:
        """Let the calling thread draw from these streams inside the ``with`` block.

        For the slot's own thread and for each thread that the job starts. May be
        entered again inside itself; inside other streams, these hide those.
        """
        return _drawing_from(self)


@contextlib.contextmanager
def loader_streams(seed: int) -> Iterator[None]:
    """Let the calling thread draw from the loaders' streams of a sweep inside the ``with`` block.

    In it a slot runs a loader factory. The streams are made from the sweep's seed, the same for
    each slot and each call, and other than any job's.

    Args:
        seed: The sweep's seed.
    """
    digest = hashlib.sha256(f"junky loaders {seed}".encode()).digest()
    with JobStreams(int.from_bytes(digest[:8], "big") >> 1).thread():
        yield


@contextlib.contextmanager
def _drawing_from(streams: JobStreams) -> Iterator[None]:
    # A thread that outlives the sweep's own block still finds all in place.
    with installed_streams(seeded=streams.seed is not None):
        from junky_core.job.seeding._operators import intercepted  # not every torch loads it

        with intercepted(streams), entered(streams):
            yield


# Guards the beginning of streams, and _copied.
_begin_lock = free_in_children(threading.Lock())
# The last state copied of each kind, and how often, in the sweeps that run.
_copied: dict[str, tuple[bytes, int]] = {}
at_end(_copied.clear)


def _copy_of(default: torch.Generator, made: torch.Generator) -> torch.Generator:
    state = default.get_state()
    made.set_state(state)
    seed = _seed_of_copy(str(default.device), state.numpy().tobytes())
    return made if seed is None else made.manual_seed(seed)


def _seed_of_copy(kind: str, state: bytes) -> int | None:
    """Return what to seed a copy of a process-wide state with, ``None`` to leave it as it is.

    Copying moves nothing, so several jobs may copy one state. They are not to draw the same
    numbers: the first gets the state itself, as it would alone, others a seed made from it.
    """
    digest = hashlib.sha256(state).digest()
    last, times = _copied.get(kind, (b"", 0))
    times = times + 1 if last == digest else 0
    _copied[kind] = digest, times
    if times == 0:
        return None
    made = hashlib.sha256(digest + str(times).encode()).digest()
    return int.from_bytes(made[:8], "big") >> 1


def _after_fork_in_child() -> None:
    """Leave a job that seeded nothing.

    The child has the process-wide generators to itself, and a DataLoader worker seeds them first
    of all.
    """
    streams = current_streams()
    if streams is not None and not streams.begun:
        leave_streams()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
