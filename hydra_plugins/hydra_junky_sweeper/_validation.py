"""Check that every job of a sweep can be composed, before any job runs.

Hydra's own sweeper composes each job. But jobs that make the same choices pass or
fail together, so one of each kind is composed here. Jobs are of one kind when they agree in

- the config groups they choose, and the keys they set (their *structure*), and
- the values they set. Each value counts separately, unless its node accepts every
  value of that type: a node that accepts ``0.1`` accepts ``0.2``, and a node
  without a declared type accepts any string.

Each value is composed with each structure at least once. A value whose key contains
another key of the job (``model={...}`` beside ``model.width=3``) belongs to the
structure, because the two can only fail together.
"""

from __future__ import annotations

import itertools
import logging
import time
from typing import TYPE_CHECKING, Any

from hydra.errors import CompactHydraException
from omegaconf import (
    AnyNode,
    DictConfig,
    FloatNode,
    IntegerNode,
    StringNode,
)

from hydra_plugins.hydra_junky_launcher._compose import composer_of
from hydra_plugins.hydra_junky_sweeper._errors import HydraConfigError
from hydra_plugins.hydra_junky_sweeper._overrides import bare_key, value_text
from junky_core.values.user_text import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

    from hydra.core.config_loader import ConfigLoader

    from hydra_plugins.hydra_junky_sweeper._axes import Axis
    from hydra_plugins.hydra_junky_sweeper._space import JobOverrides

__all__ = ["sample_jobs", "validate_jobs"]

log = logging.getLogger(__name__)

_TAKE_STRINGS = (AnyNode, StringNode)
_TAKE_NUMBERS = (AnyNode, StringNode, IntegerNode, FloatNode)


def validate_jobs(jobs: JobOverrides, config_loader: ConfigLoader, config: DictConfig) -> None:
    """Compose one job of each kind.

    Raises:
        Exception: What Hydra raised for a job, with that job's overrides in its message.
    """
    started = time.perf_counter()
    composer = composer_of(config_loader, config)  # our launcher uses the same one

    def compose(num: int) -> DictConfig:
        overrides = jobs[num]
        try:
            return composer.compose(overrides)
        except Exception as error:
            what = f"Job #{num} cannot be composed; its overrides: {shown(list(overrides))}"
            if not isinstance(error, CompactHydraException):
                # Hydra does not expect it, and would print a traceback of its own code.
                raise HydraConfigError(f"{what}\n{type(error).__name__}: {error}") from error
            # Keep Hydra's type; its constructor is unknown, so change the arguments.
            said = f"{error}\n" if str(error) else ""
            error.args = (f"{said}Job #{num} cannot be composed; its overrides: {overrides}",)
            raise

    def is_group(key: str) -> bool:
        return composer.is_group(bare_key(key).partition("@")[0])

    count = 0
    for num in sample_jobs(jobs, is_group, compose):
        compose(num)
        count += 1
    log.debug(
        "Composed %d of %d jobs in %.2f s to check them",
        count,
        len(jobs),
        time.perf_counter() - started,
    )


def sample_jobs(
    jobs: JobOverrides, is_group: Callable[[str], bool], compose: Callable[[int], DictConfig]
) -> Iterator[int]:
    """Yield the numbers of jobs that represent all others, each once.

    Args:
        jobs: All jobs.
        is_group: Returns whether a key selects an option of a config group.
        compose: Returns the config of a job.

    >>> from hydra_plugins.hydra_junky_sweeper._space import JobOverrides
    >>> from junky_core.space.grammar import expand_fit_params
    >>> jobs = JobOverrides([], expand_fit_params([("lr", [0.1, 0.2, 1]), ("db", ["a", "b"])]))
    >>> list(sample_jobs(jobs, {"db"}.__contains__, lambda num: OmegaConf.create({"lr": 0.1})))
    [0, 1, 4, 5]
    """
    inner_firsts, inner_all = _inner_samples(jobs, is_group, compose)
    outer_firsts, outer_all = _outer_samples(jobs, is_group, compose)
    inner_count = len(jobs.space)
    seen: set[int] = set()
    for outer, inner in itertools.chain(
        itertools.product(outer_firsts, inner_all), itertools.product(outer_all, inner_firsts)
    ):
        num = outer * inner_count + inner
        if num not in seen:
            seen.add(num)
            yield num


