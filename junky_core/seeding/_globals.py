"""The process-wide functions that seed and draw, turned to streams while a sweep runs.

Three kinds, by what can be replaced:

- ``torch.manual_seed``, ``torch.get_rng_state`` and kin ask ``torch.random.default_generator``,
  a name that we point at a :class:`DefaultGenerator`: so these functions are per job
  wherever, and whenever, they were imported.
- The functions of ``random`` are methods of one hidden object. Its class becomes
  :class:`_JobRandom` for the while, which asks the calling thread's stream. The few that
  are bound to C or to the old class (``random``, ``getrandbits``, ``seed``,
  ``getstate``, ``setstate``) are replaced by name.
- NumPy's global functions and ``torch.cuda``'s are replaced by name.

To replace by name is to replace in every module that has the object among its globals, so
that ``from random import random`` is found too. A reference that was taken before and is kept
elsewhere (a default argument, a closure, a partial, an attribute) escapes.
"""

# ruff: noqa: SLF001  # the hidden objects behind module functions are what this is about

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch

from junky_core.errors import ConfigError
from junky_core.seeding._cuda import cuda_replacements
from junky_core.seeding._streams import STAND_IN, JobStreams, current_streams, entered

__all__ = ["installed_streams", "loader_streams"]

_lock = threading.Lock()  # guards the three below and the replacing itself
_blocks = 0
_checked = False  # whether draws were seen to go where they should, in this process
_undo: contextlib.ExitStack = contextlib.ExitStack()


def _renew_lock() -> None:
    """In a forked child: whoever held the lock stayed behind."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


@contextlib.contextmanager
def installed_streams() -> Iterator[None]:
    """Turn process-wide random functions to each thread's streams inside the ``with`` block.

    Threads that are in no job go on as before. Blocks may overlap, in any threads; the last to
    end puts back what was there. The first of a process takes some tens of milliseconds, a later
    one a few. ``JobStreams.thread`` enters it by itself, so a sweep enters it for its own length
    merely to do the work once.

    Raises:
        ConfigError: This torch has not the (private) means that it takes.
    """
    global _blocks, _undo
    with _lock:
        if _blocks == 0:
            _intercept_operators()
            with contextlib.ExitStack() as stack:
                stack.enter_context(_torch_functions())
                stack.enter_context(_python_functions())
                stack.enter_context(_replaced_by_name(_replacements()))
                _undo = stack.pop_all()
        _blocks += 1
    try:
        yield
    finally:
        with _lock:
            _blocks -= 1
            if _blocks == 0:
                _undo.close()


def _intercept_operators() -> None:
    """Make torch's dispatcher ready, and see for once that it does what it should."""
    global _checked
    try:
        from junky_core.seeding._operators import intercepted

        if _checked:
            return
        streams, generator = JobStreams(0), torch.Generator().manual_seed(0)
        with intercepted(), entered(streams):
            torch.rand(2)
            torch.nn.functional.dropout(torch.ones(9), 0.5)
        torch.rand(2, generator=generator)
        torch.empty(9).bernoulli_(0.5, generator=generator)
        # Other threads may draw meanwhile, so the process-wide state says nothing.
        if not torch.equal(streams.cpu.get_state(), generator.get_state()):
            raise RuntimeError("draws of a job's thread do not come from the job's stream")
    except (AttributeError, ImportError, RuntimeError, TypeError) as error:
        raise ConfigError(
            f"seed: this torch ({torch.__version__}) cannot keep the random numbers of jobs apart "
            f"({error}). Run without a seed, or with a torch that the README names."
        ) from error
    _checked = True


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
def _torch_functions() -> Iterator[None]:
    functions: Any = torch.random
    before = functions.default_generator
    functions.default_generator = STAND_IN
    try:
        yield
    finally:
        if functions.default_generator is STAND_IN:
            functions.default_generator = before


