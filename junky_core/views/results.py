"""The result of ``torch_autotrain``."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any, NamedTuple

from junky_core.job.offers import Best
from junky_core.jobs import Direction, JobResult, rank_key
from junky_core.values.texts import visible
from junky_core.values.wording import cell_text, pair_text
from junky_core.views.leaderboard import (
    duration_text,
    leaderboard_text,
    ranked,
    score_text,
    varying_params,
)

__all__ = ["AutotrainResult"]

_HTML_ROWS = 50


class _Five(NamedTuple):
    best_model: Any
    best_model_name: str | None
    best_model_score: float | None
    best_model_params: dict[str, Any] | None
    stats: list[tuple[str, float | None, dict[str, Any], Any]]


class AutotrainResult(_Five):
    """The five fields of ``torch_autotrain``.

    It is a tuple of five for unpacking, comparing and indexing. Its ``repr`` is the
    leaderboard; a notebook shows that as an HTML table.

    Attributes:
        failed: The jobs that failed for good.
        jobs: How every job ended; empty if the result was created without them.
        direction: ``"maximize"`` or ``"minimize"``.

    Example:
        >>> result = AutotrainResult(best_model=None, best_model_name="Thread-1_0",
        ...     best_model_score=0.5, best_model_params={"a": 1},
        ...     stats=[("Thread-1_0", 0.5, {"a": 1}, None)])
        >>> model, name, score, params, stats = result
        >>> name, score, params
        ('Thread-1_0', 0.5, {'a': 1})
    """

    failed: tuple[JobResult, ...] = ()
    jobs: tuple[JobResult, ...] = ()
    direction: Direction = Direction.MAXIMIZE

    def __new__(  # noqa: PYI034 - typing.Self is newer than Python 3.10
        cls,
        *,
        failed: Sequence[JobResult] = (),
        jobs: Sequence[JobResult] = (),
        direction: Direction = Direction.MAXIMIZE,
        **fields: Any,
    ) -> AutotrainResult:
        """Create a result from its fields."""
        self = super().__new__(cls, **fields)
        self.failed = tuple(failed)
        self.jobs = tuple(jobs)
        self.direction = direction
        return self

    @classmethod
    def of(
        cls,
        results: Sequence[JobResult],
        best: Best | None,
        direction: Direction,
        model: Any = None,
    ) -> AutotrainResult:
        """Return the result of a sweep.

        Args:
            results: How the jobs ended, in any order.
            best: The best model on disk. Its job is listed even if it failed later.
            direction: ``"maximize"`` or ``"minimize"``.
            model: The best model, loaded.
        """
        listed = [
            result
            for result in results
            if result.status == "finished" or (best is not None and result.num == best.job)
        ]
        listed.sort(key=lambda result: rank_key(result.score, result.num, direction))
        lead = next((r for r in listed if best is not None and r.num == best.job), None)
        return cls(
            best_model=model,
            best_model_name=None if lead is None else lead.name,
            best_model_score=None if best is None or lead is None else best.score,
            best_model_params=None if lead is None else dict(lead.params),
            stats=[(r.name, r.score, dict(r.params), r.value) for r in listed],
            failed=[result for result in results if result.status == "failed"],
            jobs=results,
            direction=direction,
        )

    @classmethod
    def empty(cls, direction: Direction = Direction.MAXIMIZE) -> AutotrainResult:
        """Return the result of a sweep that ran nothing."""
        return cls.of([], None, direction)

    def __reduce__(self) -> tuple[Any, ...]:
        state = {"failed": self.failed, "jobs": self.jobs, "direction": self.direction}
        return _rebuild, (self._asdict(), state)

    def __repr__(self) -> str:
        table = leaderboard_text(self._results(), self.direction)
        return f"{self._headline()}\n{table}"

    def _repr_html_(self) -> str:
        """Return an HTML table, for notebooks."""
        jobs = ranked(self._results(), self.direction)
        names = varying_params(job.params for job in jobs)
        known = bool(self.jobs)  # whether numbers and durations are known
        heads = ["rank", "score", *(["job"] if known else []), *names, "name"]
        heads += ["time", "retries", "error"] if known or self.failed else []
        body = []
        for rank, job in enumerate(jobs[:_HTML_ROWS], 1):
            finished = job.status == "finished"
            cells = [str(rank) if finished else "", score_text(job.score)]
            cells += [str(job.num)] if known else []
            cells += [cell_text(n, job.params[n]) if n in job.params else "" for n in names]
            cells.append(job.name)
            if known or self.failed:
                time = duration_text(job.duration_s) if job.duration_s else ""
                retries = str(max(0, job.attempts - 1) or "")
                error = (job.error.strip().splitlines() or [job.status])[-1]
                cells += [time, retries, "" if finished else error[:300]]
            body.append("".join(f"<td>{html.escape(visible(cell))}</td>" for cell in cells))
        head = "".join(f"<th>{html.escape(visible(name))}</th>" for name in heads)
        more = len(jobs) - _HTML_ROWS
        tail = f"<p>... and {more} more</p>" if more > 0 else ""
        return (
            f"<p>{html.escape(self._headline())}</p><table><thead><tr>{head}</tr></thead><tbody>"
            + "".join(f"<tr>{cells}</tr>" for cells in body)
            + f"</tbody></table>{tail}"
        )

    def _headline(self) -> str:
        if self.best_model_name is None:
            return "torch_autotrain: no best model"
        params = ", ".join(pair_text(k, v) for k, v in (self.best_model_params or {}).items())
        loaded = "" if self.best_model is None else f", loaded as {type(self.best_model).__name__}"
        return visible(
            f"torch_autotrain: best {self.best_model_name} with score"
            f" {score_text(self.best_model_score)} ({params or 'no parameters'}{loaded})"
        )

    def _results(self) -> tuple[JobResult, ...]:
        """Return how the jobs ended; if that is unknown, take them from ``stats``, in its order."""
        if self.jobs:
            return self.jobs
        failed = {result.name for result in self.failed}
        listed = [
            JobResult(-1, name, params, "finished", score)
            for name, score, params, _ in self.stats
            if name not in failed
        ]
        return (*listed, *self.failed)


def _rebuild(fields: dict[str, Any], state: dict[str, Any]) -> AutotrainResult:
    return AutotrainResult(**fields, **state)
