"""Fit params: what they may look like, and the combinations that they stand for.

A grid is a list of *pairs* and *sub-grids*::

    [['width', [128, 256]],                             # a pair: a key and the values to try
     {'optimizer': 'adam', 'lr': [1e-3, 3e-3]},         # sub-grids are alternatives
     {'optimizer': 'sgd', 'lr': [.1, .03], 'momentum': [0, .9]}]

====================  ============================================================================
Given                 Read as
====================  ============================================================================
``(key, values)``     A pair: two items, the first a string.
values                A list, tuple, range, array or other iterable holds the values to try. A
                      string, a mapping, ``None``, a number, an array without dimensions or any
                      other single object is one value. A list inside the values is one value.
                      The values of a set are taken in sorted order (numbers, strings) or in
                      that of their digests, so that every process sees the same order.
mapping               Its pairs. At the top it is the grid, inside a list a sub-grid.
other iterable        At the top the grid, inside it a sub-grid. Read once, so it may be a
                      generator.
``[]``                One combination that adds nothing.
``None``              At the top only: the same as ``[]``.
====================  ============================================================================

A level's sub-grids are alternatives: their union, crossed with the level's pairs. The order is:
alternatives as written; within one, the level's pairs, wherever they are written, the first
slowest; then whatever varies in the sub-grid. Levels nest without limit. Of combinations that are
the same (:mod:`junky_core.values.identity`; the order of keys does not matter) the first stays.

NumPy and torch values are kept as they are: the elements of an array are NumPy scalars. OmegaConf
containers become plain lists and dicts, interpolations resolved. What would be ambiguous (a
string where a grid should be, a set as a grid, a key twice on one path, no values) is a
:class:`~junky_core.errors.FitParamsError` that names the place.
"""

from __future__ import annotations

import itertools
import math
import operator
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from junky_core.errors import FitParamsError
from junky_core.space.fit_params import FitParams
from junky_core.space.tree import Level, Pair
from junky_core.values.identity import digest
from junky_core.values.shown import shown

__all__ = ["FitParams", "expand_fit_params"]

# How an error shows a place: the place above it, and the step from there. Rendered late, for
# written-out paths would take space quadratic in the depth.
_Place = tuple["_Place | None", str]

_PAIR = 2  # items of a pair
_STEPS = 40  # of a place that an error writes out


def expand_fit_params(
    fit_params: Any,
    *,
    normalise_key: Callable[[str], str] = str,
    name: str = "fit_params",
) -> FitParams:
    """Return the combinations that ``fit_params`` stands for, as a lazy sequence of dicts.

    Args:
        fit_params: A grid as the module describes it; ``None`` is the empty grid.
        normalise_key: Maps a key to the name under which it is compared, where several spellings
            are one key (for Hydra ``lr``, ``+lr`` and ``++lr``). Dicts keep keys as written.
        name: What error messages call ``fit_params``.

    Raises:
        FitParamsError: What was given does not follow the grammar. The message says what stands
            where, as in ``fit_params[2][0]``, and what would be right.

    >>> list(expand_fit_params([("a", [50, 100]), {"b": 0.1}, {"b": None, "c": "XY"}]))
    ... # doctest: +NORMALIZE_WHITESPACE
    [{'a': 50, 'b': 0.1}, {'a': 100, 'b': 0.1},
     {'a': 50, 'b': None, 'c': 'XY'}, {'a': 100, 'b': None, 'c': 'XY'}]
    """
    if isinstance(fit_params, FitParams):
        return fit_params
    return FitParams(_Parser(normalise_key).parse(fit_params, (None, name)), normalise_key)


