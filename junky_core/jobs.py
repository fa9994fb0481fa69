"""Jobs, their attempts and their results, and where jobs come from.

A *job* is one parameter set. An *attempt* is one execution of it. A *job
source* is pulled each time a slot is free, so that a grid of a million jobs is
never a list, and a sampler can look at the scores before it proposes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from junky_core.events import ScoreReported

__all__ = [
    "NOT_NOW",
    "Attempt",
    "Direction",
    "EndKind",
    "GridSource",
    "Job",
    "JobResult",
    "JobSource",
    "JobStatus",
    "NotNow",
    "TextEnum",
    "rank_key",
]


@dataclass(frozen=True, slots=True)
class Job:
    """One parameter set.

    Attributes:
        num: Number in the sweep, from 0.
        params: The varying parameters, by name.
        payload: What its runner needs besides (Hydra: the overrides).
        key: Identity across resumed sweeps; empty where nothing is resumed.
        info: JSON-able facts for the journal (Hydra: the overrides).
        score: The best score it gave before, in a sweep that is resumed.
    """

    num: int
    params: Mapping[str, Any]
    payload: Any = None
    key: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One execution of a job.

    Attributes:
        job: The job.
        number: Counted from 1.
        name: ``Thread-<slot>_<n>``, unique in the sweep.
        score: The best score of the job's earlier attempts, ``None`` if there is none.
    """

    job: Job
    number: int
    name: str
    score: float | None = None


class TextEnum(str, Enum):
    """An enum whose members equal their texts, as those of ``enum.StrEnum`` from Python 3.11 on."""

    def __str__(self) -> str:
        return str(self.value)


class Direction(TextEnum):
    """Whether higher or lower scores are better; each member equals its text.

    >>> Direction.MINIMIZE == "minimize", f"{Direction.MINIMIZE}"
    (True, 'minimize')
    """

    MAXIMIZE = "maximize"
    MINIMIZE = "minimize"


class EndKind(TextEnum):
    """How an attempt ended; each member equals its text.

    What follows for the job is in the table of :mod:`junky_core.engine.scheduler`.
    """

    FINISHED = "finished"
    ERROR = "error"
    OOM = "oom"  # out of memory, of a GPU or of the host
    TIMEOUT = "timeout"  # exceeded its time limit
    INTERRUPTED = "interrupted"  # the sweep ended first
    POISONED = "poisoned"  # the process cannot use its device any more
    LOADERS = "loaders"  # the slot could not build the job's loaders
    CRASHED = "crashed"  # the worker died of it
    LOST = "lost"  # the machine or the connection went away: not the job's fault
    FATAL = "fatal"  # every job would end so


class JobStatus(TextEnum):
    """The state of a job; each member equals its text.

    >>> JobStatus.FINISHED == "finished", f"{JobStatus.FINISHED}", JobStatus.STOPPED.is_over
    (True, 'finished', False)
    """

    RUNNING = "running"
    WAITING = "waiting"  # to be retried in this sweep
    FINISHED = "finished"
    FAILED = "failed"  # for good
    STOPPED = "stopped"  # the sweep ended first; a resumed sweep runs it again

    @property
    def is_over(self) -> bool:
        """Whether the job has its result, or failed for good."""
        return self in (JobStatus.FINISHED, JobStatus.FAILED)


@dataclass(frozen=True, slots=True)
class JobResult:
    """How a job ended.

    Attributes:
        num: The job's number.
        name: ``Thread-<slot>_<n>`` of its last attempt.
        params: Its parameters, a plain dict.
        status: :attr:`JobStatus.FINISHED`, ``FAILED`` or ``STOPPED``; equal to its text.
        score: The best score it gave, ``None`` if it gave none.
        value: What it returned, ``None`` if it did not finish.
        attempts: How many attempts it took.
        duration_s: Seconds its last attempt took.
        slot: Slot of its last attempt, from 1; 0 if it never started.
        device: Device of that slot.
        error: Last line of its error, ``""`` if none.
        traceback: The whole traceback as text.
        exception: A copy of the exception, of its class, that holds nothing of the job:
            ``args`` and attributes that are no plain data are only texts in it.
    """

    num: int
    name: str
    params: Mapping[str, Any]
    status: str
    score: float | None = None
    value: Any = None
    attempts: int = 1
    duration_s: float = 0.0
    slot: int = 0
    device: str = ""
    error: str = ""
    traceback: str = ""
    exception: BaseException | None = None


def rank_key(score: float | None, num: int, direction: Direction) -> tuple[int, float, int]:
    """Return a sort key: best first, then NaN and infinities, then no score; ties by number.

    >>> sorted([(0, None), (1, .5), (2, float("nan")), (3, .9), (4, .9)],
    ...        key=lambda r: rank_key(r[1], r[0], Direction.MAXIMIZE))
    [(3, 0.9), (4, 0.9), (1, 0.5), (2, nan), (0, None)]
    """
    if score is None:
        return (2, 0.0, num)
    if not math.isfinite(score):
        return (1, 0.0, num)
    return (0, -score if direction == Direction.MAXIMIZE else score, num)


class NotNow(Enum):
    """The type of :data:`NOT_NOW`."""

    NOT_NOW = "not now"

    def __repr__(self) -> str:
        return self.name


NOT_NOW: Final = NotNow.NOT_NOW
"""A source returns it if it has no job yet; it is asked again after the next result or score."""


class JobSource(Protocol):
    """Where jobs come from: a grid, or a sampler that looks at scores.

    All methods are called from slot threads, and at the end of the sweep from
    the main thread, but never two at the same time: a source needs no lock.
    No other thread waits for them, so they may take their time; only slots
    that need a job do. What they raise ends the sweep.

    Before each ``next_job()``, ``tell()`` and ``tell_score()`` are called for all results and,
    if the source wants them, intermediate scores since the last call, in the order in which
    they happened. After ``None`` it is not asked again, but still receives the last results.

    ``tests/source_contract.py`` is the test suite for implementations.

    Attributes:
        hears_scores: Whether ``tell_score()`` is to be called.
    """

    hears_scores: bool

    @property
    def total(self) -> int | None:
        """How many jobs there will be, ``None`` if unknown. Read from any thread, at any time."""

    def next_job(self) -> Job | NotNow | None:
        """Return the next job, or ``None`` when there are no more.

        :data:`NOT_NOW` means "no job yet". The source is then asked again after
        the next result or intermediate score. It is an error if no job is running
        or waiting to run, because then none would come.
        """

    def tell(self, result: JobResult) -> None:
        """Receive a job's result. Called once for each job that ``next_job()`` returned."""

    def tell_score(self, report: ScoreReported) -> None:
        """Receive an intermediate score of a running job."""


class GridSource:
    """A source that hands out the jobs of an iterable, one by one, lazily."""

    hears_scores = False

    def __init__(self, jobs: Iterable[Job], total: int | None) -> None:
        self.total = total
        self._jobs: Iterator[Job] = iter(jobs)

    def next_job(self) -> Job | None:
        """Return the next job, or ``None`` when there are no more."""
        return next(self._jobs, None)

    def tell(self, result: JobResult) -> None:
        """Do nothing: a grid does not depend on scores."""

    def tell_score(self, report: ScoreReported) -> None:
        """Do nothing, as above."""
