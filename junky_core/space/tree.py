"""The tree of pairs and alternatives behind fit params.

A :class:`Level` has pairs and alternatives, which are levels too::

    [(a, [1, 2]), {b: 3}, {c: [4, 5]}]        pairs: a [1, 2]
                                              alternatives: pairs: b [3]
                                                            pairs: c [4, 5]

Its combinations are: for each alternative, for each combination of its pairs (the first pair
slowest), the combinations of the alternative.

Functions that read a tree recurse, with one Python frame per level. The grammar limits the depth.
A tree never changes, except that :mod:`junky_core.space.duplicates` fills in ``Level.shared`` once
the tree is complete, and ``Level.kept`` when it is first needed. Any thread may do the latter, with
the same result.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from junky_core.values.identity import copy_containers, freeze

__all__ = ["Kept", "Level", "Pair", "levels"]


class Pair:
    """A key and the values to try.

    Attributes:
        key: The key as written.
        name: The key as compared.
        values: The values to try, each once; a ``range`` stays one.
        marks: For each value, what identifies it (:func:`junky_core.values.identity.freeze`).
        repeated: How many values were dropped because they were repeated.
        fresh: Whether a value holds a container, which must be copied for each combination.
    """

    __slots__ = ("fresh", "key", "marks", "name", "repeated", "values")

    def __init__(self, key: str, name: str, values: Sequence[Any]) -> None:
        self.key = key
        self.name = name
        self.values = values
        self.marks: Sequence[Hashable] = values
        self.repeated = 0
        self.fresh = False
        if type(values) is range:  # no value is repeated, and an integer is its own mark
            return
        firsts: dict[Hashable, Any] = {}
        for value in values:
            firsts.setdefault(freeze(value), value)
        self.values, self.marks = tuple(firsts.values()), tuple(firsts)
        self.repeated = len(values) - len(firsts)
        self.fresh = any(copy_containers(value) is not value for value in self.values)

    def only(self, index: int) -> Pair:
        """Return this pair with a single one of its values."""
        return Pair(self.key, self.name, (self.values[index],))


@dataclass(frozen=True, slots=True)
class Kept:
    """What remains of a level's alternatives without duplicates.

    Attributes:
        drops: For each alternative that has any, the sorted indices of its duplicates.
        offsets: How many combinations are kept before each alternative and, last, in all.
    """

    drops: Mapping[int, Sequence[int]]
    offsets: Sequence[int]


class Level:
    """Pairs and alternatives, written in the simplest way that has the same combinations.

    Attributes:
        pairs: Its own pairs.
        alternatives: Its alternatives. None is the same as a single one that adds nothing.
        own: How many combinations its pairs have.
        own_keys: The names of its pairs.
        raw_offsets: How many combinations there are before each alternative and, last, in all,
            if duplicates are counted.
        shared: The sets of names that combinations of several alternatives have, each with the
            indices of these alternatives. Only they can hold duplicates.
        kept: What remains of the alternatives without duplicates; ``None`` while that is unknown.
    """

    __slots__ = ("alternatives", "kept", "own", "own_keys", "pairs", "raw_offsets", "shared")

    def __init__(self, pairs: Sequence[Pair], alternatives: Sequence[Level] = ()) -> None:
        own = math.prod(len(pair.values) for pair in pairs)
        # Neither step changes the order: an alternative varies slower than the pairs beside it,
        # but faster than those above it.
        if own == 1:  # an alternative without pairs is only a list of alternatives
            alternatives = [
                inner
                for one in alternatives
                for inner in (one.alternatives if not one.pairs and one.alternatives else (one,))
            ]
        if len(alternatives) == 1 and (own == 1 or not alternatives[0].alternatives):
            (one,) = alternatives
            pairs, alternatives, own = (*pairs, *one.pairs), one.alternatives, own * one.own
        self.pairs: tuple[Pair, ...] = tuple(pairs)
        self.alternatives: tuple[Level, ...] = tuple(alternatives)
        self.own: int = own
        self.own_keys = frozenset(pair.name for pair in self.pairs)
        sizes = [one.raw_size for one in self.alternatives] or [1]
        self.raw_offsets = list(accumulate(sizes, initial=0))
        self.shared: Mapping[frozenset[str], Sequence[int]] = {}
        self.kept: Kept | None = None

    @property
    def raw_size(self) -> int:
        """How many combinations it has if duplicates are counted."""
        return self.own * self.raw_offsets[-1]

    @property
    def size(self) -> int:
        """How many different combinations it has; only for a level that was resolved."""
        assert self.kept is not None
        return self.own * self.kept.offsets[-1]


def levels(root: Level) -> Iterator[Level]:
    """Yield all levels of a tree, parents before children, in the order written."""
    yield root
    for alternative in root.alternatives:
        yield from levels(alternative)