class _Parser:
    """Reads one grid, with a stack of its own: grids may be deeper than Python's."""

    def __init__(self, normalise_key: Callable[[str], str]) -> None:
        self._normalise_key = normalise_key
        self._places: dict[Level, list[_Place]] = {}  # of each level's pairs

    def parse(self, given: Any, place: _Place) -> Level:
        root = Level()
        todo: list[tuple[Any, Level | None, _Place]] = [(_top(given, place), root, place)]
        reading: set[int] = set()  # ids; `todo` keeps what they belong to
        while todo:
            content, level, place = todo.pop()
            if level is None:  # all inside it has been read
                reading.discard(id(content))
                continue
            if id(content) in reading:
                raise FitParamsError(f"{_text(place)} contains itself; a grid has to end somewhere")
            reading.add(id(content))
            todo.append((content, None, place))
            todo.extend(reversed(self._read(content, level, place)))
        self._check_keys(root)
        return root

    def _read(self, content: Any, level: Level, place: _Place) -> list[tuple[Any, Level, _Place]]:
        """Read one level's pairs; return its sub-grids, still to be read."""
        subs: list[tuple[Any, Level, _Place]] = []
        if isinstance(content, Mapping):
            for key in content:
                self._add_pair(level, key, content[key], (place, f"[{shown(key)}]"))
            return subs
        for index, given in enumerate(content):
            here = (place, f"[{index}]")
            item = _plain(given, here)
            if not isinstance(item, Mapping):
                item = _items(item, here, content)
                if item and isinstance(item[0], str):
                    self._add_pair(level, *_key_and_values(item, here), here)
                    continue
            sub = Level()
            level.subs.append(sub)
            subs.append((item, sub, here))
        return subs

    def _add_pair(self, level: Level, key: Any, given: Any, place: _Place) -> None:
        if not isinstance(key, str) or not key:
            raise FitParamsError(
                f"{_text(place)}: the key {shown(key)} is not a name; a key has to be a string"
            )
        # A plain string: str() of a member of a string enum would give another text.
        key = str.__str__(key)
        values = _values(_plain(given, place), place)
        try:
            pair = Pair(key, self._normalise_key(key), values)
        except (ValueError, RecursionError) as error:
            raise FitParamsError(
                f"{_text(place)}: a value of key {key!r} cannot be compared with others: {error}"
            ) from error
        if not len(pair.values):
            raise FitParamsError(
                f"{_text(place)}: key {key!r} has no values (an iterator can be read only once); "
                f"write [{key!r}, [1, 2]], or [{key!r}, [[]]] where the value is an empty list"
            )
        level.pairs.append(pair)
        self._places.setdefault(level, []).append(place)

    def _check_keys(self, root: Level) -> None:
        above: dict[str, _Place] = {}
        todo = [(root, True)]
        while todo:
            level, entering = todo.pop()
            for pair, place in zip(level.pairs, self._places.get(level, ()), strict=True):
                if not entering:
                    del above[pair.name]
                    continue
                first = above.setdefault(pair.name, place)
                if first is not place:
                    raise FitParamsError(
                        f"key {pair.key!r} stands twice on one path: at {_text(first)} and at "
                        f"{_text(place)}; a key may come again only in another alternative"
                    )
            if entering:
                todo.append((level, False))
                todo.extend((sub, True) for sub in reversed(level.subs))


def _top(given: Any, place: _Place) -> Any:
    content = _plain(given, place)
    if content is None:
        return []
    if isinstance(content, Mapping):
        return content
    items = _items(content, place, None)
    if items and isinstance(items[0], str):
        if len(items) == _PAIR:
            pair = f"[{shown(items[0])}, {shown(items[1])}]"
            raise FitParamsError(
                f"{_text(place)} is a single pair {pair}; a grid is a list of pairs, so wrap it "
                f"in a list: [{pair}]"
            )
        raise FitParamsError(
            f"{_text(place)} is a list that starts with the string {shown(items[0])}; a grid is "
            "a list of pairs and sub-grids, such as [['lr', [0.1, 0.01]], ['width', [64, 128]]]"
        )
    return items


