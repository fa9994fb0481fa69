"""Fit params as a lazy sequence of combinations, and operations on the whole grid."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, overload

from junky_core.space.combinations import combination, combinations
from junky_core.space.duplicates import find_shared, resolve
from junky_core.space.tree import Level, levels
from junky_core.values.identity import copy_containers, freeze
from junky_core.values.user_text import shown
from junky_core.values.wording import count, pair_text

__all__ = ["FitParams"]

_SHOWN = 8  # keys in a repr, terms of a sum


class FitParams(Sequence[dict[str, Any]]):
    """The combinations of a grid: a sequence that is never a list.

    Indexing a large grid takes no longer than a small one. Memory grows only with the values that
    have to be compared to find duplicates; they are compared when the result is first needed. Every
    combination is a new dict, and lists, dicts, sets and tuples among its values are new, too.
    Equal to a list of the same dicts. Thread-safe.

    Made by :func:`junky_core.space.grammar.expand_fit_params`.

    Attributes:
        keys: All keys as written, in the order in which they come up.
        varying: The keys that have several values, or that some combinations lack.
    """

    def __init__(self, root: Level, normalise_key: Callable[[str], str] = str) -> None:
        self._root = root
        self._normalise_key = normalise_key
        keys: dict[str, str] = {}
        first: dict[str, Hashable] = {}
        several = set()
        fresh = set()
        for level in levels(root):
            for pair in level.pairs:
                keys.setdefault(pair.name, pair.key)
                mark = first.setdefault(pair.name, pair.marks[0])
                if len(pair.values) > 1 or mark != pair.marks[0]:
                    several.add(pair.name)
                if pair.fresh:
                    fresh.add(pair.key)
        always = frozenset.intersection(*find_shared(root))
        if not any(level.shared for level in levels(root)):
            resolve(root)  # there is nothing to compare
        self._names = frozenset(keys)
        self._fresh = frozenset(fresh)
        self.keys = tuple(keys.values())
        self.varying = tuple(
            key for name, key in keys.items() if name in several or name not in always
        )

    @property
    def size(self) -> int:
        """How many combinations there are; ``len`` works only up to ``sys.maxsize``."""
        resolve(self._root)
        return self._root.size

    def __len__(self) -> int:
        return self.size

    def __bool__(self) -> bool:
        return True  # there is always one combination, though it may be an empty dict

    def __iter__(self) -> Iterator[dict[str, Any]]:
        found = combinations(self._root)
        return map(self._renew, found) if self._fresh else found

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        size = self.size
        if isinstance(index, slice):
            return [self._at(place) for place in range(*index.indices(size))]
        place = operator.index(index)
        if not -size <= place < size:
            raise IndexError(f"combination {place} of {size}")
        return self._at(place % size)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (FitParams, list)):
            return NotImplemented
        size = other.size if isinstance(other, FitParams) else len(other)
        return self.size == size and all(map(operator.eq, self, other))

    __hash__ = None  # type: ignore[assignment]  # equal to lists, which have none

    def __repr__(self) -> str:
        keys = ", ".join(self.keys[:_SHOWN]) + (", ..." if len(self.keys) > _SHOWN else "")
        if self._root.kept is None:  # do not compare a million combinations for a repr
            size = f"at most {count(self._root.raw_size, 'combination')}"
        else:
            size = count(self._root.size, "combination")
        return f"<FitParams: {size} of {keys or 'nothing'}>"

    def _at(self, place: int) -> dict[str, Any]:
        found = combination(self._root, place)
        return self._renew(found) if self._fresh else found

    def _renew(self, found: dict[str, Any]) -> dict[str, Any]:
        for key in self._fresh:
            if key in found:
                found[key] = copy_containers(found[key])
        return found

    def pairs(self, *, ranges: bool = True) -> Iterator[tuple[str, Any]]:
        """Iterate over every key with each of its values, for each place where it is written.

        This serves to check values without iterating over all combinations.

        Args:
            ranges: Include the values of a ``range``, which are integers and may be many.

        >>> from junky_core.space.grammar import expand_fit_params
        >>> list(expand_fit_params([("a", [1, 2]), {"b": 3}, {"b": 3, "c": 4}]).pairs())
        [('a', 1), ('a', 2), ('b', 3), ('b', 3), ('c', 4)]
        """
        for level in levels(self._root):
            for pair in level.pairs:
                if not ranges and isinstance(pair.values, range):
                    continue
                yield from zip(itertools.repeat(pair.key), pair.values, strict=False)

    def mentions(self, key: str) -> bool:
        """Return whether any alternative has ``key``, under any of its spellings."""
        return self._normalise_key(key) in self._names

    def without_key(self, key: str) -> FitParams:
        """Return the combinations without ``key``; those that become the same are one.

        >>> from junky_core.space.grammar import expand_fit_params
        >>> list(expand_fit_params([("a", [1, 2]), ("b", [3, 4])]).without_key("a"))
        [{'b': 3}, {'b': 4}]
        """
        name = self._normalise_key(key)

        def without(level: Level) -> Level:
            alternatives = list(map(without, level.alternatives))
            return Level([pair for pair in level.pairs if pair.name != name], alternatives)

        return FitParams(without(self._root), self._normalise_key)

    def fixing(
        self, key: str, value: Any, same: Callable[[Any, Any], bool] | None = None
    ) -> FitParams | None:
        """Return what remains if ``key`` is fixed, or ``None`` if no pair has that value.

        A pair with that key keeps only this value. An alternative whose pair lacks the value is
        left out, and so is one that has only such alternatives. Alternatives without the key stay.

        Args:
            key: The key to fix, under any of its spellings.
            value: The value to look for.
            same: ``same(value_of_the_grid, value)`` returns whether they are the same; the first
                that matches is kept. The default is the rule of :mod:`junky_core.values.identity`.

        >>> from junky_core.space.grammar import expand_fit_params
        >>> grid = expand_fit_params([{"opt": "adam", "lr": [1, 2]}, {"opt": "sgd"}, {"c": 3}])
        >>> list(grid.fixing("opt", "sgd"))
        [{'opt': 'sgd'}, {'c': 3}]
        >>> grid.fixing("opt", "rmsprop") is None
        True
        """
        name = self._normalise_key(key)
        alike = same or (lambda one, other: freeze(one) == freeze(other))
        found = False

        def fixed(level: Level) -> Level | None:
            nonlocal found
            alternatives = list(filter(None, map(fixed, level.alternatives)))
            pairs = []
            for pair in level.pairs:
                if pair.name != name:
                    pairs.append(pair)
                    continue
                place = next((i for i, one in enumerate(pair.values) if alike(one, value)), None)
                if place is None:
                    return None
                found = True
                pairs.append(pair.only(place))
            return None if level.alternatives and not alternatives else Level(pairs, alternatives)

        root = fixed(self._root)
        return FitParams(root, self._normalise_key) if found and root is not None else None

    def explain(self, max_lines: int = 40) -> list[str]:
        r"""Return lines of text that explain the number of combinations.

        Args:
            max_lines: The most lines to return; the last one then says how many are left out.

        >>> from junky_core.space.grammar import expand_fit_params
        >>> grid = [["w", [1, 2]], {"opt": "a", "lr": [1, 2]}, {"opt": "b"}, {"opt": "b"}]
        >>> print(*expand_fit_params(grid).explain(), sep="\n")
        6 = 2 (w) x (2 + 1 + 1 - 1 duplicate)
          2 = 2 (lr), opt='a'
          1 = opt='b'
          1 = opt='b'
        """
        resolve(self._root)
        lines: list[str] = []
        todo = [(0, self._root)]
        while todo:
            if len(lines) == max_lines - 1 and len(todo) > 1:
                lines.append(f"... and {count(len(todo), 'more alternative')}")
                break
            depth, level = todo.pop()
            lines.append("  " * depth + _explained(level))
            todo.extend((depth + 1, one) for one in reversed(level.alternatives))
        return lines


def _explained(level: Level) -> str:
    factors = []
    fixed = []
    for pair in level.pairs:
        repeated = f", {pair.repeated} repeated" if pair.repeated else ""
        if len(pair.values) > 1 or repeated:
            factors.append(f"{len(pair.values)} ({pair.key}{repeated})")
        else:
            fixed.append(pair_text(str(pair.key), pair.values[0], shown(pair.values[0])))
    if level.alternatives:
        sizes = [one.size for one in level.alternatives]
        terms = [str(size) for size in sizes[:_SHOWN]]
        if len(sizes) > _SHOWN:
            terms.append(f"... of {len(sizes)} alternatives")
        dropped = sum(sizes) - level.size // level.own
        less = f" - {dropped} duplicate{'s' * (dropped > 1)}" if dropped else ""
        factors.append("(" + " + ".join(terms) + less + ")")
    parts = [" x ".join(factors)] if factors else []
    return f"{level.size} = " + (", ".join(parts + fixed) or "nothing varies")
