"""The combinations of a tree of pairs and alternatives: random access and iteration."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import chain, compress, product, repeat
from typing import Any

from junky_core.space.duplicates import resolve
from junky_core.space.tree import Level, Pair

__all__ = ["combination", "combinations"]

# Alternatives of at most this many combinations are made once and then joined to each prefix.
_BLOCK = 1024
# Making dicts to join beforehand repays when there are at least as many on both sides.
_WORTHWHILE = 4
# Longer value ranges are never made into a tuple.
_LONG = 100_000
# Iterators inside iterators; deeper ones are replaced by random access.
_NESTING = 32


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
    if long == len(factors) - 1:
        heads = product(*factors[:long])
        return chain.from_iterable(
            zip(*map(repeat, head), factors[long], strict=False) for head in heads
        )
    return (
        (*head, value, *tail)
        for head in product(*factors[:long])
        for value in factors[long]
        for tail in _product(factors[long + 1 :])
    )
