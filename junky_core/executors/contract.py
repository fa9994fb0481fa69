"""What the engine and an executor say to each other.

    engine ──attempt, stop──> worker of a slot ──events, offers of a best model, end──> engine

The engine has one driver thread for each slot. It calls the slot's worker:
``open`` once, then ``execute`` for each attempt, and waits for the answer,
wherever the work is done. Attempts and their ends can be written as plain data
(:mod:`junky_core.executors.messages`), for workers in other processes.

``tests/executor_contract.py`` is the test suite for implementations.
"""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from junky_core.devices import SlotSpec
from junky_core.events import Event
from junky_core.jobs import Attempt, EndKind, JobResult

if TYPE_CHECKING:
    from junky_core.executors.slots import Slot
    from junky_core.job.context import JobContext
    from junky_core.job.offers import Offers
    from junky_core.job.scopes import JobScope

__all__ = [
    "AttemptEnd",
    "AttemptRunner",
    "AttemptSettings",
    "Executor",
    "ExecutorFactory",
    "HearingRunner",
    "Link",
    "ReportingRunner",
    "Worker",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptSettings:
    """What all attempts of a sweep share.

    Attributes:
        seed: The sweep's seed.
        timeout_s: Seconds after which an attempt is asked to end.
        value_is_score: A job that gave no score is scored by the number it returned.
        folder: The sweep's folder, if it has one.
        threads_per_slot: Torch threads of each slot, ``None`` to choose.
    """

    seed: int | None = None
    timeout_s: float | None = None
    value_is_score: bool = False
    folder: Path | None = None
    threads_per_slot: int | None = None


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """How an attempt ended.

    Attributes:
        kind: An :class:`EndKind`, or its text.
        duration_s: Seconds it took.
        value: What the job returned.
        value_is_repr: It could not be brought here: ``value`` is a text in its place.
        score: The best score the job has now, ``None`` if it gave none.
        serial: Its best model: the number of its last save that led, 0 for none
            (see ``BestModel.when_saved``).
        error: Last line of its error.
        traceback: The whole traceback as text.
        exception: A copy that holds nothing of the job.
        location: Where the error came from; equal errors have equal locations.
        host_memory: An out-of-memory error of the host, not of a GPU.
        loaders_elsewhere: Another slot has built the loaders that failed here.
        closes_slot: Why the slot takes no more jobs, ``""`` if it continues.
        report: What a runner in a worker process says to the one in the driver, see
            :class:`ReportingRunner`; ``None`` if nothing.
    """

    kind: EndKind
    duration_s: float
    value: Any = None
    value_is_repr: bool = False
    score: float | None = None
    serial: int = 0
    error: str = ""
    traceback: str = ""
    exception: BaseException | None = None
    location: Hashable = None
    host_memory: bool = False
    loaders_elsewhere: bool = False
    closes_slot: str = ""
    report: bytes | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", EndKind(self.kind))


class AttemptRunner(Protocol):
    """What an attempt does. Called by workers, several at once."""

    def open_slot(self, slot: Slot) -> None:
        """Prepare ``slot`` before its first job; raising closes it."""

    def run(self, attempt: Attempt, job: JobContext) -> Any:
        """Run one attempt inside the job's scope and return its value; raising fails it."""

    def keep(self, attempt: Attempt, exception: BaseException) -> None:
        """Take note of what is kept of the exception that ended an attempt.

        It is a copy that holds nothing of the job. The runner must not go on
        holding the exception itself.
        """


@runtime_checkable
class ReportingRunner(Protocol):
    """A runner that says more than the end of an attempt does, to the runner that was sent.

    The driver's runner is pickled for worker processes; what arrives there may be
    of another class.
    """

    def report(self, attempt: Attempt) -> bytes | None:
        """Return what the driver's runner is to hear of an attempt; called where it has ended."""


@runtime_checkable
class HearingRunner(Protocol):
    """A runner in the driver that hears how each attempt in a worker process ended."""

    def hear(self, attempt: Attempt, end: AttemptEnd) -> None:
        """Hear it, with the report; there is none if the worker ended with the attempt."""


class Link(Protocol):
    """The way from an executor up to the engine; called from any thread."""

    @property
    def best(self) -> Offers:
        """Where a job offers its models."""

    def emit(self, event: Event) -> None:
        """Hear of an event."""

    def warn(self, message: str) -> None:
        """Warn the user, once for each message."""

    def open_slot(self, slot: SlotSpec) -> None:
        """Give jobs to a new slot, in this run or in the next."""

    def close_slot(self, slot: SlotSpec, reason: str) -> None:
        """Give no more jobs to a slot. The attempt that runs there continues to its end."""


class Worker(Protocol):
    """Runs the attempts of one slot."""

    def attached(self) -> AbstractContextManager[None]:
        """Return what the driver thread enters for as long as it works for the slot."""

    def open(self) -> str:
        """Make the slot ready for jobs; return why it cannot be, ``""`` if it is.

        Raises:
            ConfigError: No slot of the sweep could be, for this reason. The sweep ends.
        """

    def execute(self, attempt: Attempt) -> AttemptEnd:
        """Run an attempt to its end; never raise what the job raises."""

    def stop(self, name: str, kind: EndKind, message: str) -> None:
        """Ask an attempt to end at its next cancellation point; from any thread.

        The attempt may be about to begin. If it is over, nothing happens: the
        next one must not end by it.

        Args:
            name: The attempt's.
            kind: ``TIMEOUT`` or ``INTERRUPTED``: how it then ends.
            message: Why, for its error.
        """


class Executor(Protocol):
    """Makes the workers of a sweep's slots.

    All methods are for the main thread, but for ``worker``.

    Attributes:
        threads: Torch threads of each slot, ``None`` if torch is left alone.
        wait_s: Seconds that a sweep with jobs left waits while no slot is open.
        kill_after_s: Seconds after which an attempt that was asked to end is killed, ``None``
            if it never is.
    """

    threads: int | None
    wait_s: float
    kill_after_s: float | None

    def running(self, slots: int) -> AbstractContextManager[None]:
        """Return what a run on so many slots is inside of."""

    def worker(self, slot: SlotSpec) -> Worker:
        """Return the worker of a slot; always the same one for the same slot."""

    def scope_of(self, result: JobResult) -> JobScope:
        """Return a scope like that of a job that is over, to do something for it once more."""

    def close(self) -> None:
        """Free what was built for jobs. The driver threads have ended."""


class ExecutorFactory(Protocol):
    """Makes an executor; an executor's class is one."""

    def __call__(
        self,
        slots: list[SlotSpec],
        runner: AttemptRunner,
        settings: AttemptSettings,
        link: Link,
        /,
    ) -> Executor:
        """Return an executor for these slots, to which it may add others."""
