"""Which job a thread works for.

A slot's thread, and every thread that a job starts, belongs to that job. While
a sweep runs, ``threading.Thread.start`` is wrapped, so that a new thread enters
the scope of the thread that started it: a DataLoader's pin-memory thread, a
``Timer``.

The threads of a pool (``ThreadPoolExecutor``, ``multiprocessing.pool.ThreadPool``)
belong to no job, because a pool may outlive the job that first used it. Work given
to a pool belongs to the job that gave it.

Any other thread that was started before the job belongs to no job, no matter who gives
it work. A thread that outlives its job still belongs to it.

Context variables would not do: a new thread starts with an empty context on
Python up to 3.13.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import inspect
import multiprocessing.pool
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from junky_core.job.forks import OwnProcess, leave_if_forked
from junky_core.job.patches import replaced, shared

__all__ = [
    "JobScope",
    "current_scope",
    "enter_scope",
    "enter_slot",
    "inherit_scopes",
    "outside_scopes",
    "slot_facets",
]

_local = threading.local()


class JobScope:
    """All that belongs to one attempt of a job.

    Attributes:
        job: What ``current_job()`` returns inside it.
        parent: The scope that a sweep inside a job was started in.
        facets: What other modules keep for each job, by name.
        slot_facets: What they keep for all jobs of its slot, by name.
        thread_setups: Functions that return a context manager, which every
            thread of the job enters, the slot's own thread first.
        work_setups: Called in the thread that gives work to a pool. Each returns
            a function that makes a context manager, which the pool's thread enters
            around each piece of that work.

    Args:
        job: The job.
        parent: As above; its facets apply here too (such a job still has its outer job's
            Hydra config).
        slot_facets: Those of its slot; by default, it has its own slot.
    """

    __slots__ = (
        "_own_facets",
        "facets",
        "job",
        "parent",
        "slot_facets",
        "thread_setups",
        "work_setups",
    )

    def __init__(
        self,
        job: Any,
        parent: JobScope | None = None,
        slot_facets: dict[str, Any] | None = None,
    ) -> None:
        self.job = job
        self.parent = parent
        self.facets: dict[str, Any] = {} if parent is None else dict(parent.facets)
        self._own_facets: dict[str, Any] = {}
        self.slot_facets: dict[str, Any] = {} if slot_facets is None else slot_facets
        self.thread_setups: list[Callable[[], AbstractContextManager[Any]]] = []
        self.work_setups: list[Callable[[], Callable[[], AbstractContextManager[Any]]]] = []

    def own_facet(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what a module keeps for this job alone, not for jobs of a sweep inside it.

        Args:
            name: Its name.
            make: Makes it when it is first asked for.
        """
        if name not in self._own_facets:
            self._own_facets.setdefault(name, make())  # another thread may do so now
        return self._own_facets[name]


def current_scope() -> JobScope | None:
    """Return the scope that the calling thread is in, ``None`` outside any job."""
    return getattr(_local, "scope", None)


@contextlib.contextmanager
def enter_scope(scope: JobScope) -> Iterator[JobScope]:
    """Make the calling thread work for ``scope`` inside the ``with`` block."""
    previous = current_scope()
    _local.scope = scope
    try:
        with contextlib.ExitStack() as stack:
            for setup in tuple(scope.thread_setups):
                stack.enter_context(setup())
            yield scope
    finally:
        _local.scope = previous


def slot_facets() -> dict[str, Any] | None:
    """Return what other modules keep for the slot of the calling thread.

    ``None`` in a thread that belongs to no slot.
    """
    scope = current_scope()
    facets: dict[str, Any] | None = getattr(_local, "slot_facets", None)
    return facets if scope is None else scope.slot_facets


@contextlib.contextmanager
def enter_slot(facets: dict[str, Any]) -> Iterator[None]:
    """Assign the calling thread to the slot of ``facets``, between jobs too."""
    _local.slot_facets = facets
    try:
        yield
    finally:
        del _local.slot_facets


@contextlib.contextmanager
def outside_scopes() -> Iterator[None]:
    """Let the calling thread work for no job inside the ``with`` block.

    For threads that the sweep itself starts from within a job.
    """
    previous = current_scope()
    _local.scope = None
    try:
        yield
    finally:
        _local.scope = previous


@shared
@contextlib.contextmanager
def inherit_scopes() -> Iterator[None]:
    """Let threads started inside the ``with`` block inherit their starter's scope.

    Process-wide while it lasts; several blocks may overlap.
    """
    with contextlib.ExitStack() as stack:
        start = _starting_in_scope(threading.Thread.start)
        stack.enter_context(replaced(threading.Thread, "start", start))
        for pool, names in _TAKE_WORK:
            for name in names:
                give = _bound_to_giver(getattr(pool, name))
                stack.enter_context(replaced(pool, name, give))
        yield


def _starting_in_scope(plain: Callable[[threading.Thread], None]) -> Callable[..., None]:
    @functools.wraps(plain)
    def start(self: threading.Thread) -> None:
        scope = current_scope()
        if scope is None:
            plain(self)
            return
        run = self.run

        def run_in_scope() -> None:
            self.__dict__.pop("run", None)  # break the cycle; the class's own method shows again
            _in_scope(scope, (), run)

        self.run = run_in_scope  # type: ignore[method-assign]
        try:
            plain(self)
        except RuntimeError:  # started twice, or the system has no more threads
            self.__dict__.pop("run", None)
            raise

    return start


def bound(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function``, to be called in any thread for the calling thread's job."""
    scope = current_scope()
    if scope is None:
        return function
    setups = [setup() for setup in scope.work_setups]
    return functools.partial(_in_scope, scope, setups, function)


def _in_scope(
    scope: JobScope,
    setups: Sequence[Callable[[], AbstractContextManager[Any]]],
    function: Callable[..., Any],
    /,
    *args: Any,
    **kwargs: Any,
) -> Any:
    if current_scope() is scope:
        return function(*args, **kwargs)
    own = OwnProcess()
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(enter_scope(scope))
            for setup in setups:
                stack.enter_context(setup())
            value = function(*args, **kwargs)
    except BaseException as error:
        leave_if_forked(own, error)
        raise
    leave_if_forked(own)
    return value


# What takes a function to call later, and the names of arguments that are such functions.
_TAKE_WORK: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (concurrent.futures.ThreadPoolExecutor, ("__init__", "submit")),
    (concurrent.futures.Future, ("add_done_callback",)),
    (multiprocessing.pool.ThreadPool, ("__init__", "apply_async", "imap", "imap_unordered")),
    (multiprocessing.pool.ThreadPool, ("map", "map_async", "starmap", "starmap_async")),
)
_FUNCTIONS = ("callback", "error_callback", "fn", "func", "initializer")


def _bound_to_giver(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a pool's method: what is given to the pool belongs to the job that gave it."""
    signature = inspect.signature(plain)

    @functools.wraps(plain)
    def give(*args: Any, **kwargs: Any) -> Any:
        if current_scope() is None:
            return plain(*args, **kwargs)
        try:
            given = signature.bind(*args, **kwargs)
        except TypeError:
            return plain(*args, **kwargs)  # its own error says what is wrong
        for argument in _FUNCTIONS:
            if given.arguments.get(argument) is not None:
                given.arguments[argument] = bound(given.arguments[argument])
        with outside_scopes():  # for the threads that it may start
            return plain(*given.args, **given.kwargs)

    return give
