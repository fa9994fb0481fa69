"""Which combinations of a grid are duplicates, found without making the combinations.

Two facts keep this cheap:

* Equal combinations can only come from different alternatives of one level, with the same values
  of that level's own pairs. So duplicates are found once per level, and hold for every
  combination of the pairs above.
* A *box* is a path from an alternative down to a leaf: a fixed set of keys, with values for each.
  Two boxes share combinations only if they have the same keys and, for every key, values in
  common. So boxes are compared key by key, and what they do not share is never looked at again.

Worked example, ``[(a, [1, 2]), {b: [3, 4]}, {b: [4, 5]}]``::

    alternative            0      0      1      1
    its combination       b=3    b=4    b=4    b=5     drops {1: [0]}, offsets [0, 2, 3]
    indices for a=1, 2    0, 2   1, 3   none   4, 5    size 2 x 3 = 6
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, product

from junky_core.errors import FitParamsError
from junky_core.space.tree import Kept, Level, Pair

__all__ = ["find_shared", "resolve"]

# More values or duplicates than this are never compared one by one: they would not fit in memory.
_COMPARABLE = 20_000_000


def find_shared(level: Level) -> set[frozenset[str]]:
    """Fill in ``shared`` of a level and all below it; return the key sets of its combinations."""
    having: dict[frozenset[str], list[int]] = {}
    for index, alternative in enumerate(level.alternatives):
        for keys in find_shared(alternative):
            having.setdefault(keys, []).append(index)
    level.shared = {keys: indices for keys, indices in having.items() if len(indices) > 1}
    if not level.alternatives:
        return {level.own_keys}
    # Not a comprehension: it would take another frame before Python 3.12.
    return set(map(level.own_keys.union, having))


def resolve(level: Level) -> Kept:
    """Return what remains of a level's alternatives without duplicates; work it out if unknown.

    Raises:
        FitParamsError: There are too many duplicates.
    """
    if level.kept is None:
        for alternative in level.alternatives:
            resolve(alternative)
        level.kept = _kept(level)
    return level.kept


def _kept(level: Level) -> Kept:
    drops: dict[int, list[int]] = {}
    for keys, indices in level.shared.items():
        boxes = [
            _Box(index, offset, {pair.name: (pair, stride) for pair, stride in strides})
            for index in indices
            for offset, strides in _paths(level.alternatives[index], keys)
        ]
        for index, raw in _repeated(boxes):
            rank = _rank(level.alternatives[index], raw)
            if rank is not None:
                drops.setdefault(index, []).append(rank)
    for found in drops.values():
        found.sort()
    sizes = [one.size - len(drops.get(index, ())) for index, one in enumerate(level.alternatives)]
    return Kept(drops, list(accumulate(sizes or [1], initial=0)))


@dataclass(frozen=True, slots=True)
class _Box:
    """A path from an alternative down to a leaf, or those of its combinations that others have.

    The raw index, in the alternative, of one of its combinations is ``offset`` plus, for each
    pair, the index of the value times the pair's stride.

    Attributes:
        alternative: The index of the alternative.
        offset: Where its combinations begin.
        pairs: For each name the pair and its stride.
        places: For each key compared so far what its shared values add to the offset. A single
            place is part of the offset instead.
    """

    alternative: int
    offset: int
    pairs: dict[str, tuple[Pair, int]]
    places: tuple[list[int], ...] = ()

    def narrowed(self, places: list[int]) -> _Box:
        """Return the part with these values of one more key."""
        if len(places) == 1:
            return _Box(self.alternative, self.offset + places[0], self.pairs, self.places)
        return _Box(self.alternative, self.offset, self.pairs, (*self.places, places))


_Strides = list[tuple[Pair, int]]


def _paths(level: Level, keys: frozenset[str]) -> Iterator[tuple[int, _Strides]]:
    """Yield, for each path down to a leaf with just these keys, its offset, pairs and strides."""
    if not level.own_keys <= keys:
        return
    below = keys - level.own_keys
    if not below and not level.alternatives:
        yield 0, _strides(level, 1)
    for alternative, start in zip(level.alternatives, level.raw_offsets, strict=False):
        own = _strides(level, alternative.raw_size)
        for offset, strides in _paths(alternative, below):
            yield level.own * start + offset, own + strides


def _strides(level: Level, size: int) -> _Strides:
    """Return each pair with the distance of its values, where one combination takes ``size``."""
    found = []
    for pair in reversed(level.pairs):
        found.append((pair, size))
        size *= len(pair.values)
    return found


def _repeated(boxes: list[_Box]) -> Iterator[tuple[int, int]]:
    """Yield alternative and raw index of each combination that an earlier alternative has too."""
    cost = {name: sum(len(box.pairs[name][0].values) for box in boxes) for name in boxes[0].pairs}
    names = sorted(cost, key=cost.__getitem__)
    total = 0
    todo = [(boxes, 0)]  # boxes that share all values of so many names
    while todo:
        group, compared = todo.pop()
        if compared < len(names):
            todo.extend((part, compared + 1) for part in _split(group, names[compared]))
            continue
        repeats = [box for box in group if box.alternative != group[0].alternative]
        total += len(repeats) * math.prod(map(len, repeats[0].places))
        if total > _COMPARABLE:
            raise _too_many(group)
        for box in repeats:
            for places in product(*box.places):
                yield box.alternative, box.offset + sum(places)


def _split(boxes: list[_Box], name: str) -> Iterator[list[_Box]]:
    """Yield parts of boxes: each with the values of one key that just these boxes share.

    Boxes of one alternative alone are left out.
    """
    pairs = [box.pairs[name] for box in boxes]
    if any(len(pair.values) > _COMPARABLE for pair, _ in pairs):
        raise _too_many(boxes)
    counts = Counter(chain.from_iterable(pair.marks for pair, _ in pairs))
    having: dict[Hashable, list[tuple[int, int]]] = {}
    for number, (pair, stride) in enumerate(pairs):
        for index, mark in enumerate(pair.marks):
            if counts[mark] > 1:
                having.setdefault(mark, []).append((number, index * stride))
    parts: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for found in having.values():
        numbers, places = zip(*found, strict=True)
        parts.setdefault(numbers, []).append(places)
    for numbers, rows in parts.items():
        if boxes[numbers[0]].alternative != boxes[numbers[-1]].alternative:
            yield [
                boxes[number].narrowed([row[column] for row in rows])
                for column, number in enumerate(numbers)
            ]


def _too_many(boxes: Sequence[_Box]) -> FitParamsError:
    keys = ", ".join(pair.key for pair, _ in boxes[0].pairs.values())
    return FitParamsError(
        f"{len(boxes)} alternatives with the same keys ({keys}) overlap in more than "
        f"{_COMPARABLE:,} combinations, too many to find the duplicates; write the alternatives "
        "so that they do not overlap"
    )


def _rank(level: Level, raw: int) -> int | None:
    """Turn an index that counts duplicates into one that does not; ``None`` for a duplicate."""
    if level.size == level.raw_size:
        return raw
    kept = level.kept
    assert kept is not None
    index = bisect_right(level.raw_offsets, raw // level.own) - 1
    alternative = level.alternatives[index]
    above, rest = divmod(raw - level.own * level.raw_offsets[index], alternative.raw_size)
    rank = _rank(alternative, rest)
    if rank is None:
        return None
    dropped = kept.drops.get(index, ())
    before = bisect_left(dropped, rank)
    if before < len(dropped) and dropped[before] == rank:
        return None
    start, end = kept.offsets[index : index + 2]
    return level.own * start + above * (end - start) + rank - before
