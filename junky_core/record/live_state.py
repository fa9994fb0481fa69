"""The state of a running sweep in little memory: for the progress display and ``watch``."""

from __future__ import annotations

import collections
from collections.abc import Hashable, Mapping
from typing import Any

from junky_core.events import AttemptFailed, Event, JobFailed, JobFinished, JobStarted
from junky_core.record.state import SweepState
from junky_core.values.identity import key_of

__all__ = ["LiveState"]

_RECENT = 64  # how many durations the estimate uses


class LiveState(SweepState):
    """A sweep's state that drops the details of jobs that are over. Not thread-safe.

    Dropped are their parameters, values, errors and attempts. Kept instead are the names of the
    parameters that vary, and the latest durations of jobs.
    """

    def __init__(self) -> None:
        super().__init__()
        self._durations: collections.deque[float] = collections.deque(maxlen=_RECENT)
        self._first: dict[str, Hashable] = {}  # for each parameter, its first value
        self._varying: set[str] = set()
        self._seen = False  # whether there was a job

    def on_event(self, event: Event) -> None:
        """Update the state with ``event``."""
        super().on_event(event)
        if isinstance(event, JobStarted):
            self._see(event.params)
        elif isinstance(event, (AttemptFailed, JobFinished, JobFailed)):
            if isinstance(event, JobFinished):
                self._durations.append(event.duration_s)
            job = self._job(event.job)
            job.params, job.info, job.value, job.fixed = {}, {}, None, None
            job.key = job.error = job.traceback = ""
            self.attempts.clear()

    def varying(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of ``params`` that vary among the jobs seen so far."""
        return {name: value for name, value in params.items() if name in self._varying}

    def eta_s(self, now: float) -> float | None:
        """Return an estimate of the seconds left; ``None`` if there is none."""
        left, seats = self.left, sum(not slot.closed for slot in self.slots.values())
        if left is None or not self._durations or not seats:
            return None
        mean = sum(self._durations) / len(self._durations)
        begun = [slot.attempt.start for slot in self.slots.values() if slot.attempt is not None]
        rest = [max(0.0, mean - (now - start)) for start in begun]
        return max((left * mean + sum(rest)) / seats, max(rest, default=0.0))

    def _see(self, params: Mapping[str, Any]) -> None:
        """Update the names of the parameters that vary."""
        for name, value in params.items():
            if name in self._varying:
                continue
            if self._seen and name not in self._first:  # earlier jobs do not have it
                self._varying.add(name)
            key = key_of(value)
            if self._first.setdefault(name, key) != key:
                self._varying.add(name)
        if len(params) < len(self._first):
            self._varying.update(self._first.keys() - params.keys())
        self._seen = True
