"""The data of the report's page: the sweep as columns of plain JSON values."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from junky_core.jobs import JobStatus, rank_key
from junky_core.record.rows import JobRecord
from junky_core.record.state import SweepState
from junky_core.values.texts import visible
from junky_core.values.wording import cell_text, param_text
from junky_core.views.leaderboard import varying_params
from junky_core.views.report.importance import importance

__all__ = ["payload_of"]

_MAX_ERROR = 600
_MAX_EXACT = 2**53  # beyond it JavaScript rounds


def payload_of(state: SweepState, title: str) -> dict[str, Any]:
    """Return the data that the page shows.

    A parameter's column holds a number, or ``[k]`` for ``labels[k]``, or
    ``null`` where the job does not have the parameter. Times are seconds of run
    time, without the pauses between sessions of a resumed sweep.
    """
    shown: dict[str, Any] = _shown(_payload_of(state, title))
    return shown


def _shown(value: Any) -> Any:
    """Escape the control characters in all texts."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, list):
        return [_shown(one) for one in value]
    if isinstance(value, dict):
        return {key: _shown(one) for key, one in value.items()}
    return value


def _payload_of(state: SweepState, title: str) -> dict[str, Any]:
    jobs = _ranked(state)
    names = varying_params(job.params for job in jobs)
    clock = _clock(state.sessions)
    now = state.sessions[-1][1] if state.sessions else time.time()
    errors: dict[str, int] = {}
    return {
        "title": title,
        "source": state.source,
        "made": time.strftime("%Y-%m-%d %H:%M"),
        "started": _date(state.sessions[0][0]) if state.sessions else None,
        "direction": state.direction,
        "seed": state.seed,
        "ended": state.ended,
        "sessions": [clock(first) for first, _ in state.sessions][1:],
        "hasTimes": state.has_times,
        "runTime": clock(now) if state.sessions else 0,
        "devices": state.devices,
        "total": state.total,
        "params": [_column(name, jobs) for name in names],
        "importance": _importances(names, jobs),
        "fixed": _fixed(jobs, names),
        "num": [job.num for job in jobs],
        "name": [job.name for job in jobs],
        "status": [job.status for job in jobs],
        "score": [_number(job.score) for job in jobs],
        "scoreText": [_odd_score(job.score) for job in jobs],
        "duration": [round(job.duration_s, 3) for job in jobs],
        "slot": [job.slot for job in jobs],
        "attempts": [job.attempts for job in jobs],
        "ended_at": [None if job.ended is None else clock(job.ended) for job in jobs],
        "error": [_index(errors, _last_line(job.error)) for job in jobs],
        "errors": list(errors),
        "bests": [
            [clock(at) if state.has_times else at, score, job] for at, score, job in state.bests
        ],
        "spans": [
            [s.job, s.slot, clock(s.start), clock(s.end if s.end is not None else now), s.outcome]
            for s in state.attempts
            if s.job in state.jobs
        ],
    }


def _ranked(state: SweepState) -> list[JobRecord]:
    """Return the jobs in the order of the leaderboard: finished ones by rank, then the others."""
    direction = state.direction

    def key(job: JobRecord) -> tuple[int, tuple[int, float, int]]:
        done = job.status is JobStatus.FINISHED
        return (0 if done else 1), rank_key(job.score if done else None, job.num, direction)

    return sorted(state.jobs.values(), key=key)


def _column(name: str, jobs: Sequence[JobRecord]) -> dict[str, Any]:
    labels: dict[str, int] = {}
    values: list[Any] = []
    for job in jobs:
        if name not in job.params:
            values.append(None)
            continue
        value = job.params[name]
        number = _number(value)
        values.append([_index(labels, cell_text(name, value))] if number is None else number)
    return {"name": name, "labels": list(labels), "values": values}


def _importances(names: Sequence[str], jobs: Sequence[JobRecord]) -> list[float | None]:
    scored = [job for job in jobs if job.status is JobStatus.FINISHED and job.score is not None]
    scores = [float(job.score or 0.0) for job in scored]

    def of(name: str) -> float | None:
        column = [_group(job.params[name]) if name in job.params else None for job in scored]
        share = importance(column, scores)
        return None if share is None else round(share, 4)

    return [of(name) for name in names]


def _group(value: Any) -> Any:
    number = _number(value)
    return ("label", param_text(value)) if number is None else number


def _fixed(jobs: Sequence[JobRecord], varying: Sequence[str]) -> list[list[str]]:
    first: Mapping[str, Any] = jobs[0].params if jobs else {}
    return [[name, cell_text(name, value)] for name, value in first.items() if name not in varying]


def _number(value: Any) -> int | float | None:
    """Return ``value`` if it is a number that JSON and JavaScript represent exactly."""
    kind = type(value)  # isinstance() would ask the value
    if kind is bool or not issubclass(kind, (int, float)):
        return None
    if issubclass(kind, int):
        return int(value) if abs(value) <= _MAX_EXACT else None
    return float(value) if math.isfinite(value) else None


def _odd_score(score: float | None) -> str:
    return "" if score is None or math.isfinite(score) else str(float(score))


def _index(known: dict[str, int], text: str) -> int:
    return known.setdefault(text, len(known))


def _last_line(error: str) -> str:
    lines = error.strip().splitlines()
    return lines[-1][:_MAX_ERROR] if lines else ""


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _clock(sessions: Sequence[Sequence[float]]) -> Callable[[float], float]:
    """Return a function that turns a time into seconds of run time."""

    def clock(at: float) -> float:
        run = 0.0
        for first, last in sessions:
            if at < first:
                break
            run += min(at, last) - first
        return round(run, 3)

    return clock
