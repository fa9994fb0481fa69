"""Libraries whose state belongs to the whole process, so that slots have to share it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType

from junky_core.job.libraries.imports import when_imported

__all__ = ["LIBRARIES", "Library", "named"]


@dataclass(frozen=True, slots=True)
class Library:
    """A library, and what its users should know on several slots.

    Attributes:
        module: The module whose import shows that it is used.
        shared: What its jobs share, as a clause.
        remedy: What to do instead of running one job at a time, if anything.
    """

    module: str
    shared: str
    remedy: str = ""

    def message(self, slots: int) -> str:
        """Return the warning for a sweep on that many slots."""
        one_slot = "run one job at a time (one slot in `devices`)"
        remedy = f"{self.remedy}, or {one_slot}" if self.remedy else one_slot
        return f"{self.module} on {slots} slots: {self.shared}. If jobs use it: {remedy}"


LIBRARIES = (
    Library(
        "aim",
        "runs that write to one repository at the same time damage it",
        "give each job its own repository",
    ),
    Library("clearml", "a process has one main task, which jobs that run at the same time share"),
    Library(
        "gin",
        "a job that parses a configuration changes that of the other jobs",
        "pass parameters as arguments",
    ),
    Library(
        "matplotlib.pyplot",
        "jobs that run at the same time draw on one current figure",
        "use matplotlib.figure.Figure() and figure.savefig()",
    ),
    Library("tensorflow", "all jobs share its seed and the Keras session"),
    Library("wandb", "jobs that run at the same time share wandb.run, and log to it together"),
)


@contextlib.contextmanager
def named(warn: Callable[[str], None], *, slots: int) -> Iterator[None]:
    """Call ``warn`` for each library of the table, now or when it is imported in the block.

    For several slots: all of these libraries work on one.
    """
    with contextlib.ExitStack() as stack:
        for library in LIBRARIES:
            say = functools.partial(_say, warn, library.message(slots))
            stack.enter_context(when_imported(library.module, say))
        yield


def _say(warn: Callable[[str], None], message: str, _module: ModuleType) -> None:
    warn(message)
