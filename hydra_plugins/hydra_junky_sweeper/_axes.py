"""One override of the command line or of ``params``, with the values that it sweeps over."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import (
    Override,
    OverrideType,
    QuotedString,
    RangeSweep,
    Transformer,
)
from hydra.errors import ConfigCompositionException

from hydra_plugins.hydra_junky_launcher._reading import reading
from hydra_plugins.hydra_junky_sweeper._errors import HydraConfigError
from hydra_plugins.hydra_junky_sweeper._overrides import value_text
from junky_core.values.user_text import shown

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader

__all__ = ["MOST_JOBS", "Axis", "axis_of", "refuse_hydra_sweep"]

MOST_JOBS = 10_000_000  # a day's work, if each job does nothing

# Overrides whose text Hydra can rebuild from the parsed value; others stay as typed.
_VALUE_TYPES = (OverrideType.CHANGE, OverrideType.ADD, OverrideType.FORCE_ADD)


@dataclasses.dataclass(frozen=True, eq=False)
class Axis:
    """One override of the command line or of ``params``.

    Attributes:
        key: Its key, sign included.
        texts: The whole overrides, one for each value.
        values: The values themselves, as plain data.
        swept: ``False`` for a fixed override (which has one value).
    """

    key: str
    texts: Sequence[str]
    values: Sequence[Any]
    swept: bool


def refuse_hydra_sweep(override: Override, config_loader: ConfigLoader) -> None:
    """Raise Hydra's own error if an override sweeps over ``hydra`` keys.

    Raises:
        ConfigCompositionException: It does.
    """
    if not (override.is_sweep_override() and override.is_hydra_override()):
        return
    from hydra.types import RunMode

    validate = getattr(config_loader, "validate_sweep_overrides_legal", None)
    if validate is not None:
        validate(overrides=[override], run_mode=RunMode.MULTIRUN, from_shell=True)
    raise ConfigCompositionException(
        f"Sweeping over Hydra's configuration is not supported : '{override.input_line}'"
    )


def axis_of(override: Override) -> Axis:
    """Return the axis of an override.

    Raises:
        HydraConfigError: Its sweep is continuous, never ends, or has no values.
    """
    key = override.get_key_element()
    line = override.input_line
    assert line is not None
    if not override.is_sweep_override():
        value = override.value()
        text = line
        if override.type in _VALUE_TYPES:
            text = f"{key}={_element_text(override.get_value_element_as_str(), value)}"
        return Axis(key, [text], [value], swept=False)
    if not override.is_discrete_sweep():
        assert override.value_type is not None
        kind = override.value_type.name.lower().replace("_", " ")
        raise HydraConfigError(
            f"{line}: an {kind} is continuous, and the junky sweeper runs a grid: write"
            f" {key}=choice(...), {key}=range(...) or a list of values, or use a sampling sweeper"
        )
    _check_range(override)
    with reading(shown(line)[1:-1]):
        elements = list(override.sweep_iterator())
    if not elements:
        raise HydraConfigError(f"{line}: nothing to sweep over, because it has no values")
    values = [_plain(element) for element in elements]
    texts = [
        f"{key}={_element_text(Transformer.str(element), value)}"
        for element, value in zip(elements, values, strict=True)
    ]
    return Axis(key, texts, values, swept=True)


def _element_text(text: str, value: Any) -> str:
    """Return Hydra's own text for a parsed value, or ours where Hydra's is full of escapes."""
    if "\\" not in text:
        return text
    try:
        return value_text(value)
    except ValueError:  # Hydra could read it, so Hydra can write it
        return text


def _check_range(override: Override) -> None:
    """Refuse a ``range()`` that never ends; Hydra would count without end."""
    found = override.value()
    if not isinstance(found, RangeSweep) or found.start is None or found.stop is None:
        return
    numbers = (found.start, found.stop, found.step)
    whole = all(math.isfinite(number) for number in numbers) and found.step != 0
    if not whole or abs((found.stop - found.start) / found.step) > MOST_JOBS:
        raise HydraConfigError(
            f"{shown(override.input_line)[1:-1]}: a range needs finite bounds, a step"
            f" other than 0, and at most {MOST_JOBS} values"
        )


def _plain(element: Any) -> Any:
    if isinstance(element, QuotedString):
        return element.text
    if isinstance(element, list):
        return [_plain(item) for item in element]
    if isinstance(element, dict):
        return {_plain(key): _plain(item) for key, item in element.items()}
    return element
