"""What the engine and an executor say to each other.

    engine ──attempt, stop──> worker of a slot ──end, events, offers of a best model──> engine

A worker runs the attempts of one slot, one at a time. The engine's driver
thread of that slot calls ``open`` once, ``execute`` for each attempt, and waits
for the answer, wherever the work is done.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from junky_core.events import Event
from junky_core.jobs import Attempt

if TYPE_CHECKING:
    from junky_core.executors.slots import Slot
    from junky_core.job.best import BestModel
    from junky_core.job.context import JobContext

__all__ = ["AttemptEnd", "AttemptRunner", "AttemptSettings", "Link", "Worker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptSettings:
    """What all attempts of a sweep share.

    Attributes:
        seed: The sweep's seed.
        timeout_s: Seconds after which an attempt is asked to end.
        value_is_score: A job that gave no score is scored by the number it returned.
        folder: The sweep's folder, if it has one.
    """

    seed: int | None = None
    timeout_s: float | None = None
    value_is_score: bool = False
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """How an attempt ended; ``kind`` is one of the scheduler's table.

    Attributes:
        score: The best score the job has now, ``None`` if it gave none.
        serial: Number of its last save that led, 0 for none.
        exception: A copy that holds nothing of the job.
        location: Where the error came from, for telling equal errors.
        host_memory: An out-of-memory error of the host, not of a GPU.
        loaders_elsewhere: Another slot has built the loaders that failed here.
    """

    kind: str
    duration_s: float
    value: Any = None
    score: float | None = None
    serial: int = 0
    error: str = ""
    traceback: str = ""
    exception: BaseException | None = None
    location: Hashable = None
    host_memory: bool = False
    loaders_elsewhere: bool = False


class AttemptRunner(Protocol):
    """What an attempt does. Called in slot threads, several at once."""

    def open_slot(self, slot: Slot) -> None:
        """Prepare ``slot`` before its first job; raising closes it."""

    def run(self, attempt: Attempt, job: JobContext) -> Any:
        """Run one attempt inside the job's scope and return its value; raising fails it."""

    def keep(self, attempt: Attempt, exception: BaseException) -> None:
        """Take note of what is kept of the exception that ended an attempt.

        It is a copy that holds nothing of the job. The runner must not go on
        holding the exception itself.
        """


class Link(Protocol):
    """The way from a worker up to the engine; called from any thread."""

    @property
    def best(self) -> BestModel:
        """Where a job offers its models."""

    def emit(self, event: Event) -> None:
        """Hear of an event."""

    def warn(self, message: str) -> None:
        """Warn the user, once for each message."""


class Worker(Protocol):
    """Runs the attempts of one slot."""

    def open(self) -> str:
        """Make the slot ready for jobs; return why it cannot be, ``""`` if it is."""

    def execute(self, attempt: Attempt, score: float | None) -> AttemptEnd:
        """Run an attempt of a job that has this score from attempts before."""

    def stop(self, reason: str, message: str) -> None:
        """Ask the attempt that runs to end at its next cancellation point; from any thread."""

    @property
    def running(self) -> JobContext | None:
        """The attempt that runs."""
