"""The process-wide functions that seed and draw, redirected to streams while a sweep runs.

There are three kinds, by what can be replaced:

- ``torch.manual_seed``, ``torch.get_rng_state`` and so on call methods of torch's default
  generator, which are redirected to the calling thread's
  (:mod:`~junky_core.job.seeding._generators`). So these functions are per job, wherever and
  whenever they were imported.
- The functions of ``random`` are methods of one hidden object. While a sweep runs, its
  class is :class:`_JobRandom`, which uses the calling thread's stream. The few that
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
import random
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch

from junky_core.errors import ConfigError
from junky_core.job.fork_locks import free_in_children
from junky_core.job.patches import shared
from junky_core.job.seeding._cuda import cuda_replacements
from junky_core.job.seeding._current import current_streams
from junky_core.job.seeding._generators import methods_per_job

__all__ = ["at_end", "installed_streams", "intercept_operators", "look_at_operators"]

# NumPy's functions that give a job its own stream.
_NUMPY_BEGIN = frozenset({"seed", "get_state", "set_state", "__getstate__", "__setstate__"})

_checked = False  # whether redirected draws have been tested in this process
_at_end: list[Callable[[], None]] = []


@contextlib.contextmanager
def installed_streams(*, seeded: bool = True) -> Iterator[None]:
    """Redirect process-wide random functions to each thread's streams inside the ``with`` block.

    Threads of no job are not affected. Blocks may overlap, in any threads; the last to
    end puts back what was there. The first of a process takes some tens of milliseconds, a later
    one a few. ``JobStreams.thread`` enters it by itself, so a sweep enters it for its own length
    merely to do the work once.

    Args:
        seeded: Whether jobs are seeded from their start. If not, torch's operators are
            left alone until a job first seeds itself.

    Raises:
        ConfigError: This torch lacks a private function that is needed.
    """
    if seeded:
        intercept_operators()
    with _installed():
        yield


@shared
@contextlib.contextmanager
def _installed() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        with _as_config_error():
            from junky_core.job.seeding import _operators

            _operators.register_fallback()
            stack.enter_context(_operators.key_lasts_beyond_inference_mode())
            stack.enter_context(methods_per_job())
            stack.enter_context(_python_functions())
            stack.enter_context(_replaced_by_name(_replacements()))
        yield
    for forget in _at_end:
        forget()


def at_end(forget: Callable[[], None]) -> None:
    """Have ``forget`` called whenever the last :func:`installed_streams` block has ended."""
    _at_end.append(forget)


def intercept_operators() -> None:
    """Make torch's operators use the calling thread's streams from now on.

    Raises:
        ConfigError: This torch lacks a private function that is needed, or it does not work.
    """
    global _checked
    if _checked:
        return
    with _as_config_error():
        from junky_core.job.seeding._operators import OWN, check, register

        register(OWN)
        check()
    _checked = True


def look_at_operators() -> None:
    """Find out which of torch's operators draw, so that forked children need not.

    Raises:
        ConfigError: This torch lacks a private function that is needed.
    """
    with _as_config_error():
        from junky_core.job.seeding._operators import drawing_operators

        for _ in drawing_operators():
            pass


@contextlib.contextmanager
def _as_config_error() -> Iterator[None]:
    try:
        yield
    except (AttributeError, ImportError, RuntimeError, TypeError) as error:
        raise ConfigError(
            f"seed: this torch ({torch.__version__}) cannot keep the random numbers of jobs apart "
            f"({error}). Run without a seed, or with a torch that the README names."
        ) from error


class _JobRandom(random.Random):
    """The hidden object behind ``random``'s functions, while a sweep runs.

    All its other methods draw through these. The base class is named because ``super()``
    raises in a thread that is in a method when the sweep ends and the object gets its class back.
    """

    def random(self) -> float:
        own = _own_python()
        return random.Random.random(self) if own is None else own.random()

    def getrandbits(self, k: int) -> int:
        own = _own_python()
        return random.Random.getrandbits(self, k) if own is None else own.getrandbits(k)

    def seed(self, *args: Any, **kwargs: Any) -> None:
        streams = current_streams()
        if streams is None:
            random.Random.seed(self, *args, **kwargs)
        else:
            streams.own_python().seed(*args, **kwargs)

    def getstate(self) -> tuple[Any, ...]:
        streams = current_streams()
        if streams is None:
            return random.Random.getstate(self)
        return streams.own_python().getstate()

    def setstate(self, state: tuple[Any, ...]) -> None:
        streams = current_streams()
        if streams is None:
            random.Random.setstate(self, state)
        else:
            streams.own_python().setstate(state)

    @property
    def gauss_next(self) -> float | None:  # the second number of a pair that gauss() drew
        found: float | None = (_own_python() or self).__dict__["gauss_next"]
        return found

    @gauss_next.setter
    def gauss_next(self, value: float | None) -> None:
        (_own_python() or self).__dict__["gauss_next"] = value


def _own_python() -> random.Random | None:
    streams = current_streams()
    return None if streams is None else streams.python


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
    free_in_children(hidden._bit_generator.lock)  # a DataLoader worker seeds it first of all

    def own(method: str) -> Any:
        streams = current_streams()
        if streams is None:
            return None
        return streams.own_numpy() if method in _NUMPY_BEGIN else streams.numpy

    class JobRandomState(np.random.RandomState):
        """``numpy.random.mtrand._rand`` (scikit-learn's ``random_state=None``) for each thread."""

        def __getattribute__(self, name: str) -> Any:
            return getattr(own(name) or hidden, name)

    def per_job(function: Callable[..., Any], method: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            found = own(method)
            return (function if found is None else getattr(found, method))(*args, **kwargs)

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
        # Searches again, because modules may have been imported or removed in between.
        _replace_globals({id(new): (new, old) for old, new in pairs})


def _replace_globals(pairs: dict[int, tuple[Any, Any]]) -> None:
    for module in list(sys.modules.values()):
        if not isinstance(module, ModuleType):
            continue
        names = vars(module)
        if pairs.keys().isdisjoint(map(id, list(names.values()))):  # nearly all, and fast
            continue
        for name, value in list(names.items()):
            found = pairs.get(id(value))
            if found is not None and found[0] is value and names.get(name) is value:
                names[name] = found[1]
