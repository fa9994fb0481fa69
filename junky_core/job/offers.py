"""What a job and the keeper of the best model say to each other: offers and answers."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from junky_core.jobs import Direction

__all__ = ["Best", "Offers", "Standing", "Weights"]

# A copy of a state dict; or memory with what torch.save made of one in another process.
Weights: TypeAlias = dict[str, Any] | mmap.mmap


@dataclass(frozen=True, slots=True)
class Best:
    """A best model: its job and attempt, its ``score``, and its place in the order of saves."""

    job: int
    name: str
    score: float
    serial: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """The answer to an offer: whether it is the best, and which model is best now."""

    leads: bool
    best: Best | None
    serial: int  # of the save that follows; 0 for none


class Offers(Protocol):
    """Where a job offers its models.

    A :class:`~junky_core.job.best.BestModel`, in this process or another.
    """

    @property
    def direction(self) -> Direction:
        """Whether higher or lower scores are better."""

    def offer(
        self, job: int, name: str, score: float, model: Any, *, check: bool = False
    ) -> Standing:
        """See :meth:`junky_core.job.best.BestModel.offer`."""
