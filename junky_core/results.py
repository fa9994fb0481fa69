"""What a sweep gives back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from junky_core.jobs import JobResult

__all__ = ["AutotrainResult"]


class _Five(NamedTuple):
    best_model: Any
    best_model_name: str | None
    best_model_score: float | None
    best_model_params: dict[str, Any] | None
    stats: list[tuple[str, float | None, dict[str, Any], Any]]


class AutotrainResult(_Five):
    """The five fields of ``torch_autotrain``; ``failed`` holds the jobs that failed for good."""

    failed: tuple[JobResult, ...]

    def __new__(  # noqa: PYI034 - typing.Self is newer than Python 3.10
        cls, *, failed: Sequence[JobResult] = (), **fields: Any
    ) -> AutotrainResult:
        """Make one from its fields."""
        self = super().__new__(cls, **fields)
        self.failed = tuple(failed)
        return self
