"""The tree of pairs and alternatives behind fit params.

A :class:`Level` has pairs and alternatives (its ``subs``). Its combinations are, for each
alternative, for each combination of its pairs (the first pair slowest), those of the alternative.

Trees may be deep: nothing here recurses, nor in the modules that read a tree. Nothing of a tree
changes after :func:`finish` but ``Level.union``, which
:func:`junky_core.space.duplicates.resolve` works out late; any thread may do so, with the same
outcome.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from junky_core.errors import FitParamsError
from junky_core.values.identity import copy_containers, freeze

__all__ = ["Level", "Pair", "Union", "finish", "levels"]


class Pair:
    """A key and the values to try.

    Attributes:
        key: The key as written.
        name: The key as compared.
        values: The values to try, each once; a ``range`` stays one.
        marks: What tells each value from others (:func:`junky_core.values.identity.freeze`).
        repeated: How many values were dropped because they were there already.
        fresh: Whether a value holds a container that each combination gets a copy of.
    """

    __slots__ = ("fresh", "key", "marks", "name", "repeated", "values")

    def __init__(self, key: str, name: str, values: Iterable[Any]) -> None:
        self.key = key
        self.name = name
        self.values: Sequence[Any]
        self.marks: Sequence[Hashable]
        self.repeated = 0
        self.fresh = False
        if type(values) is range:  # nothing in it repeats, and integers are their own marks
            self.values = self.marks = values
            return
        firsts: dict[Hashable, Any] = {}
        for count, value in enumerate(values, 1):
            firsts.setdefault(freeze(value), value)
            self.repeated = count - len(firsts)
        self.values, self.marks = tuple(firsts.values()), tuple(firsts)
        self.fresh = any(copy_containers(value) is not value for value in self.values)

    def only(self, index: int) -> Pair:
        """Return this pair with a single one of its values."""
        return Pair(self.key, self.name, (self.values[index],))


@dataclass(frozen=True, slots=True)
class Union:
    """What of a level's alternatives is kept.

    Attributes:
        drops: For an alternative the sorted indices of it that came up before.
        offsets: How many combinations the alternatives before each one keep.
        size: How many all of them keep.
    """

    drops: dict[int, Sequence[int]]
    offsets: list[int]
    size: int

    def of(self, sub: int) -> tuple[int, int]:
        """Return offset and size of an alternative."""
        end = self.offsets[sub + 1] if sub + 1 < len(self.offsets) else self.size
        return self.offsets[sub], end - self.offsets[sub]


# Without alternatives: one combination, which adds nothing.
_ALONE = Union({}, [], 1)


class Level:
    """Pairs and alternatives. All but ``pairs`` and ``subs`` is set by :func:`finish`.

    Attributes:
        pairs: Its own pairs.
        subs: Its alternatives; none means one that adds nothing.
        own: How many combinations its pairs have.
        own_mask: The keys of its pairs, as bits.
        masks: The key sets of its combinations, as bits; dropped once its parent has them.
        suspects: For each key set that several alternatives have: the set and those alternatives.
        raw_offsets: How many combinations the alternatives before each have, duplicates counted.
        raw_block: How many combinations its alternatives have, duplicates counted.
        union: What is kept of the alternatives; ``None`` until it is worked out.
    """

    __slots__ = (
        "masks",
        "own",
        "own_mask",
        "pairs",
        "raw_block",
        "raw_offsets",
        "subs",
        "suspects",
        "union",
    )

    def __init__(self) -> None:
        self.pairs: list[Pair] = []
        self.subs: list[Level] = []
        self.own = 1
        self.own_mask = 0
        self.masks: set[int] = set()
        self.suspects: list[tuple[int, list[int]]] = []
        self.raw_offsets: list[int] = []
        self.raw_block = 1
        self.union: Union | None = None

    @property
    def size(self) -> int:
        """How many different combinations it has; known once it was resolved."""
        assert self.union is not None
        return self.own * self.union.size


def levels(root: Level) -> list[Level]:
    """Return all levels of a tree, parents before children, in the order written."""
    found, todo = [], [root]
    while todo:
        level = todo.pop()
        found.append(level)
        todo.extend(reversed(level.subs))
    return found


def finish(root: Level) -> set[str]:
    """Simplify a tree and work out what needs no look at values.

    Returns:
        The names of the keys that all combinations have.
    """
    boxes = set()  # levels that are pairs within pairs, with no choice anywhere
    for level in reversed(levels(root)):
        if not level.subs or (len(level.subs) == 1 and level.subs[0] in boxes):
            boxes.add(level)
    todo = [root]
    while todo:
        level = todo.pop()
        # Neither step may change the order: an alternative varies slower than the pairs beside
        # it, but faster than those above.
        level.own = math.prod(_length(pair.values) for pair in level.pairs)
        if level.own == 1:
            level.subs = _spliced(level.subs)
        while len(level.subs) == 1 and (level.own == 1 or level.subs[0] in boxes):
            (sub,) = level.subs
            level.pairs.extend(sub.pairs)
            level.own *= math.prod(_length(pair.values) for pair in sub.pairs)
            level.subs = _spliced(sub.subs) if level.own == 1 else sub.subs
        todo.extend(level.subs)
    bits: dict[str, int] = {}
    for level in reversed(levels(root)):
        _derive(level, bits)
    return {name for name, bit in bits.items() if all(mask >> bit & 1 for mask in root.masks)}


def _spliced(subs: list[Level]) -> list[Level]:
    """Put what is only a list of alternatives in their place."""
    if all(sub.pairs or not sub.subs for sub in subs):
        return subs
    found, todo = [], subs[::-1]
    while todo:
        sub = todo.pop()
        if sub.subs and not sub.pairs:
            todo.extend(reversed(sub.subs))
        else:
            found.append(sub)
    return found


def _derive(level: Level, bits: dict[str, int]) -> None:
    own_mask = 0  # of each key one bit: Python's integers are as long as it takes
    for pair in level.pairs:
        own_mask |= 1 << bits.setdefault(pair.name, len(bits))
    level.own_mask = own_mask
    if not level.subs:
        level.masks = {own_mask}
        level.union = _ALONE
        return
    having: dict[int, list[int]] = {}
    for index, sub in enumerate(level.subs):
        for mask in sub.masks:
            having.setdefault(mask, []).append(index)
        sub.masks = set()
    level.masks = {own_mask | mask for mask in having}
    level.suspects = [(mask, subs) for mask, subs in having.items() if len(subs) > 1]
    sizes = [sub.own * sub.raw_block for sub in level.subs]
    *level.raw_offsets, level.raw_block = accumulate(sizes, initial=0)


def _length(values: Sequence[Any]) -> int:
    try:
        return len(values)
    except OverflowError:
        raise FitParamsError(f"{values!r} has more values than can be counted") from None
