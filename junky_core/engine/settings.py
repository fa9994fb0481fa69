"""How a sweep is run: everything that travels through the engine unchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from junky_core.errors import ConfigError
from junky_core.jobs import Direction
from junky_core.values.user_text import shown

__all__ = ["SweepSettings"]

_SEEDS = 1 << 64
_MOST_THREADS = 1024  # torch takes the process down when the system has none left


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSettings:
    """How a sweep is run; the fields are those of ``torch_autotrain``.

    Attributes:
        direction: A :class:`Direction`, or its text.
        value_is_score: A job that gave no score is scored by the number it returned.
        resume_hint: How to resume this sweep, for messages.
        next_numbers: By slot, the ``n`` its next name gets.
        spec: What was asked for, for the journal.
        superseded: Jobs of the journal that do not count any more.
        folder: The sweep's folder, if it has one.
    """

    direction: Direction = Direction.MAXIMIZE
    max_retries: int = 1
    seed: int | None = None
    threads_per_slot: int | None = None
    fail_fast: int | None = 5
    job_timeout_s: float | None = None
    sweep_timeout_s: float | None = None
    value_is_score: bool = False
    resume_hint: str = ""
    resumed: bool = False
    next_numbers: Mapping[int, int] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)
    superseded: Sequence[int] = ()
    sweep_id: str = ""
    folder: Path | None = None

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "direction", Direction(self.direction))
        except ValueError:
            raise ConfigError(
                f"direction is {shown(self.direction)}; it must be 'maximize' or 'minimize'"
            ) from None
        _whole("max_retries", self.max_retries, 0)
        if self.threads_per_slot is not None:
            _whole("threads_per_slot", self.threads_per_slot, 1, _MOST_THREADS)
        if self.fail_fast is not None:
            _whole("fail_fast", self.fail_fast, 1)
        if self.seed is not None:
            _whole("seed", self.seed, 0)
            if self.seed >= _SEEDS:
                raise ConfigError(f"seed is {shown(self.seed)}; torch takes seeds below 2**64")
        for name in ("job_timeout_s", "sweep_timeout_s"):
            limit = getattr(self, name)
            if limit is not None and not (
                isinstance(limit, (int, float)) and not isinstance(limit, bool) and limit > 0
            ):
                raise ConfigError(f"{name} is {shown(limit)}; it must be seconds above 0, or None")

    def how_to_resume(self) -> str:
        """Return a sentence on how to resume, to append to a message; ``""`` if there is no way."""
        return f". To resume: {self.resume_hint}" if self.resume_hint else ""


def _whole(name: str, value: Any, least: int, most: int | None = None) -> None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or value < least or (most is not None and value > most):
        limits = f"{least} or more" if most is None else f"{least} to {most}"
        raise ConfigError(f"{name} is {shown(value)}; it must be a whole number, {limits}")