def _items(given: Any, place: _Place, within: Any) -> Sequence[Any]:
    """Return what is in a grid, a sub-grid or a pair; ``within`` is what it stands in."""
    if isinstance(given, (list, tuple)):
        return given
    hint = "write a list of pairs such as [['lr', [0.1, 0.01]], ['width', [64, 128]]]"
    no_grid = (str, bytes, bytearray, set, frozenset, type)
    # What has a dtype is an array: one of strings and numbers has turned the numbers to strings.
    if isinstance(given, Iterable) and not isinstance(given, no_grid) and not _is_array(given):
        return list(_finite(given, place))
    if isinstance(given, str) and within is not None:
        hint = f"a pair is [{shown(given)}, values], in a list of its own"
    elif given is None:
        hint = "write [] for a sub-grid that adds nothing"
    elif isinstance(given, (set, frozenset)):
        hint = f"a set has no order; {hint}"
    above = place[0]
    if above and isinstance(within, (list, tuple)) and len(within) == _PAIR and given is within[0]:
        hint += f"; if {_text(above)} is meant as a pair, its first item has to be a string"
    what = "is no grid" if within is None else "is neither a pair nor a sub-grid"
    raise FitParamsError(f"{_text(place)} {what}: {shown(given)}; {hint}")


def _key_and_values(item: Sequence[Any], place: _Place) -> tuple[str, Any]:
    if len(item) == _PAIR:
        return item[0], item[1]
    if len(item) == 1:
        problem, values = "has a key and no values", "[1, 2]"
    else:
        problem = f"starts with a string, so it is a pair, but has {len(item)} items"
        values = "[" + ", ".join(map(shown, item[1:4])) + (", ...]" if len(item) > 4 else "]")
    raise FitParamsError(
        f"{_text(place)} {problem}: {shown(item)}; a pair has two items, a key and its values: "
        f"[{shown(item[0])}, {values}]"
    )


def _values(given: Any, place: _Place) -> Iterable[Any]:
    """Return the values to try that the second item of a pair stands for."""
    if given is None or isinstance(given, (str, bytes, bytearray, Mapping)):
        return (given,)
    if type(given) is range:
        try:
            len(given)
        except OverflowError:
            raise FitParamsError(
                f"{_text(place)} has too many values to count: {shown(given)}"
            ) from None
        return given
    if isinstance(given, (set, frozenset)):
        return _in_order(given)
    if not isinstance(given, Iterable):
        return (given,)
    try:
        values = iter(_finite(given, place))
    except TypeError:  # an array without dimensions
        return (given,)
    return [_plain(value, place) for value in values]


def _in_order(values: Iterable[Any]) -> list[Any]:
    # The order of a set changes from process to process; job numbers must not.
    found = list(values)
    if all(type(value) is str for value in found) or all(
        type(value) in (int, float) and math.isfinite(value) for value in found
    ):
        return sorted(found)
    return sorted(found, key=digest)


def _finite(given: Iterable[Any], place: _Place) -> Iterable[Any]:
    endless = isinstance(given, (itertools.count, itertools.cycle)) or (
        isinstance(given, itertools.repeat) and operator.length_hint(given, -1) < 0
    )
    if endless:
        raise FitParamsError(f"{_text(place)} never ends: {shown(given)}; write a list or a range")
    return given


def _is_array(given: Any) -> bool:
    return hasattr(given, "dtype")


def _plain(given: Any, place: _Place) -> Any:
    """Turn an OmegaConf container into a plain one; return anything else as it is."""
    omegaconf = sys.modules.get("omegaconf")
    if omegaconf is None or not isinstance(given, omegaconf.Container):
        return given
    try:
        return omegaconf.OmegaConf.to_container(given, resolve=True, throw_on_missing=True)
    except omegaconf.errors.OmegaConfBaseException as error:
        reason = str(error).partition("\n")[0]
        raise FitParamsError(f"{_text(place)} cannot be read: {reason}") from error


def _text(place: _Place) -> str:
    steps: list[str] = []
    above: _Place | None = place
    while above is not None:
        above, step = above
        steps.append(step)
    if len(steps) > _STEPS:
        steps[_STEPS // 2 : -_STEPS // 2] = ["..."]
    return "".join(reversed(steps))
