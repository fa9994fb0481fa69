"""The tree of pairs and alternatives behind fit params: counting, iterating, random access.

A :class:`Level` has pairs and alternatives (its ``subs``). Its combinations are, for each
alternative, for each combination of its pairs (the first pair slowest), those of the alternative.
Two facts keep all of this cheap:

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

Trees may be deep: nothing here recurses. Nothing changes after :func:`finish` but what is worked
out late (``Level.union``), which any thread may do, with the same outcome.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, compress, product, repeat
from typing import Any

from junky_core.errors import FitParamsError
from junky_core.identity import copy_containers, freeze

__all__ = ["Level", "Pair", "combination", "combinations", "finish", "levels", "resolve"]

# Alternatives of at most this many combinations are made once and then joined to each prefix.
_BLOCK = 1024
# Making dicts to join beforehand repays when there are at least as many on both sides.
_WORTHWHILE = 4
# Longer value ranges are never made into a tuple.
_LONG = 100_000
# More combinations than this are never compared one by one: they would not fit in memory.
_COMPARABLE = 20_000_000
# Iterators inside iterators; deeper ones are replaced by random access.
_NESTING = 32


class Pair:
    """A key and the values to try.

    Attributes:
        key: The key as written.
        name: The key as compared.
        values: The values to try, each once; a ``range`` stays one.
        marks: What tells each value from others (:func:`junky_core.identity.freeze`).
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
class _Union:
    """What of a level's alternatives is kept."""

    drops: dict[int, Sequence[int]]  # alternative -> indices of it that came up before, sorted
    offsets: list[int]  # how many combinations the alternatives before each one keep
    size: int

    def of(self, sub: int) -> tuple[int, int]:
        """Return offset and size of an alternative."""
        end = self.offsets[sub + 1] if sub + 1 < len(self.offsets) else self.size
        return self.offsets[sub], end - self.offsets[sub]


_NOTHING = _Union({}, [], 1)  # no alternatives: one combination that adds nothing


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
        self.union: _Union | None = None

    @property
    def size(self) -> int:
        """How many different combinations it has; :func:`resolve` came before."""
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
        level.union = _NOTHING
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
    if not level.suspects and all(sub.union is not None for sub in level.subs):
        level.union = _union(level)


def _length(values: Sequence[Any]) -> int:
    try:
        return len(values)
    except OverflowError:
        raise FitParamsError(f"{values!r} has more values than can be counted") from None


# --- duplicates -----------------------------------------------------------------------------------


def resolve(root: Level) -> _Union:
    """Work out which combinations below ``root`` are duplicates, where that is still to do."""
    if root.union is None:
        for level in reversed(levels(root)):
            if level.union is None:
                level.union = _union(level)
    assert root.union is not None
    return root.union


def _union(level: Level) -> _Union:
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
    return _Union(packed, offsets, size)


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


# --- random access --------------------------------------------------------------------------------


