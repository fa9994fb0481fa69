"""All jobs of a sweep: ordinary Hydra sweeps crossed with the grammar, as a lazy sequence.

command line, params:  seed=1,2   data=small        (vary slowest, last one fastest)
grammar:               {width: 64}, {width: 128}
jobs:                  seed=1 data=small width=64
                       seed=1 data=small width=128
                       seed=2 data=small width=64
                       seed=2 data=small width=128
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.hydra_junky_launcher._reading import reading
from hydra_plugins.hydra_junky_sweeper._axes import (
    MOST_JOBS,
    Axis,
    axis_of,
    refuse_hydra_sweep,
)
from hydra_plugins.hydra_junky_sweeper._errors import HydraConfigError, HydraFitParamsError
from hydra_plugins.hydra_junky_sweeper._overrides import (
    NO_KEY,
    bare_key,
    check_key,
    is_hydra_key,
    names_something,
    override_text,
    same_value,
    value_text,
)
from junky_core.errors import FitParamsError
from junky_core.space.grammar import FitParams, expand_fit_params
from junky_core.values.identity import freeze
from junky_core.values.user_text import shown

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader

    from junky_core.jobs import JobResult

__all__ = ["JobOverrides", "build_jobs", "read_fit_params", "read_params"]

log = logging.getLogger(__name__)

_NAME = "hydra.sweeper.fit_params"
_PARAMS = "hydra.sweeper.params"


class JobOverrides(Sequence[Sequence[str]]):
    """The overrides of each job, made when asked for; a slice of it is lazy too.

    A launcher that takes ten thousand jobs one by one never holds ten thousand
    lists. Reading is safe from several threads at once.
    """

    def __init__(self, axes: Sequence[Axis], space: FitParams, window: range | None = None) -> None:
        self._axes = tuple(axes)
        self._space = space
        # Axes whose key lies inside one of the grammar's (`model.width` in `model`).
        self._inner = frozenset(axis for axis in self._axes if _lies_inside(axis.key, space))
        self._outer = math.prod(len(axis.texts) for axis in self._axes)
        self._window = range(self._outer * len(space)) if window is None else window

    def __len__(self) -> int:
        return len(self._window)

    @overload
    def __getitem__(self, index: int) -> list[str]: ...
    @overload
    def __getitem__(self, index: slice) -> JobOverrides: ...
    def __getitem__(self, index: int | slice) -> list[str] | JobOverrides:
        """Return the overrides of one job as a list, or some jobs as another lazy sequence."""
        if isinstance(index, slice):
            return JobOverrides(self._axes, self._space, self._window[index])
        picks, combination = self._locate(index)
        return self._texts(
            [(axis, axis.texts[pick]) for axis, pick in zip(self._axes, picks, strict=True)],
            combination,
        )

    def _texts(
        self, chosen: Iterable[tuple[Axis, str]], combination: Mapping[str, Any]
    ) -> list[str]:
        """Put the command line first, but last what a mapping of the grammar would overwrite."""
        texts: list[str] = []
        late: list[str] = []
        for axis, text in chosen:
            undone = axis in self._inner and _in_a_mapping(axis.key, combination)
            (late if undone else texts).append(text)
        texts.extend(override_text(key, value) for key, value in combination.items())
        return texts + late

    def __iter__(self) -> Iterator[list[str]]:
        return (self[index] for index in range(len(self)))

    def params_of(self, index: int) -> dict[str, Any]:
        """Return what varies in one job: override keys, as written, and plain values."""
        picks, combination = self._locate(index)
        params = {
            axis.key: axis.values[pick]
            for axis, pick in zip(self._axes, picks, strict=True)
            if axis.swept
        }
        params.update(combination)
        return params

    def overrides_of(self, result: JobResult) -> list[str]:
        """Return the overrides of the job that ``result`` is of.

        A resumed sweep may number its jobs differently, so the job is found by its
        parameters; the fixed overrides are the same for all jobs.
        """
        if result.num < len(self) and freeze(self.params_of(result.num)) == freeze(result.params):
            return self[result.num]
        varying = {bare_key(key) for key in result.params}
        fixed = [
            (axis, axis.texts[0])
            for axis in self._axes
            if not axis.swept and bare_key(axis.key) not in varying
        ]
        return self._texts(fixed, result.params)

    def _locate(self, index: int) -> tuple[list[int], Mapping[str, Any]]:
        outer, inner = divmod(self._window[index], len(self._space))
        picks = []
        for axis in reversed(self._axes):
            outer, pick = divmod(outer, len(axis.texts))
            picks.append(pick)
        return picks[::-1], self._space[inner]

    @property
    def axes(self) -> Sequence[Axis]:
        """The overrides of the command line and of ``params``."""
        return self._axes

    @property
    def space(self) -> FitParams:
        """The combinations of the grammar."""
        return self._space


def _lies_inside(key: str, space: FitParams) -> bool:
    return any(space.mentions(around) for around in _around(key))


def _in_a_mapping(key: str, combination: Mapping[str, Any]) -> bool:
    around = set(_around(key))
    return any(
        isinstance(value, Mapping) and bare_key(name) in around
        for name, value in combination.items()
    )


def _around(key: str) -> list[str]:
    """Return the keys that ``key`` lies inside: ``a`` and ``a.b`` for ``a.b.c``."""
    names = bare_key(key).split(".")
    return [".".join(names[:count]) for count in range(1, len(names))]


def read_fit_params(config: DictConfig) -> Any:
    """Return ``hydra.sweeper.fit_params`` as plain data, interpolations in it untouched.

    ``fit_params: ${grid}`` as a whole is followed to the node it names, and
    the interpolations inside that node are left alone.
    """
    sweeper = OmegaConf.to_container(config.hydra.sweeper, resolve=False)
    assert isinstance(sweeper, dict)
    fit_params = sweeper.get("fit_params")
    if OmegaConf.is_interpolation(config.hydra.sweeper, "fit_params"):
        with reading(f"{_NAME}={fit_params}"):
            fit_params = config.hydra.sweeper.fit_params
        if OmegaConf.is_config(fit_params):
            fit_params = OmegaConf.to_container(fit_params, resolve=False)
    if fit_params == "???":
        raise HydraFitParamsError(
            "hydra.sweeper.fit_params is missing ('???'): give a list such as"
            " [[width, [64, 128]], {optimizer: adam, lr: [1e-3, 1e-2]}], or null"
        )
    return fit_params


def read_params(params: Any) -> dict[str, Any]:
    """Return ``hydra.sweeper.params`` as plain data.

    Raises:
        HydraConfigError: It is not a mapping of override keys.
    """
    if OmegaConf.is_config(params):
        with reading(_PARAMS):
            params = OmegaConf.to_container(params, resolve=True, throw_on_missing=True)
    if params is None:
        return {}
    if not isinstance(params, Mapping) or not all(isinstance(key, str) for key in params):
        raise HydraConfigError(
            f"{_PARAMS}={shown(params)}: expected override keys with their values, such as"
            " {lr: '0.1,0.01', optimizer: adam}, or null"
        )
    return dict(params)


def build_jobs(
    fit_params: Any,
    params: Mapping[str, Any],
    arguments: Sequence[str],
    config_loader: ConfigLoader,
) -> JobOverrides:
    """Cross the command line with the grammar.

    Args:
        fit_params: The grammar, plain data.
        params: ``hydra.sweeper.params``: an override's value for each key.
        arguments: The command line's overrides, without those of ``hydra``.
        config_loader: Hydra's, for ``glob()``.

    Raises:
        HydraFitParamsError: The grammar, a key or a value in it cannot be used.
        HydraConfigError: A sweep is continuous, or has no values.
        ConfigCompositionException: ``hydra`` keys are swept (Hydra's own message).
    """
    parser = OverridesParser.create(config_loader=config_loader)
    overrides: list[Override] = []
    for key, value in params.items():
        with reading(f"{_PARAMS}.{shown(key)[1:-1]}={shown(value)}"):
            overrides += parser.parse_overrides([_param_line(key, value)])
    overrides += parser.parse_overrides(list(arguments))
    # If a key is given twice, the last one counts, in the first one's place, as in Hydra's own.
    axes: dict[str, Axis] = {}
    for override in overrides:
        if not names_something(override.get_key_element()):
            raise HydraConfigError(f"{shown(override.input_line)[1:-1]}: {NO_KEY}")
        refuse_hydra_sweep(override, config_loader)
        axis = axis_of(override)
        axes[axis.key] = axis
    try:
        space = expand_fit_params(fit_params, normalise_key=bare_key, name=_NAME)
        _check_size(axes.values(), space)
        _check(space, parser, config_loader)
        space = _without_overridden(space, axes.values())
    except FitParamsError as error:
        if isinstance(error, HydraFitParamsError):
            raise
        raise HydraFitParamsError(str(error)) from error
    return JobOverrides(tuple(axes.values()), space)


def _param_line(key: str, value: Any) -> str:
    if isinstance(value, str):
        return f"{key}={value}"  # sweep syntax, as in Hydra's own sweepers
    if value is None and key.startswith("~"):
        return key  # deletes whatever is there
    try:
        return f"{key}={value_text(value)}"
    except ValueError as error:
        raise HydraConfigError(f"hydra.sweeper.params.{key}: {error}") from None


def _check_size(axes: Iterable[Axis], space: FitParams) -> None:
    count = math.prod(len(axis.texts) for axis in axes) * space.size
    if count > MOST_JOBS:
        because = [f"{axis.key}: {len(axis.texts)} values" for axis in axes]
        raise HydraConfigError(
            f"this sweep has {shown(count)} jobs, and at most {MOST_JOBS} are possible:\n  "
            + "\n  ".join([*because, *space.explain(20)])
        )


def _check(space: FitParams, parser: OverridesParser, config_loader: ConfigLoader) -> None:
    """Refuse keys and values that no override can carry, before any job."""
    keys: set[str] = set()
    for combination in space:
        for key, value in combination.items():
            if key not in keys:
                check_key(key)
                keys.add(key)
            text = override_text(key, value)
            if is_hydra_key(key):
                swept = f"{key}=choice({value_text(value)})" if "=" in text else text
                refuse_hydra_sweep(parser.parse_override(swept), config_loader)


def _without_overridden(space: FitParams, axes: Iterable[Axis]) -> FitParams:
    """Remove from the grid the keys that the command line sets."""
    for axis in axes:
        if not space.mentions(axis.key):
            continue
        if not axis.swept:
            # A deletion has no value that an alternative could contain.
            text = axis.texts[0]
            deletes = axis.key.startswith("~")
            kept = None if deletes else space.fixing(axis.key, axis.values[0], same_value)
            if kept is None:
                log.warning(
                    "%s replaces the values of %s in %s, which do not include this one",
                    text,
                    bare_key(axis.key),
                    _NAME,
                )
            else:
                space = kept
        space = space.without_key(axis.key)
    return space
