"""Which combinations of a grid are duplicates, found without making the combinations.

Two facts keep this cheap:

* Equal combinations can only come from different alternatives of one level, below the same
  values of that level's own pairs. So duplicates are found level by level, once, and hold for
  every combination of the pairs above.
* A *box* is a path from a level down to a leaf: a fixed set of keys with values for each. Two
  boxes share combinations only if they have the same keys and, for every key, common values.
  Only the part where they overlap is looked at, one by one.

Worked example, ``[(a, [1, 2]), {b: [3, 4]}, {b: [4, 5]}]``::

    alternative            0      0      1      1
    its combination       b=3    b=4    b=4    b=5     drops {1: [0]}, raw_block 4, union.size 3
    indices for a=1, 2    0, 2   1, 3   none   4, 5    own 2 x 3 = 6
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, product

from junky_core.errors import FitParamsError
from junky_core.space.tree import Level, Pair, Union, levels

__all__ = ["resolve"]

# More combinations than this are never compared one by one: they would not fit in memory.
_COMPARABLE = 20_000_000


def resolve(root: Level) -> Union:
    """Work out which combinations below ``root`` are duplicates, where that is still to do."""
    if root.union is None:
        for level in reversed(levels(root)):
            if level.union is None:
                level.union = _union(level)
    assert root.union is not None
    return root.union


def _union(level: Level) -> Union:
    drops: dict[int, list[int]] = {}
    for mask, subs in level.suspects:
        boxes = [box for sub in subs for box in _boxes(level.subs[sub], sub, mask)]
        for group in _overlapping(boxes):
            _find_drops(level, group, drops)
    sizes = [sub.size - len(drops.get(index, ())) for index, sub in enumerate(level.subs)]
    *offsets, size = accumulate(sizes, initial=0)
    packed: dict[int, Sequence[int]] = {}
    for index, found in drops.items():
        found.sort()
        packed[index] = array("q", found) if found[-1] < 1 << 63 else found
    return Union(packed, offsets, size)


@dataclass(frozen=True, slots=True)
class _Box:
    """A path from an alternative down to a leaf.

    The raw index, in the alternative, of one of its combinations is ``offset`` plus, for each
    pair, the value's index times the pair's stride.
    """

    sub: int
    offset: int
    pairs: dict[str, tuple[Pair, int]]  # name -> pair, stride


def _boxes(root: Level, sub: int, mask: int) -> Iterator[_Box]:
    """Yield the boxes below alternative ``root`` whose keys are those of ``mask``, in order."""
    todo: list[tuple[Level, int, int, tuple[tuple[Pair, int], ...]]] = [(root, 0, 0, ())]
    while todo:
        level, offset, above, pairs = todo.pop()
        keys = above | level.own_mask
        if keys & ~mask:
            continue
        if level.subs:
            for inner, start in zip(reversed(level.subs), reversed(level.raw_offsets), strict=True):
                strides = _strides(level, inner.own * inner.raw_block)
                place = offset + level.own * start
                todo.append((inner, place, keys, (*pairs, *strides)))
        elif keys == mask:
            found = (*pairs, *_strides(level, 1))
            yield _Box(sub, offset, {pair.name: (pair, stride) for pair, stride in found})


def _strides(level: Level, size: int) -> list[tuple[Pair, int]]:
    """Return each pair with the distance of its values, where one combination takes ``size``."""
    found = []
    for pair in reversed(level.pairs):
        found.append((pair, size))
        size *= len(pair.values)
    return found[::-1]


def _overlapping(boxes: list[_Box]) -> list[list[_Box]]:
    """Return groups of boxes of several alternatives; only those of one group may overlap."""
    cost = {name: sum(len(box.pairs[name][0].values) for box in boxes) for name in boxes[0].pairs}
    groups = [boxes]
    for name in sorted(cost, key=cost.__getitem__):
        if cost[name] > _COMPARABLE:
            break
        parts = [part for group in groups for part in _connected(group, name)]
        groups = [part for part in parts if part[0].sub != part[-1].sub]
    return groups


def _connected(boxes: list[_Box], name: str) -> Iterable[list[_Box]]:
    """Split boxes so that boxes of two parts have no value of key ``name`` in common."""
    leader = list(range(len(boxes)))  # union-find

    def find(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    first: dict[Hashable, int] = {}
    for index, box in enumerate(boxes):
        for mark in box.pairs[name][0].marks:
            other = first.setdefault(mark, index)
            if other != index:
                leader[find(index)] = find(other)
    parts: dict[int, list[_Box]] = {}
    for index, box in enumerate(boxes):
        parts.setdefault(find(index), []).append(box)
    return parts.values()


def _find_drops(level: Level, boxes: list[_Box], drops: dict[int, list[int]]) -> None:
    """Add to ``drops`` what combinations of ``boxes`` an earlier alternative has, too."""
    # Numbers every overlapping value, so that one integer stands for one combination.
    codes: dict[str, dict[Hashable, int]] = {}
    radix = 1
    for name in boxes[0].pairs:
        if any(len(box.pairs[name][0].values) > _COMPARABLE for box in boxes):
            raise _too_many(boxes)
        counts = Counter(chain.from_iterable(box.pairs[name][0].marks for box in boxes))
        shared = [mark for mark, count in counts.items() if count > 1]
        codes[name] = {mark: radix * number for number, mark in enumerate(shared)}
        radix *= max(1, len(shared))
    overlaps = []
    for box in boxes:
        found = [
            [(code[mark], index * stride) for index, mark in enumerate(pair.marks) if mark in code]
            for code, (pair, stride) in ((codes[name], box.pairs[name]) for name in codes)
        ]
        overlaps.append(found)
    if sum(math.prod(map(len, found)) for found in overlaps) > _COMPARABLE:
        raise _too_many(boxes)
    seen: set[int] = set()
    for box, found in zip(boxes, overlaps, strict=True):
        numbers = map(sum, product(*([code for code, _ in values] for values in found)))
        places = map(sum, product(*([place for _, place in values] for values in found)))
        for number, place in zip(numbers, places, strict=True):
            if number not in seen:
                seen.add(number)
                continue
            rank = _rank(level.subs[box.sub], box.offset + place)
            if rank is not None:
                drops.setdefault(box.sub, []).append(rank)


def _too_many(boxes: list[_Box]) -> FitParamsError:
    keys = ", ".join(pair.key for pair, _ in boxes[0].pairs.values())
    return FitParamsError(
        f"{len(boxes)} alternatives with the same keys ({keys}) overlap in more than "
        f"{_COMPARABLE:,} combinations, too many to find the duplicates; write the alternatives "
        "so that they do not overlap"
    )


def _rank(level: Level, raw: int) -> int | None:
    """Turn an index that counts duplicates into one that does not; ``None`` for a duplicate."""
    path: list[tuple[Level, int, int]] = []
    while level.subs:
        sub = bisect_right(level.raw_offsets, raw // level.own) - 1
        inner = level.subs[sub]
        above, rest = divmod(raw - level.own * level.raw_offsets[sub], inner.own * inner.raw_block)
        path.append((level, sub, above))
        level, raw = inner, rest
    rank = raw
    for level, sub, above in reversed(path):
        assert level.union is not None
        dropped = level.union.drops.get(sub, ())
        before = bisect_left(dropped, rank)
        if before < len(dropped) and dropped[before] == rank:
            return None
        offset, size = level.union.of(sub)
        rank += level.own * offset + above * size - before
    return rank
