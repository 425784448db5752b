"""Money is an integer count of nano-dollars (1 USD = 1,000,000,000); prices are nano-dollars per million units.

Nothing here or above it ever holds money in a float: a float cannot represent a tenth of a cent, and a sum of
floats depends on its order.
"""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from itertools import zip_longest
from typing import TypeVar

NANOS_PER_DOLLAR = 1_000_000_000
UNITS_PER_PRICE = 1_000_000
MAX_NANOS = 2**63 - 1
"""The largest amount PostgreSQL's BIGINT can hold: about 9.2 billion dollars."""

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


def charge_nanos(units: int, nanos_per_million_units: int) -> int:
    """Return the charge in nano-dollars for `units` (tokens, images, queries ...), rounded once, half to even."""
    return divided(units * nanos_per_million_units, UNITS_PER_PRICE)


def charge_nanos_ceiling(units: int, nanos_per_million_units: int) -> int:
    """Return an upper bound of `charge_nanos`: the same product, rounded up. For holds, never for bookings."""
    return -(-units * nanos_per_million_units // UNITS_PER_PRICE)


def marginal(basis: int, bands: Mapping[int, int], *, whole: int) -> int:
    """Return what steps make of `basis`: each stretch of it at the rate of its own band, rounded once at the end.

    `bands` maps where a band begins to its rate, in parts of `whole`, ascending. What is below the first is free.
    """
    starts = list(bands)
    stretches = zip_longest(starts, starts[1:])
    exact = sum(max(0, (basis if end is None else min(basis, end)) - start) * bands[start] for start, end in stretches)
    return divided(exact, whole)


def dollars_to_nanos(text: str) -> int:
    """Parse a decimal dollar amount such as "12.50" exactly.

    Raises:
        ValueError: not a plain decimal, finer than one nano-dollar, or beyond BIGINT.
    """
    try:
        nanos = Decimal(text) * NANOS_PER_DOLLAR
    except InvalidOperation:
        raise ValueError(f"{text!r} is not a decimal amount of dollars") from None
    if not nanos.is_finite() or nanos != nanos.to_integral_value():
        raise ValueError(f"{text!r} is not a whole number of nano-dollars")
    if abs(nanos) > MAX_NANOS:
        raise ValueError(f"{text!r} is beyond the largest amount of {nanos_to_dollars(MAX_NANOS)} dollars")
    return int(nanos)


def nanos_to_dollars(nanos: int, min_decimals: int = 2) -> str:
    """Format nano-dollars as an exact decimal string of dollars with at least `min_decimals` decimals."""
    sign = "-" if nanos < 0 else ""
    whole, fraction = divmod(abs(nanos), NANOS_PER_DOLLAR)
    decimals = f"{fraction:09d}".rstrip("0").ljust(min_decimals, "0")
    return f"{sign}{whole}.{decimals}" if decimals else f"{sign}{whole}"
