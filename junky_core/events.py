"""What happens in a sweep, as records, and who may listen.

The sweep emits one frozen record for each thing that happens. Log, journal,
progress display and trackers are observers of these records; none of them is
known to the loop that emits.
"""

from __future__ import annotations

import time as _time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from junky_core.jobs import Direction, TextEnum

__all__ = [
    "AttemptFailed",
    "BestSaved",
    "BestSaving",
    "EndReason",
    "Event",
    "JobFailed",
    "JobFinished",
    "JobStarted",
    "Notice",
    "NoticeLevel",
    "Observer",
    "ScoreReported",
    "SlotClosed",
    "SweepEnded",
    "SweepKind",
    "SweepStarted",
]


class SweepKind(TextEnum):
    """Which door a sweep came in by; each member equals its text."""

    PYTHON = "python"
    HYDRA = "hydra"
    UNKNOWN = ""  # the start of a damaged journal is lost


class NoticeLevel(TextEnum):
    """How serious a notice is; each member equals its text."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class EndReason(TextEnum):
    """Why a sweep ended; each member equals its text."""

    COMPLETED = "completed"
    INTERRUPTED = "interrupted"  # Ctrl-C, SIGTERM or SIGHUP
    TIMEOUT = "timeout"  # of the sweep
    FAIL_FAST = "fail_fast"
    NO_SLOTS = "no_slots"  # every slot is closed
    BEST_NOT_SAVED = "best_not_saved"
    ERROR = "error"  # of the source of jobs, or one that every job would have


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base record. ``time`` is in seconds since the epoch."""

    time: float = field(default_factory=_time.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepStarted(Event):
    """A sweep begins, or continues with another batch of jobs."""

    sweep_id: str
    kind: SweepKind
    total: int | None  # jobs in this run of the source, None if not known beforehand
    resumed: bool = False  # the first batch of a session that continues an earlier sweep
    already_finished: int = 0  # jobs of this batch taken from the journal
    devices: Sequence[str] = ()  # one entry a slot
    threads_per_slot: int | None = None  # None: left alone
    seed: int | None = None
    direction: Direction = Direction.MAXIMIZE
    max_retries: int = 1
    spec: Mapping[str, Any] = field(default_factory=dict)  # what was asked for
    superseded: Sequence[int] = ()  # jobs of the journal that do not count: they ran otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStarted(Event):
    """An attempt of a job begins on a slot."""

    job: int
    key: str  # identity of the job across resumed sweeps
    params: Mapping[str, Any]
    name: str  # "Thread-<slot>_<n>"
    slot: int  # from 1
    device: str
    attempt: int  # from 1
    info: Mapping[str, Any] = field(default_factory=dict)  # Hydra: overrides


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreReported(Event):
    """A job gave a score to ``save_best``."""

    job: int
    name: str
    score: float
    improved: bool  # best of this job so far
    overall: bool  # best of the sweep so far
    best_score: float | None  # best of the sweep, this one included
    best_name: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BestSaving(Event):
    """A best model is whole in a temporary file and about to replace the old one."""

    job: int
    name: str
    score: float
    path: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BestSaved(Event):
    """The best model file is in its place."""

    job: int
    name: str
    score: float
    path: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFailed(Event):
    """An attempt ended without a result."""

    job: int
    name: str
    slot: int
    device: str
    attempt: int
    kind: str  # an EndKind; in a journal that is read it may be any text
    error: str  # "ValueError: bad"
    traceback: str
    duration_s: float
    retry: bool  # the job will run again in this sweep


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFinished(Event):
    """A job has its result; its best save, if any, is on disk."""

    job: int
    name: str
    params: Mapping[str, Any]
    slot: int
    device: str
    attempt: int
    score: float | None
    duration_s: float  # of its last attempt
    value: Any  # what the train method or the task function returned


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFailed(Event):
    """A job failed for good."""

    job: int
    name: str
    params: Mapping[str, Any]
    slot: int
    device: str
    attempt: int
    score: float | None  # the best it gave before it died
    error: str
    traceback: str
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotClosed(Event):
    """A slot takes no more jobs."""

    slot: int
    device: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice(Event):
    """Something a user should read."""

    level: NoticeLevel
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepEnded(Event):
    """The sweep, or this batch of it, is over."""

    reason: str  # an EndReason; in a journal that is read it may be any text
    finished: int
    failed: int
    left: int  # not run, stopped, or not counted as finished because its best model is not on disk
    duration_s: float
    best_job: int | None = None  # of the best model on disk, as the three below
    best_name: str | None = None
    best_score: float | None = None
    best_path: str | None = None


class Observer(Protocol):
    """Listens to a sweep.

    ``on_event`` is called in a separate thread, with one event at a time, in the
    order in which they happened, so no job waits for it. If it raises, that is
    reported once and the sweep continues.
    """

    def on_event(self, event: Event) -> None:
        """Handle ``event``."""
