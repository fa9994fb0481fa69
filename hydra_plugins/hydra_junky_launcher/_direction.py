"""Whether higher or lower scores are better: one direction for sweeper and launcher."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydra_plugins.hydra_junky_launcher._errors import HydraConfigError
from junky_core.jobs import Direction

__all__ = ["one_direction", "read_direction"]

# Where sweepers without a `direction` keep theirs (Nevergrad's, Ax's): key -> (if true, if false).
_FLAGS = {
    "optim.maximize": (Direction.MAXIMIZE, Direction.MINIMIZE),
    "ax_config.experiment.minimize": (Direction.MINIMIZE, Direction.MAXIMIZE),
}


def one_direction(sweeper: Any, launcher: Any) -> Direction:
    """Return the direction of a sweep, from its sweeper and its launcher.

    If only one of them has a direction, it applies; if neither has, higher scores
    are better.

    Args:
        sweeper: The keys of ``hydra.sweeper``, of any sweeper; ``None`` if there is none.
        launcher: The keys of ``hydra.launcher``, likewise.

    Raises:
        HydraConfigError: The two differ, or one cannot be read.
    """
    key, theirs = _of_sweeper(sweeper)
    ours = _direction_of(launcher, "hydra.launcher")
    if theirs and ours and theirs != ours:
        raise HydraConfigError(
            f"a sweep has one direction, but {key} says {theirs} and hydra.launcher.direction says "
            f"{ours}. Set {key}, and leave hydra.launcher.direction out: it follows the sweeper's"
        )
    return theirs or ours or Direction.MAXIMIZE


def read_direction(key: str, direction: Any) -> Direction:
    """Return a direction, from a string or any enum's member.

    Args:
        key: Whose value it is, for the message: ``hydra.sweeper.direction``.
        direction: In any case; ``Direction.minimize`` is ``minimize`` too.

    Raises:
        HydraConfigError: It is neither.
    """
    name = direction.name if isinstance(direction, enum.Enum) else direction
    if isinstance(name, str):
        name = name.lower().rpartition("direction.")[2]
        with contextlib.suppress(ValueError):
            return Direction(name)
    raise HydraConfigError(f"{key}={direction!r}: expected maximize or minimize")


def _of_sweeper(node: Any) -> tuple[str, Direction | None]:
    """Return a sweeper's direction, and the key that holds it; ``None`` if it has none."""
    direction = _direction_of(node, "hydra.sweeper")
    if direction is None and OmegaConf.is_dict(node):
        for flag, (if_true, if_false) in _FLAGS.items():
            value = OmegaConf.select(node, flag)
            if isinstance(value, bool):
                return f"hydra.sweeper.{flag}", if_true if value else if_false
    return "hydra.sweeper.direction", direction


def _direction_of(node: Any, name: str) -> Direction | None:
    """Return the ``direction`` of a sweeper or launcher; of several objectives, the first's."""
    key = f"{name}.direction"
    try:
        if OmegaConf.is_dict(node):
            value = OmegaConf.select(node, "direction")
        else:
            value = None if node is None else node.get("direction")
        if isinstance(value, Sequence) and not isinstance(value, str):
            value = value[0] if len(value) else None
    except OmegaConfBaseException as error:
        raise HydraConfigError(f"{key} cannot be resolved: {error}") from error
    return None if value is None else read_direction(key, value)
