"""Amounts divided exactly: rounded once, or spread so that the parts sum to the whole."""

from collections.abc import Mapping
from itertools import zip_longest
from typing import TypeVar

Key = TypeVar("Key")


def divided(numerator: int, denominator: int) -> int:
    """Return the quotient as an integer, rounded once, half to even. `denominator` is more than zero."""
    quotient, remainder = divmod(numerator, denominator)
    doubled = 2 * remainder
    return quotient + (doubled > denominator or (doubled == denominator and quotient % 2 == 1))


def spread(total: int, weights: Mapping[Key, int]) -> dict[Key, int]:
    """Divide `total` in proportion to weights; the parts sum to it exactly, whatever its sign.

    Each key has its share rounded towards zero, and the units that are left go one each to those with the largest
    remainders, of equal ones to the first in the mapping's order. A weight below zero counts as none. Where all are
    zero, everybody's part is the same. Nobody to spread over is an empty answer.
    """
    if not weights:
        return {}
    counted = {key: max(weight, 0) for key, weight in weights.items()}
    whole = sum(counted.values())
    if whole == 0:
        counted, whole = dict.fromkeys(weights, 1), len(weights)
    sign = -1 if total < 0 else 1
    parts = {key: divmod(abs(total) * weight, whole) for key, weight in counted.items()}
    left = abs(total) - sum(floor for floor, _ in parts.values())
    # Sorting is stable: the order of the mapping decides between equal remainders.
    first = sorted(parts, key=lambda key: -parts[key][1])[:left]
    more = dict.fromkeys(first, 1)
    return {key: sign * (floor + more.get(key, 0)) for key, (floor, _) in parts.items()}


def marginal(basis: int, bands: Mapping[int, int], *, whole: int) -> int:
    """Return what steps make of `basis`: each stretch of it at the rate of its own band, rounded once at the end.

    `bands` maps where a band begins to its rate, in parts of `whole`, ascending. What is below the first is free.
    """
    starts = list(bands)
    stretches = zip_longest(starts, starts[1:])
    exact = sum(max(0, (basis if end is None else min(basis, end)) - start) * bands[start] for start, end in stretches)
    return divided(exact, whole)
