"""The grammar of fit params, and its parser.

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
                      The values of a set are sorted: numbers and strings as usual, others by
                      their digests, so that the order is the same in every process.
mapping               Its pairs. At the top it is the grid, inside a list a sub-grid.
other iterable        At the top the grid, inside it a sub-grid. Read once, so it may be a
                      generator.
``[]``                One combination that adds nothing.
``None``              At the top only: the same as ``[]``.
====================  ============================================================================

A level's sub-grids are alternatives: their union, crossed with the level's pairs. The order is:
alternatives as written; within one, the level's pairs, wherever they are written, the first
slowest; then whatever varies in the sub-grid. Levels nest up to 200 deep. Of combinations that are
the same (:mod:`junky_core.values.identity`; the order of keys does not matter) the first is kept.

NumPy and torch values are kept as they are: the elements of an array are NumPy scalars. OmegaConf
containers become plain lists and dicts, with interpolations resolved. Anything ambiguous (a
string in place of a grid, a set as a grid, a key twice in one alternative, no values) is a
:class:`~junky_core.errors.FitParamsError` that names the place, as in ``fit_params[2][0]``.
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
from junky_core.values.user_text import shown

__all__ = ["FitParams", "expand_fit_params"]

_PAIR = 2  # items of a pair
# Functions that read the tree recurse, also in threads and deep inside other code. Python allows
# 1,000 frames by default.
_MOST_LEVELS = 200


def expand_fit_params(
    fit_params: Any,
    *,
    normalise_key: Callable[[str], str] = str,
    name: str = "fit_params",
) -> FitParams:
    """Return the combinations of ``fit_params`` as a lazy sequence of dicts.

    Args:
        fit_params: A grid as the module describes it; ``None`` is the empty grid.
        normalise_key: Maps a key to the name under which it is compared, where several spellings
            are one key (for Hydra ``lr``, ``+lr`` and ``++lr``). Dicts keep keys as written.
        name: What error messages call ``fit_params``.

    Raises:
        FitParamsError: What was given does not follow the grammar, or is nested more than 200
            levels deep. The message says what was found where, and what is expected.

    >>> list(expand_fit_params([("a", [50, 100]), {"b": 0.1}, {"b": None, "c": "XY"}]))
    ... # doctest: +NORMALIZE_WHITESPACE
    [{'a': 50, 'b': 0.1}, {'a': 100, 'b': 0.1},
     {'a': 50, 'b': None, 'c': 'XY'}, {'a': 100, 'b': None, 'c': 'XY'}]
    """
    if isinstance(fit_params, FitParams):
        return fit_params
    root = _Parser(normalise_key).level(_top(fit_params, name), name, {})
    return FitParams(root, normalise_key)


class _Parser:
    """Reads one grid."""

    def __init__(self, normalise_key: Callable[[str], str]) -> None:
        self._normalise_key = normalise_key
        self._reading: set[int] = set()  # ids of the level that is read and of those around it

    def level(self, content: Any, place: str, above: Mapping[str, str]) -> Level:
        """Read a level and all levels inside it.

        Args:
            content: A mapping, or a sequence of pairs and sub-grids.
            place: Where it is written, for errors.
            above: For the names of all keys around it, where they are written.
        """
        if id(content) in self._reading:
            raise FitParamsError(f"{place} contains itself; a grid must be finite")
        if len(self._reading) == _MOST_LEVELS:
            raise FitParamsError(
                f"{place[:80]}...: sub-grids are nested more than {_MOST_LEVELS} levels deep, too "
                "deep for Python's recursion"
            )
        self._reading.add(id(content))
        places = dict(above)
        pairs: list[Pair] = []
        sub_grids: list[tuple[Any, str]] = []
        if isinstance(content, Mapping):
            for key in content:
                here = f"{place}[{shown(key)}]"
                pairs.append(self._pair(key, content[key], here, places))
        else:
            for index, given in enumerate(content):
                here = f"{place}[{index}]"
                item = _plain(given, here)
                if not isinstance(item, Mapping):
                    item = _items(item, here, content, place)
                    if item and isinstance(item[0], str):
                        pairs.append(self._pair(*_key_and_values(item, here), here, places))
                        continue
                sub_grids.append((item, here))
        alternatives = []
        for item, here in sub_grids:  # a comprehension would take another frame
            alternatives.append(self.level(item, here, places))
        self._reading.remove(id(content))
        return Level(pairs, alternatives)

    def _pair(self, key: Any, given: Any, place: str, places: dict[str, str]) -> Pair:
        """Read a pair, and add its place to ``places``."""
        if not isinstance(key, str) or not key:
            raise FitParamsError(
                f"{place}: the key {shown(key)} is not valid; a key must be a non-empty string"
            )
        # A plain string: str() of a member of a string enum would give another text.
        key = str.__str__(key)
        values = _values(_plain(given, place), place)
        try:
            pair = Pair(key, self._normalise_key(key), values)
        except (ValueError, RecursionError) as error:
            raise FitParamsError(
                f"{place}: a value of key {key!r} cannot be compared with others: {error}"
            ) from error
        if not len(pair.values):
            raise FitParamsError(
                f"{place}: key {key!r} has no values (an iterator can be read only once); "
                f"write [{key!r}, [1, 2]], or [{key!r}, [[]]] where the value is an empty list"
            )
        if pair.name in places:
            raise FitParamsError(
                f"key {key!r} appears twice in one alternative: at {places[pair.name]} and at "
                f"{place}; only another alternative may repeat a key"
            )
        places[pair.name] = place
        return pair


def _top(given: Any, place: str) -> Any:
    content = _plain(given, place)
    if content is None:
        return []
    if isinstance(content, Mapping):
        return content
    items = _items(content, place)
    if items and isinstance(items[0], str):
        if len(items) == _PAIR:
            pair = f"[{shown(items[0])}, {shown(items[1])}]"
            raise FitParamsError(
                f"{place} is a single pair {pair}; a grid is a list of pairs, so wrap it "
                f"in a list: [{pair}]"
            )
        raise FitParamsError(
            f"{place} is a list that starts with the string {shown(items[0])}; a grid is "
            "a list of pairs and sub-grids, such as [['lr', [0.1, 0.01]], ['width', [64, 128]]]"
        )
    return items


def _items(given: Any, place: str, within: Any = None, place_within: str = "") -> Sequence[Any]:
    """Return the items of a grid, a sub-grid or a pair; ``within`` is what it is written in."""
    if isinstance(given, (list, tuple)):
        return given
    hint = "write a list of pairs such as [['lr', [0.1, 0.01]], ['width', [64, 128]]]"
    no_grid = (str, bytes, bytearray, set, frozenset, type)
    # Anything with a dtype is an array; NumPy has turned mixed strings and numbers into strings.
    if isinstance(given, Iterable) and not isinstance(given, no_grid) and not _is_array(given):
        return list(_finite(given, place))
    if isinstance(given, str) and within is not None:
        hint = f"a pair is [{shown(given)}, values], in a list"
    elif given is None:
        hint = "write [] for a sub-grid that adds nothing"
    elif isinstance(given, (set, frozenset)):
        hint = f"a set has no order; {hint}"
    if isinstance(within, (list, tuple)) and len(within) == _PAIR and given is within[0]:
        hint += f"; if {place_within} is meant as a pair, its first item must be a string"
    what = "is not a grid" if within is None else "is neither a pair nor a sub-grid"
    raise FitParamsError(f"{place} {what}: {shown(given)}; {hint}")


def _key_and_values(item: Sequence[Any], place: str) -> tuple[str, Any]:
    if len(item) == _PAIR:
        return item[0], item[1]
    if len(item) == 1:
        problem, values = "has a key and no values", "[1, 2]"
    else:
        problem = f"starts with a string, so it is a pair, but has {len(item)} items"
        values = "[" + ", ".join(map(shown, item[1:4])) + (", ...]" if len(item) > 4 else "]")
    raise FitParamsError(
        f"{place} {problem}: {shown(item)}; a pair has two items, a key and its values: "
        f"[{shown(item[0])}, {values}]"
    )


def _values(given: Any, place: str) -> Sequence[Any]:
    """Return the values to try that the second item of a pair holds."""
    if given is None or isinstance(given, (str, bytes, bytearray, Mapping)):
        return (given,)
    if type(given) is range:
        try:
            len(given)
        except OverflowError:
            raise FitParamsError(f"{place} has too many values to count: {shown(given)}") from None
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


def _finite(given: Iterable[Any], place: str) -> Iterable[Any]:
    endless = isinstance(given, (itertools.count, itertools.cycle)) or (
        isinstance(given, itertools.repeat) and operator.length_hint(given, -1) < 0
    )
    if endless:
        raise FitParamsError(f"{place} never ends: {shown(given)}; write a list or a range")
    return given


def _is_array(given: Any) -> bool:
    return hasattr(given, "dtype")


def _plain(given: Any, place: str) -> Any:
    """Turn an OmegaConf container into a plain one; return anything else as it is."""
    omegaconf = sys.modules.get("omegaconf")
    if omegaconf is None or not isinstance(given, omegaconf.Container):
        return given
    try:
        return omegaconf.OmegaConf.to_container(given, resolve=True, throw_on_missing=True)
    except omegaconf.errors.OmegaConfBaseException as error:
        reason = str(error).partition("\n")[0]
        raise FitParamsError(f"{place} cannot be read: {reason}") from error
