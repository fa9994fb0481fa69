"""The combinations of a tree of pairs and alternatives: by index, and one after the other."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import chain, compress, product, repeat
from typing import Any

from junky_core.space.duplicates import resolve
from junky_core.space.tree import Level, Pair

__all__ = ["combination", "combinations"]

# At most this many dicts, or values of a range, are made before they are needed.
_BLOCK = 1024
# Making dicts to join beforehand pays off if there are at least as many on both sides.
_WORTHWHILE = 4

_Combination = dict[str, Any]


def combination(level: Level, index: int) -> _Combination:
    """Return combination ``index`` (from 0) of a resolved tree."""
    below: _Combination = {}
    if level.alternatives:
        kept = resolve(level)
        # An alternative of which nothing is kept has the same offset as the next one.
        number = bisect_right(kept.offsets, index // level.own) - 1
        start, end = kept.offsets[number : number + 2]
        index, rest = divmod(index - level.own * start, end - start)
        rest += _dropped_before(kept.drops.get(number, ()), rest)
        below = combination(level.alternatives[number], rest)
    own = []
    for pair in reversed(level.pairs):
        index, place = divmod(index, len(pair.values))
        own.append((pair.key, pair.values[place]))
    return dict(reversed(own)) | below


def _dropped_before(dropped: Sequence[int], kept: int) -> int:
    """Return how many of the sorted ``dropped`` come before the ``kept``-th index that is not."""

    def kept_before(place: int) -> int:
        return dropped[place] - place

    return bisect_right(range(len(dropped)), kept, key=kept_before)


def combinations(level: Level, above: _Combination | None = None) -> Iterator[_Combination]:
    """Iterate over all combinations without duplicates, each a new dict.

    Args:
        level: The root of a tree, resolved or not.
        above: What is added to each combination in front.
    """
    above = above or {}
    if not level.alternatives:
        return _products(above, level.pairs)
    return chain.from_iterable(_chunks(above, level))


def _chunks(above: _Combination, level: Level) -> Iterator[Iterator[_Combination]]:
    """Yield iterators that are together all combinations of a level with alternatives.

    The inner loops run in C: a Python step is taken once per chunk, not once per combination.
    """
    # No alternative before the second of those that share a key set can hold a duplicate: the
    # first combinations come at once, however much there is to compare later.
    first = min((indices[1] for indices in level.shared.values()), default=math.inf)
    for index, alternative in enumerate(level.alternatives):
        dropped = resolve(level).drops.get(index, ()) if index >= first else ()
        if dropped and len(dropped) == alternative.size:
            continue
        if not alternative.alternatives and not dropped:
            yield _products(above, [*level.pairs, *alternative.pairs])
        elif level.own > 1 and alternative.raw_size <= _BLOCK:
            tails = list(_without(dropped, combinations(alternative)))
            yield _joined(_products(above, level.pairs), tails)
        else:
            for head in _products(above, level.pairs):
                yield _without(dropped, combinations(alternative, head))


def _without(dropped: Sequence[int], found: Iterator[_Combination]) -> Iterator[_Combination]:
    """Leave out what has one of the sorted indices ``dropped``."""
    return compress(found, _kept(dropped)) if dropped else found


def _kept(dropped: Sequence[int]) -> Iterator[bool]:
    """Yield for each index whether it is kept, without end."""
    last = -1
    for place in dropped:
        yield from repeat(True, place - last - 1)
        yield False
        last = place
    yield from repeat(True)


def _joined(heads: Iterator[_Combination], tails: list[_Combination]) -> Iterator[_Combination]:
    # Joining two dicts is three times faster than making one of keys and values.
    return chain.from_iterable(map(head.__or__, tails) for head in heads)


def _products(above: _Combination, pairs: Sequence[Pair]) -> Iterator[_Combination]:
    """Iterate over ``above`` with each combination of ``pairs``, the last pair fastest."""
    size, split = 1, len(pairs)
    while split > 0 and size * len(pairs[split - 1].values) <= _BLOCK:
        split -= 1
        size *= len(pairs[split].values)
    heads = math.prod(len(pair.values) for pair in pairs[:split])
    if heads < _WORTHWHILE or size < _WORTHWHILE:
        return _dicts(above, pairs)
    return _joined(_dicts(above, pairs[:split]), list(_dicts({}, pairs[split:])))


def _dicts(above: _Combination, pairs: Sequence[Pair]) -> Iterator[_Combination]:
    keys = (*above, *(pair.key for pair in pairs))
    values = [(value,) for value in above.values()]
    return map(dict, map(zip, repeat(keys), _product([*values, *(p.values for p in pairs)])))


def _product(factors: Sequence[Sequence[Any]]) -> Iterator[tuple[Any, ...]]:
    """Do as ``itertools.product`` does, but never make a tuple of a whole long range."""
    long = next((i for i, factor in enumerate(factors) if len(factor) > _BLOCK), None)
    if long is None:
        return product(*factors)
    every = factors[long]
    return chain.from_iterable(
        _product([*zip(head), every[start : start + _BLOCK], *factors[long + 1 :]])
        for head in product(*factors[:long])
        for start in range(0, len(every), _BLOCK)
    )
