"""How a running sweep stands, in little memory: for the progress display and ``watch``."""

from __future__ import annotations

import collections
import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from junky_core.events import (
    AttemptFailed,
    Event,
    JobFailed,
    JobFinished,
    JobStarted,
    ScoreReported,
    SlotClosed,
    SweepEnded,
    SweepStarted,
)
from junky_core.jobs import rank_key
from junky_core.values.identity import key_of

__all__ = ["LiveSlot", "LiveState"]

_RECENT = 64  # durations that the estimate looks at


@dataclass(slots=True)
class LiveSlot:
    """What one slot is doing; ``job`` is ``None`` while it does nothing."""

    slot: int
    device: str = ""
    job: int | None = None
    name: str = ""
    attempt: int = 1
    params: Mapping[str, Any] = field(default_factory=dict)
    since: float = 0.0
    last: float | None = None
    best: float | None = None
    closed: str = ""


class LiveState:
    """An observer that keeps counts, what each slot does, and the best.

    For one thread at a time: whoever shares it guards it.

    Attributes:
        total: Jobs of this sweep, those of earlier batches included; ``None`` if not known.
        finished: Jobs that finished, those taken from a journal included.
        failed: Jobs that failed for good.
        waiting: Jobs that will run again.
        slots: What each slot does, by number.
        best: ``(score, job, name)`` of the best so far.
        ended: Reason of the end, ``None`` while it runs.
        began: When the sweep, or this batch, began.
    """

    def __init__(self) -> None:
        self.kind = ""
        self.direction = "maximize"
        self.total: int | None = None
        self.finished = 0
        self.failed = 0
        self.waiting: set[int] = set()
        self.slots: dict[int, LiveSlot] = {}
        self.best: tuple[float, int, str] | None = None
        self.ended: str | None = None
        self.began = 0.0
        self._scores: dict[int, tuple[float, str]] = {}  # the best of each job, and its name
        self._superseded: frozenset[int] = frozenset()  # jobs that do not count any more
        self._durations: collections.deque[float] = collections.deque(maxlen=_RECENT)
        self._first: dict[str, Hashable] = {}  # of each parameter, the value it was first seen with
        self._varying: set[str] = set()
        self._seen = 0

    @property
    def running(self) -> int:
        """How many attempts run now."""
        return sum(slot.job is not None for slot in self.slots.values())

    @property
    def left(self) -> int | None:
        """How many jobs have not begun, or wait to run again."""
        if self.total is None:
            return None
        return max(0, self.total - self.finished - self.failed - self.running)

    def varying(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of ``params`` that vary among the jobs seen so far."""
        return {name: value for name, value in params.items() if name in self._varying}

    def eta_s(self, now: float) -> float | None:
        """Return about how many seconds are left; ``None`` if that cannot be told."""
        left, seats = self.left, sum(not slot.closed for slot in self.slots.values())
        if left is None or not self._durations or not seats:
            return None
        mean = sum(self._durations) / len(self._durations)
        begun = [slot.since for slot in self.slots.values() if slot.job is not None]
        rest = [max(0.0, mean - (now - since)) for since in begun]
        return max((left * mean + sum(rest)) / seats, max(rest, default=0.0))

    def on_event(self, event: Event) -> None:
        """Take note of ``event``."""
        if isinstance(event, ScoreReported):
            slot = self._slot_of(event.name)
            if slot is not None:
                slot.last = event.score
                if event.improved:
                    slot.best = event.score
            self._offer(event.score, event.job, event.name)
        elif isinstance(event, JobStarted):
            self._job_started(event)
        elif isinstance(event, (JobFinished, JobFailed)):
            self.waiting.discard(event.job)
            self._free(event.slot, event.name)
            if self.best is not None and self.best[1] == event.job:
                self.best = (self.best[0], event.job, event.name)  # listed by its last attempt
            if isinstance(event, JobFinished):
                self.finished += 1
                self._durations.append(event.duration_s)
                if event.score is not None:
                    self._offer(event.score, event.job, event.name)
            else:
                self.failed += 1
        elif isinstance(event, AttemptFailed):
            self._free(event.slot, event.name)
            if event.retry:
                self.waiting.add(event.job)
        elif isinstance(event, SlotClosed):
            slot = self._slot(event.slot, event.device)
            slot.closed = (event.reason.strip().splitlines() or ["closed"])[-1]
        elif isinstance(event, SweepStarted):
            self._started(event)
        elif isinstance(event, SweepEnded):
            self.ended = event.reason
            for slot in self.slots.values():
                slot.job = None

    def _started(self, event: SweepStarted) -> None:
        self.kind, self.direction = event.kind, event.direction
        if event.resumed:  # what failed or was cut short runs again
            self.finished = self.failed = 0
        self.finished += event.already_finished
        superseded = frozenset(event.superseded)
        if superseded != self._superseded:
            self._superseded, self.best = superseded, None
            for num, (score, name) in self._scores.items():
                if num not in superseded:
                    self._lead(score, num, name)
        self.waiting.clear()
        done = self.finished + self.failed
        self.total = None if event.total is None else done + event.total
        self.slots = {
            number: LiveSlot(number, str(device)) for number, device in enumerate(event.devices, 1)
        }
        self.ended, self.began = None, event.time

    def _job_started(self, event: JobStarted) -> None:
        self.waiting.discard(event.job)
        slot = self._slot(event.slot, event.device)
        slot.job, slot.name, slot.attempt = event.job, event.name, event.attempt
        slot.params, slot.since, slot.last, slot.best = event.params, event.time, None, None
        for name, value in event.params.items():
            if name in self._varying:
                continue
            frozen = key_of(value)
            if name not in self._first:
                self._first[name] = frozen
                if self._seen:  # not there in the jobs before
                    self._varying.add(name)
            elif self._first[name] != frozen:
                self._varying.add(name)
        if len(event.params) < len(self._first):
            self._varying.update(self._first.keys() - event.params.keys())
        self._seen += 1

    def _offer(self, score: float, job: int, name: str) -> None:
        if not math.isfinite(score):
            return
        known = self._scores.get(job)
        if known is None or rank_key(score, 0, self.direction) <= rank_key(
            known[0], 0, self.direction
        ):
            self._scores[job] = (score, name)
        self._lead(score, job, name)

    def _lead(self, score: float, job: int, name: str) -> None:
        if self.best is None or (
            rank_key(score, job, self.direction) < rank_key(*self.best[:2], self.direction)
        ):
            self.best = (score, job, name)

    def _slot(self, number: int, device: str) -> LiveSlot:
        if number not in self.slots:
            self.slots[number] = LiveSlot(number, device)
        return self.slots[number]

    def _slot_of(self, name: str) -> LiveSlot | None:
        return next((slot for slot in self.slots.values() if slot.name == name), None)

    def _free(self, number: int, name: str) -> None:
        slot = self.slots.get(number)
        if slot is not None and slot.name == name:
            slot.job = None