class _JobRandom(random.Random):
    """The hidden object behind ``random``'s functions, while a seeded sweep runs.

    All its other methods draw through these. A thread may be in one of them as the sweep ends
    and the object gets its class back, where ``super()`` raises: so the base class is named.
    """

    def random(self) -> float:
        streams = current_streams()
        return random.Random.random(self) if streams is None else streams.python.random()

    def getrandbits(self, k: int) -> int:
        streams = current_streams()
        return (
            random.Random.getrandbits(self, k) if streams is None else streams.python.getrandbits(k)
        )

    def seed(self, *args: Any, **kwargs: Any) -> None:
        streams = current_streams()
        if streams is None:
            random.Random.seed(self, *args, **kwargs)
        else:
            streams.python.seed(*args, **kwargs)

    def getstate(self) -> tuple[Any, ...]:
        streams = current_streams()
        return random.Random.getstate(self) if streams is None else streams.python.getstate()

    def setstate(self, state: tuple[Any, ...]) -> None:
        streams = current_streams()
        if streams is None:
            random.Random.setstate(self, state)
        else:
            streams.python.setstate(state)

    @property
    def gauss_next(self) -> float | None:  # the second number of a pair that gauss() drew
        streams = current_streams()
        owner = self if streams is None else streams.python
        found: float | None = owner.__dict__["gauss_next"]
        return found

    @gauss_next.setter
    def gauss_next(self, value: float | None) -> None:
        streams = current_streams()
        owner = self if streams is None else streams.python
        owner.__dict__["gauss_next"] = value


@contextlib.contextmanager
def _python_functions() -> Iterator[None]:
    hidden: Any = random._inst
    before = hidden.__class__
    hidden.__class__ = _JobRandom
    try:
        yield
    finally:
        if hidden.__class__ is _JobRandom:
            hidden.__class__ = before


def _replacements() -> list[tuple[Any, Any]]:
    """Return what is replaced by name: pairs of old and new."""
    hidden: Any = random._inst
    pairs = [
        (getattr(random, name), getattr(hidden, name))
        for name in ("random", "getrandbits", "seed", "getstate", "setstate")
    ]
    return pairs + cuda_replacements() + _numpy_replacements()


def _numpy_replacements() -> list[tuple[Any, Any]]:
    try:
        import numpy as np
    except ImportError:
        return []
    hidden: Any = np.random.mtrand._rand

    class JobRandomState(np.random.RandomState):
        """``numpy.random.mtrand._rand`` (scikit-learn's ``random_state=None``) for each thread."""

        def __getattribute__(self, name: str) -> Any:
            streams = current_streams()
            return getattr(hidden if streams is None else streams.numpy, name)

    def per_job(function: Callable[..., Any], method: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            streams = current_streams()
            if streams is None:
                return function(*args, **kwargs)
            return getattr(streams.numpy, method)(*args, **kwargs)

        return wrapper

    methods = {
        name: name
        for name, value in vars(np.random).items()
        if getattr(value, "__self__", None) is hidden
    }
    methods.update(seed="seed", ranf="random_sample", sample="random_sample")
    pairs = [
        (getattr(np.random, name), per_job(getattr(np.random, name), method))
        for name, method in methods.items()
    ]
    return [*pairs, (hidden, JobRandomState(0))]


@contextlib.contextmanager
def _replaced_by_name(pairs: list[tuple[Any, Any]]) -> Iterator[None]:
    _replace_globals({id(old): (old, new) for old, new in pairs})
    try:
        yield
    finally:
        # By looking again: a module may have been imported meanwhile, or have gone.
        _replace_globals({id(new): (new, old) for old, new in pairs})


def _replace_globals(pairs: dict[int, tuple[Any, Any]]) -> None:
    for module in list(sys.modules.values()):
        if not isinstance(module, ModuleType):
            continue
        names = vars(module)
        for name, value in list(names.items()):
            found = pairs.get(id(value))
            if found is not None and found[0] is value and names.get(name) is value:
                names[name] = found[1]
