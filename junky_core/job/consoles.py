"""Rich's global console, one for each job.

``rich.get_console()`` gives the whole process one console, and a console takes
one live display at a time. Two jobs that show a progress bar there (Lightning's
default one does) trip over each other: ``IndexError: pop from empty list`` or
``LiveError``, and that job has failed. While a sweep runs, an object stands in
for the global console that passes everything on to the console of the job that
the calling thread works for; threads of no job find the process's, as ever.

A job's console never takes itself for a terminal: bars of several jobs cannot
be redrawn in one place, and the sweep's own display may be there. A bar is
written once, when it ends.

Consoles that an app makes itself are left alone.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from junky_core.job.scopes import current_scope

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["consoles_apart"]

FACET = "rich"  # where a job's console hangs in its JobScope

_lock = threading.Lock()  # guards _holders and the replacement itself
_holders = 0
_process: Any = None  # the process's console, None if nobody asked for it yet


@contextlib.contextmanager
def consoles_apart() -> Iterator[None]:
    """Give each job a global console of its own inside the ``with`` block.

    Process-wide while it lasts; several blocks may overlap.

    >>> import rich
    >>> from junky_core.job.scopes import JobScope, enter_scope
    >>> with consoles_apart():
    ...     with enter_scope(JobScope(None)), rich.get_console().status("one"):
    ...         with enter_scope(JobScope(None)), rich.get_console().status("two"):
    ...             rich.get_console().is_terminal
    False
    """
    import rich

    global _holders, _process
    with _lock:
        if _holders == 0 and rich._console is not _STAND_IN:  # noqa: SLF001
            _process, rich._console = rich._console, _STAND_IN  # noqa: SLF001
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0 and rich._console is _STAND_IN:  # noqa: SLF001
                rich._console = _process  # noqa: SLF001


class _StandIn:
    """Passes on everything, also that the console is replaced (``rich.reconfigure``)."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        return getattr(_console(), name)  # __class__ too, so that it is a Console

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(_console(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(_console(), name)

    def __enter__(self) -> Any:
        return _console().__enter__()

    def __exit__(self, *exc_info: object) -> None:
        _console().__exit__(*exc_info)

    def __repr__(self) -> str:
        return repr(_console())


_STAND_IN: Any = _StandIn()


def _console() -> Console:
    """Return the console of the job that the calling thread works for."""
    global _process
    from rich.console import Console

    scope = current_scope()
    console: Console
    with _lock:
        if scope is None:
            _process = console = _process or Console()
            return console
        # A sweep inside a job: its jobs find the outer job's facets, and are jobs of their own.
        owner, console = scope.facets.get(FACET, (None, None))
        if owner is not scope:
            console = _job_console()
            scope.facets[FACET] = scope, console
        return console


def _job_console() -> Console:
    from rich.console import Console

    class JobConsole(Console):
        # A property, for rich.reconfigure() replaces all that is in the instance.
        is_terminal = property(lambda _self: False)

    return JobConsole()
