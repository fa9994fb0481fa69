"""Whether every job of a sweep can be composed, found out before any job runs.

Composing each job would be the plain way, and is what Hydra's own sweeper does.
Jobs that make the same choices fail or pass together, so one of each kind is
composed here. Jobs are of one kind when they agree in

- the config groups they choose, and the keys they set (their *structure*), and
- the values they set, where any value that is no number counts by itself, and
  numbers count by their type: a node that takes ``0.1`` takes ``0.2``.

Each structure meets each value at least once. A value whose key contains
another key of the job (``model={...}`` beside ``model.width=3``) belongs to the
structure, because the two can only fail together.
"""

from __future__ import annotations

import itertools
import logging
import time
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from hydra_plugins.hydra_junky_sweeper._overrides import bare_key, value_text

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

    from hydra.core.config_loader import ConfigLoader

    from hydra_plugins.hydra_junky_sweeper._space import Axis, JobOverrides

__all__ = ["sample_jobs", "validate_jobs"]

log = logging.getLogger(__name__)


def validate_jobs(jobs: JobOverrides, config_loader: ConfigLoader, config: DictConfig) -> None:
    """Compose one job of each kind.

    Raises:
        Exception: What Hydra raised for a job, with that job's overrides in its message.
    """
    started = time.perf_counter()
    count = 0
    for num in sample_jobs(jobs, _group_test(config_loader, config)):
        overrides = jobs[num]
        try:
            config_loader.load_sweep_config(config, overrides)
        except Exception as error:
            # The type is Hydra's and stays: its constructor is unknown, so that args are set.
            said = f"{error}\n" if str(error) else ""
            error.args = (f"{said}Job #{num} cannot be composed; its overrides: {overrides}",)
            raise
        count += 1
    log.debug(
        "Composed %d of %d jobs in %.2f s to check them",
        count,
        len(jobs),
        time.perf_counter() - started,
    )


def _group_test(config_loader: ConfigLoader, config: DictConfig) -> Callable[[str], bool]:
    """Return a test that says whether a key selects an option of a config group."""
    name = config.hydra.job.config_name
    overrides = OmegaConf.to_container(config.hydra.overrides.hydra)
    known: dict[str, bool] = {}

    def is_group(key: str) -> bool:
        group = bare_key(key).partition("@")[0]
        if group not in known:
            known[group] = bool(
                config_loader.get_group_options(
                    group,
                    results_filter=None,
                    config_name=name,
                    overrides=overrides,  # type: ignore[arg-type]
                )
            )
        return known[group]

    return is_group


def sample_jobs(jobs: JobOverrides, is_group: Callable[[str], bool]) -> Iterator[int]:
    """Yield the numbers of jobs that stand for all others, each once.

    >>> from junky_core.grammar import expand_fit_params
    >>> space = expand_fit_params([("lr", [0.1, 0.2, 1]), ("db", ["a", "b"])])
    >>> list(sample_jobs(JobOverrides([], space), lambda key: key == "db"))
    [0, 1, 4, 5]
    """
    inner_firsts, inner_all = _inner_samples(jobs, is_group)
    outer_firsts, outer_all = _outer_samples(jobs.axes, is_group)
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
    jobs: JobOverrides, is_group: Callable[[str], bool]
) -> tuple[list[int], list[int]]:
    """Return the first combination of each structure, and one for each value in each structure."""
    fixed_keys = [bare_key(axis.key) for axis in jobs.axes]
    firsts: list[int] = []
    samples: list[int] = []
    structures: set[Hashable] = set()
    seen: set[Hashable] = set()
    for index, combination in enumerate(jobs.space):
        structure, kinds = _kind_of(combination, fixed_keys, is_group)
        if structure not in structures:
            structures.add(structure)
            firsts.append(index)
        fresh = [kind for kind in kinds if (structure, kind) not in seen]
        if fresh or firsts[-1] == index:
            seen.update((structure, kind) for kind in fresh)
            samples.append(index)
    return firsts, samples


def _kind_of(
    combination: Mapping[str, Any], fixed_keys: Sequence[str], is_group: Callable[[str], bool]
) -> tuple[Hashable, list[Hashable]]:
    structure: list[Hashable] = []
    kinds: list[Hashable] = []
    names = [*fixed_keys, *map(bare_key, combination)]
    for key, value in combination.items():
        kind = _value_kind(value)
        inside = bare_key(key) + "."
        if is_group(key) or any(name.startswith(inside) for name in names):
            structure.append((key, kind))
        else:
            structure.append(key)
            kinds.append((key, kind))
    return tuple(structure), kinds


def _value_kind(value: Any) -> Hashable:
    kind = type(value)
    if kind is float:
        return (kind, value.is_integer())
    return (kind, None if kind is int else value_text(value))


def _outer_samples(
    axes: Sequence[Axis], is_group: Callable[[str], bool]
) -> tuple[list[int], list[int]]:
    """Do the same for the command line: one number for a choice of all axes' values."""
    sizes = [len(axis.texts) for axis in axes]
    strides = [1] * len(axes)
    for place in range(len(axes) - 2, -1, -1):
        strides[place] = strides[place + 1] * sizes[place + 1]
    choices = [place for place, axis in enumerate(axes) if is_group(axis.key)]
    firsts = [
        sum(pick * strides[place] for place, pick in zip(choices, picks, strict=True))
        for picks in itertools.product(*(range(sizes[place]) for place in choices))
    ]
    samples = list(firsts)
    for place, axis in enumerate(axes):
        if place not in choices:
            seen = {_axis_kind(axis, 0)}
            for pick in range(1, sizes[place]):
                kind = _axis_kind(axis, pick)
                if kind not in seen:
                    seen.add(kind)
                    samples.extend(first + pick * strides[place] for first in firsts)
    return firsts, samples


def _axis_kind(axis: Axis, pick: int) -> Hashable:
    value = axis.values[pick]
    return _value_kind(value) if isinstance(value, (int, float)) else axis.texts[pick]
