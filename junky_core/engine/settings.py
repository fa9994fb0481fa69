"""How a sweep is run: everything that travels through the engine unchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from junky_core.errors import ConfigError
from junky_core.executors.kinds import KILL_AFTER_S, ExecutorKind
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
        executor: An :class:`ExecutorKind`, or its text.
        value_is_score: A job that gave no score is scored by the number it returned.
        resume_hint: How to resume this sweep, for messages.
        next_numbers: By slot, the ``n`` its next name gets.
        spec: What was asked for, for the journal.
        superseded: Jobs of the journal that do not count any more.
        folder: The sweep's folder, if it has one.
    """

    direction: Direction = Direction.MAXIMIZE
    executor: ExecutorKind = ExecutorKind.THREADS
    max_retries: int = 1
    seed: int | None = None
    threads_per_slot: int | None = None
    fail_fast: int | None = 5
    job_timeout_s: float | None = None
    sweep_timeout_s: float | None = None
    kill_after_s: float = KILL_AFTER_S
    value_is_score: bool = False
    resume_hint: str = ""
    resumed: bool = False
    next_numbers: Mapping[int, int] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)
    superseded: Sequence[int] = ()
    sweep_id: str = ""
    folder: Path | None = None

    def __post_init__(self) -> None:
        for name, choices in (("direction", Direction), ("executor", ExecutorKind)):
            object.__setattr__(self, name, _choice(name, getattr(self, name), choices))
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
            if getattr(self, name) is not None:
                _seconds(name, getattr(self, name), ", or None")
        _seconds("kill_after_s", self.kill_after_s)

    def how_to_resume(self) -> str:
        """Return a sentence on how to resume, to append to a message; ``""`` if there is no way."""
        return f". To resume: {self.resume_hint}" if self.resume_hint else ""


def _choice(name: str, value: Any, choices: type[Enum]) -> Enum:
    try:
        return choices(value)
    except ValueError:
        expected = " or ".join(repr(choice.value) for choice in choices)
        raise ConfigError(f"{name} is {shown(value)}; it must be {expected}") from None


def _seconds(name: str, value: Any, others: str = "") -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (is_number and value > 0):
        raise ConfigError(f"{name} is {shown(value)}; it must be seconds above 0{others}")


def _whole(name: str, value: Any, least: int, most: int | None = None) -> None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or value < least or (most is not None and value > most):
        limits = f"{least} or more" if most is None else f"{least} to {most}"
        raise ConfigError(f"{name} is {shown(value)}; it must be a whole number, {limits}")