def _inner_samples(
    jobs: JobOverrides, is_group: Callable[[str], bool], compose: Callable[[int], DictConfig]
) -> tuple[list[int], list[int]]:
    """Return the first combination of each structure, and one for each value in each structure."""
    outer_names = [bare_key(axis.key) for axis in jobs.axes]
    firsts: dict[Hashable, _Places] = {}
    inner_firsts: list[int] = []
    samples: list[int] = []
    seen: set[Hashable] = set()
    for index, combination in enumerate(jobs.space):
        structure = _structure(combination, outer_names, is_group)
        new = structure not in firsts
        if new:
            firsts[structure] = _Places(compose, index)
            inner_firsts.append(index)
        places = firsts[structure]
        kinds = {
            (structure, key, _kind(value, places.type_of(key)))
            for key, value in combination.items()
            if key in structure  # with no value beside it
        }
        if new or not kinds <= seen:
            seen |= kinds
            samples.append(index)
    return inner_firsts, samples


def _structure(
    combination: Mapping[str, Any], outer_names: Sequence[str], is_group: Callable[[str], bool]
) -> tuple[Hashable, ...]:
    """Return the keys of a combination, with its value for each that is a choice."""
    names = [*outer_names, *map(bare_key, combination)]
    return tuple(
        (key, value_text(value)) if is_group(key) or _contains_one(key, names) else key
        for key, value in combination.items()
    )


def _contains_one(key: str, names: Sequence[str]) -> bool:
    inside = bare_key(key) + "."
    return any(name.startswith(inside) for name in names)


class _Places:
    """The classes of the nodes that the keys of a job lead to."""

    def __init__(self, compose: Callable[[int], DictConfig], num: int) -> None:
        self._compose = compose
        self._num = num
        self._config: DictConfig | None = None
        self._types: dict[str, type | None] = {}

    def type_of(self, key: str) -> type | None:
        """Return the class of the node at ``key``, ``None`` if it is unknown."""
        if key not in self._types:
            if self._config is None:
                self._config = self._compose(self._num)
            node: Any = self._config
            for name in bare_key(key).split("."):
                content = node._value() if isinstance(node, DictConfig) else None  # noqa: SLF001 - nodes, not values
                node = content.get(name) if isinstance(content, dict) else None
            self._types[key] = type(node) if node is not None else None
        return self._types[key]


def _kind(value: Any, place: type | None) -> Hashable:
    """Return what is composed once: the value, or its type if the node accepts all of it."""
    kind = type(value)
    if kind is float and place in _TAKE_NUMBERS:
        return (kind, value.is_integer())
    if kind is int and place in _TAKE_NUMBERS:
        return (kind, None)
    if kind is str and place in _TAKE_STRINGS and "${" not in value:
        return (kind, None)
    return (kind, value_text(value))


def _outer_samples(
    jobs: JobOverrides, is_group: Callable[[str], bool], compose: Callable[[int], DictConfig]
) -> tuple[list[int], list[int]]:
    """Do the same for the command line: one number for a choice of all axes' values."""
    axes = jobs.axes
    names = [bare_key(axis.key) for axis in axes]
    strides = [1] * len(axes)
    for at in range(len(axes) - 2, -1, -1):
        strides[at] = strides[at + 1] * len(axes[at + 1].texts)
    choices = [
        at for at, axis in enumerate(axes) if is_group(axis.key) or _contains_one(axis.key, names)
    ]
    firsts = [
        sum(pick * strides[at] for at, pick in zip(choices, picks, strict=True))
        for picks in itertools.product(*(range(len(axes[at].texts)) for at in choices))
    ]
    samples = list(firsts)
    for first in firsts:
        places = _Places(compose, first * len(jobs.space))
        for at, axis in enumerate(axes):
            if at in choices or not axis.swept:
                continue
            seen: set[Hashable] = set()
            for pick, value in enumerate(axis.values):
                kind = _kind_or_text(axis, pick, value, places)
                if kind not in seen:
                    seen.add(kind)
                    samples.append(first + pick * strides[at])
    return firsts, samples


def _kind_or_text(axis: Axis, pick: int, value: Any, places: _Places) -> Hashable:
    if isinstance(value, (str, int, float)) and value != "???":
        return _kind(value, places.type_of(axis.key))
    return axis.texts[pick]
