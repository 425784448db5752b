"""Money is an integer count of nano-dollars (1 USD = 1,000,000,000); prices are nano-dollars per million units.

Nothing here or above it ever holds money in a float: a float cannot represent a tenth of a cent, and a sum of
floats depends on its order.
"""

from decimal import Decimal, InvalidOperation

NANOS_PER_DOLLAR = 1_000_000_000
UNITS_PER_PRICE = 1_000_000
MAX_NANOS = 2**63 - 1
"""The largest amount PostgreSQL's BIGINT can hold: about 9.2 billion dollars."""


def charge_nanos(units: int, nanos_per_million_units: int) -> int:
    """Return the charge in nano-dollars for `units` (tokens, images, queries ...), rounded once, half to even."""
    quotient, remainder = divmod(units * nanos_per_million_units, UNITS_PER_PRICE)
    doubled = 2 * remainder
    if doubled > UNITS_PER_PRICE or (doubled == UNITS_PER_PRICE and quotient % 2 == 1):
        return quotient + 1
    return quotient


def charge_nanos_ceiling(units: int, nanos_per_million_units: int) -> int:
    """Return an upper bound of `charge_nanos`: the same product, rounded up. For holds, never for bookings."""
    return -(-units * nanos_per_million_units // UNITS_PER_PRICE)


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
