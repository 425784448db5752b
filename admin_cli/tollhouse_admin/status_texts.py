"""Numbers of a status in few letters."""

from decimal import ROUND_HALF_EVEN, Decimal

from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money

from tollhouse_admin.amounts import dollars_of, dollars_text

_CENT = Decimal("0.01")


def number(value: float) -> str:
    """Return a count or rate with three digits at the most that say something."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            scale = 1e3 if unit == "k" else size
            return f"{value / scale:.1f}{unit}"
    return (
        f"{value:.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.2g}" if value < 1 else f"{value:.1f}"
    )


def dollars(money: Money) -> str:
    """Return money in cents; less than a cent in all its digits, for what calls cost is often less."""
    amount = dollars_of(money)
    is_small = Decimal(0) < abs(amount) < _CENT
    return f"${dollars_text(amount if is_small else amount.quantize(_CENT, ROUND_HALF_EVEN))}"


def latency_text(seconds: float | None) -> str:
    """Return a duration of a call; a dash where there was none."""
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def age_text(since: Timestamp, now: Timestamp) -> str:
    """Return how long ago something was, in its largest unit."""
    return span_text((now.ToNanoseconds() - since.ToNanoseconds()) / 1e9)


def span_text(seconds: float) -> str:
    """Return a span in its largest unit."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
