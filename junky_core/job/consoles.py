"""Rich's global console, one for each job.

``rich.get_console()`` gives the whole process one console, and a console takes
one live display at a time. If two jobs show a progress bar there (as Lightning does by
default), one of them fails with ``IndexError: pop from empty list`` or ``LiveError``.
While a sweep runs, the global console gets another class. It passes everything on to the
console of the job that the calling thread works for. For threads of no job it stays the
process's console.

A job's console never takes itself for a terminal: bars of several jobs cannot
be redrawn in one place, and the sweep's own display may be there. A bar is
written once, when it ends.

Consoles that an app makes itself are left alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from junky_core.job.patches import shared
from junky_core.job.scopes import current_scope

__all__ = ["consoles_apart"]

FACET = "rich"  # where a job's console is kept in its JobScope


@shared
@contextlib.contextmanager
def consoles_apart() -> Iterator[None]:
    """Give each job its own global console inside the ``with`` block.

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

    console = rich.get_console()
    plain, per_job = type(console), _per_job(type(console))
    console.__class__ = per_job
    try:
        yield
    finally:
        if type(console) is per_job:
            console.__class__ = plain


def _per_job(plain: Any) -> Any:
    class PerJobConsole(plain):  # type: ignore[misc]
        """Passes on everything, including that its state is replaced (``rich.reconfigure``)."""

        def __getattribute__(self, name: str) -> Any:
            console = _job_console()
            return plain.__getattribute__(self, name) if console is None else getattr(console, name)

        def __setattr__(self, name: str, value: Any) -> None:
            plain.__setattr__(_job_console() or self, name, value)

        def __delattr__(self, name: str) -> None:
            plain.__delattr__(_job_console() or self, name)

    return PerJobConsole


def _job_console() -> Any:
    """Return the console of the job that the calling thread works for, ``None`` outside jobs."""
    scope = current_scope()
    return None if scope is None else scope.own_facet(FACET, _new_console)


def _new_console() -> Any:
    from rich.console import Console

    class JobConsole(Console):
        # A property: rich.reconfigure() replaces everything in the instance.
        is_terminal = property(lambda _self: False)

    return JobConsole()
