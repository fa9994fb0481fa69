"""Which scores are better, from what a sweeper or a launcher was given."""

from __future__ import annotations

import enum
from typing import Any

from hydra_plugins.hydra_junky_launcher._errors import HydraConfigError

__all__ = ["first_direction", "read_direction"]


def read_direction(key: str, direction: Any) -> str:
    """Return ``"maximize"`` or ``"minimize"``, from a string or an enum member.

    Args:
        key: Whose value it is, for the message: ``hydra.sweeper.direction``.
        direction: In any case; ``Direction.minimize`` is ``minimize`` too.

    Raises:
        HydraConfigError: It is neither.
    """
    name = direction.name if isinstance(direction, enum.Enum) else direction
    if isinstance(name, str):
        name = name.lower().removeprefix("direction.")
        if name in ("maximize", "minimize"):
            return name
    raise HydraConfigError(f"{key}={direction!r}: expected maximize or minimize")


def first_direction(key: str, direction: Any) -> str:
    """Return the direction that ranks models, from what any sweeper may have for it.

    Optuna's sweeper has one for each objective: the first one counts. A sweeper
    without objectives has none: the higher score is better.

    Raises:
        HydraConfigError: It is neither ``maximize`` nor ``minimize``.
    """
    if not isinstance(direction, str) and hasattr(direction, "__getitem__"):
        direction = direction[0] if len(direction) else None
    return "maximize" if direction is None else read_direction(key, direction)