def combination(level: Level, index: int) -> dict[str, Any]:
    """Return combination ``index`` (from 0) of a resolved tree."""
    found: dict[str, Any] = {}
    while True:
        union = level.union
        assert union is not None
        above = index
        if level.subs:
            # Alternatives of which nothing is kept share their offset with the next one.
            sub = bisect_right(union.offsets, index // level.own) - 1
            offset, size = union.of(sub)
            above, index = divmod(index - level.own * offset, size)
            index += _dropped_before(union.drops.get(sub, ()), index)
        values = []
        for pair in reversed(level.pairs):
            above, place = divmod(above, len(pair.values))
            values.append(pair.values[place])
        found.update(zip((pair.key for pair in level.pairs), reversed(values), strict=True))
        if not level.subs:
            return found
        level = level.subs[sub]


def _dropped_before(dropped: Sequence[int], kept: int) -> int:
    """Return how many of the sorted ``dropped`` stand before the ``kept``-th that is not."""

    def kept_before(place: int) -> int:
        return dropped[place] - place

    return bisect_right(range(len(dropped)), kept, key=kept_before)


# --- iteration ------------------------------------------------------------------------------------

_Combination = dict[str, Any]
# The values chosen above, a level below them, those of its indices that are duplicates.
_Visit = tuple[_Combination, Level, Sequence[int]]


def combinations(root: Level) -> Iterator[_Combination]:
    """Iterate over all combinations, duplicates left out, each a new dict."""
    return chain.from_iterable(_chunks({}, root))


def _chunks(
    base: _Combination, root: Level, *, nesting: int = 0, blocks: bool = True
) -> Iterator[Iterator[_Combination]]:
    """Yield iterators whose chain is all combinations of ``root``, each joined to ``base``.

    The inner loops run in C: a Python step is taken once a chunk, not once a combination.
    """
    stack: list[Iterator[_Visit | Iterator[_Combination]]] = [iter([(base, root, ())])]
    while stack:
        step = next(stack[-1], None)
        if step is None:
            stack.pop()
        elif not isinstance(step, tuple):
            yield step
        elif step[2]:
            yield _without(*step, nesting)
        elif not step[1].subs:
            yield _products(step[0], step[1].pairs)
        else:
            stack.append(_steps(step[0], step[1], blocks))


def _steps(
    base: _Combination, level: Level, blocks: bool
) -> Iterator[_Visit | Iterator[_Combination]]:
    """Yield the alternatives of a level, in order: visits, or the combinations themselves."""
    # No alternative before the second of a suspect key set can hold a duplicate: the first
    # combinations come at once, whatever there is to compare later.
    first_suspect = min((subs[1] for _, subs in level.suspects), default=len(level.subs))
    for index, sub in enumerate(level.subs):
        dropped = resolve(level).drops.get(index, ()) if index >= first_suspect else ()
        if not sub.subs and not dropped:
            yield _products(base, [*level.pairs, *sub.pairs])
        elif blocks and level.own > 1 and sub.own * sub.raw_block <= _BLOCK:
            # No blocks inside blocks: they would nest as deep as the tree.
            every = chain.from_iterable(_chunks({}, sub, nesting=_NESTING, blocks=False))
            yield _joined(_products(base, level.pairs), list(compress(every, _kept(dropped))))
        else:
            for above in _products(base, level.pairs):
                yield above, sub, dropped


def _joined(heads: Iterator[_Combination], tails: list[_Combination]) -> Iterator[_Combination]:
    # Joining two dicts is three times faster than making one of keys and values.
    return chain.from_iterable(map(head.__or__, tails) for head in heads)


def _kept(dropped: Sequence[int]) -> Iterator[bool]:
    """Yield for each index whether it is kept, without end."""
    last = -1
    for place in dropped:
        yield from repeat(True, place - last - 1)
        yield False
        last = place
    yield from repeat(True)


def _without(
    base: _Combination, level: Level, dropped: Sequence[int], nesting: int
) -> Iterator[_Combination]:
    """Iterate over an alternative but for the combinations at the indices ``dropped``."""
    if len(dropped) == level.size:
        return iter(())
    every: Iterator[_Combination]
    if nesting < _NESTING:
        every = chain.from_iterable(_chunks(base, level, nesting=nesting + 1))
    else:
        every = (base | combination(level, index) for index in range(level.size))
    return compress(every, _kept(dropped))


def _products(base: _Combination, pairs: Sequence[Pair]) -> Iterator[_Combination]:
    """Iterate over ``base`` with each combination of ``pairs``, the last pair fastest."""
    size, split = 1, len(pairs)
    while split > 0 and size * len(pairs[split - 1].values) <= _BLOCK:
        split -= 1
        size *= len(pairs[split].values)
    heads = math.prod(len(pair.values) for pair in pairs[:split])
    if heads < _WORTHWHILE or size < _WORTHWHILE:
        return _dicts(base, pairs)
    return _joined(_dicts(base, pairs[:split]), list(_dicts({}, pairs[split:])))


def _dicts(base: _Combination, pairs: Sequence[Pair]) -> Iterator[_Combination]:
    keys = (*base, *(pair.key for pair in pairs))
    values = [(value,) for value in base.values()]
    return map(dict, map(zip, repeat(keys), _product([*values, *(p.values for p in pairs)])))


def _product(factors: Sequence[Sequence[Any]]) -> Iterator[tuple[Any, ...]]:
    """Do as ``itertools.product`` does, which makes tuples of long ranges first."""
    long = next((i for i, f in enumerate(factors) if type(f) is range and len(f) > _LONG), None)
    if long is None:
        return product(*factors)
    return (
        (*head, value, *tail)
        for head in product(*factors[:long])
        for value in factors[long]
        for tail in _product(factors[long + 1 :])
    )
