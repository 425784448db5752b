"""Values on the wire and in here: moments, money, units, versions."""

from datetime import UTC, datetime
from typing import Final, overload

from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money

from tollhouse_server.errors import EtagMismatch
from tollhouse_server.ledger.terms import Metric
from tollhouse_server.money import MAX_NANOS, NANOS_PER_DOLLAR
from tollhouse_server.names import invalid

_LIMIT_UNITS: Final = {
    Metric.REQUESTS: "request",
    Metric.INPUT_TOKENS: "token",
    Metric.OUTPUT_TOKENS: "token",
    Metric.IMAGES: "image",
    Metric.COST: "nanos",
    Metric.CONCURRENCY: "call",
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_SECONDS: Final = 86_400
_FIRST_MOMENT: Final = datetime(2, 1, 1, tzinfo=UTC)
_END_OF_MOMENTS: Final = datetime(9999, 1, 1, tzinfo=UTC)


@overload
def timestamp(moment: datetime) -> Timestamp: ...
@overload
def timestamp(moment: None) -> None: ...
@overload
def timestamp(moment: datetime | None) -> Timestamp | None: ...
def timestamp(moment: datetime | None) -> Timestamp | None:
    """Return an aware moment as a Timestamp; None stays absent."""
    if moment is None:
        return None
    since = moment - _EPOCH
    return Timestamp(seconds=since.days * _DAY_SECONDS + since.seconds, nanos=since.microseconds * 1000)


def moment_of(message: Timestamp, field: str) -> datetime:
    """Return a Timestamp as an aware moment, cut to microseconds.

    Raises:
        InvalidRequest: it is beyond what a calendar holds, in whichever time zone.
    """
    try:
        moment = message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        moment = None
    # The last moment of the calendar is what asyncpg writes as `infinity` and reads without a time zone.
    if moment is None or not _FIRST_MOMENT <= moment < _END_OF_MOMENTS:
        raise invalid(field, "is not a moment between the years 2 and 9998")
    return moment


def money(nanos: int) -> Money:
    """Return nano-dollars as Money; both parts carry the sign."""
    whole, rest = divmod(abs(nanos), NANOS_PER_DOLLAR)
    sign = -1 if nanos < 0 else 1
    return Money(currency_code="USD", units=sign * whole, nanos=sign * rest)


def nanos_of(message: Money, field: str) -> int:
    """Return Money as nano-dollars.

    Raises:
        InvalidRequest: another currency, parts of different signs, or too much.
    """
    if message.currency_code not in ("", "USD"):
        raise invalid(f"{field}.currency_code", "must be USD")
    if abs(message.nanos) >= NANOS_PER_DOLLAR or message.units * message.nanos < 0:
        raise invalid(f"{field}.nanos", "must be below one dollar and of the sign of units")
    nanos = message.units * NANOS_PER_DOLLAR + message.nanos
    if abs(nanos) > MAX_NANOS:
        raise invalid(field, f"is beyond the largest amount of {MAX_NANOS // NANOS_PER_DOLLAR} dollars")
    return nanos


def written(text: str, field: str) -> str:
    """Return what a person has written, without the white space around it.

    Raises:
        InvalidRequest: nothing is left.
    """
    kept = text.strip()
    if not kept:
        raise invalid(field, "is required")
    return kept


def limit_unit(metric: Metric) -> str:
    """Return the unit of a limit's amounts, as `LimitState.unit` names it."""
    return _LIMIT_UNITS[metric]


def etag(version: int) -> str:
    """Return a row's version as an etag."""
    return f"v{version}"


def version_of(text: str, name: str) -> int | None:
    """Return the version that an etag stands for; None, which means no check, when it is empty.

    Raises:
        EtagMismatch: it is not an etag of ours, so no row is at it.
    """
    if not text:
        return None
    if not (text.startswith("v") and text[1:].isascii() and text[1:].isdigit()):
        raise EtagMismatch(name=name)
    return int(text[1:])


def selected(selector: str) -> tuple[str | None, str | None]:
    """Return the tier and the model that a limit's selector names; None for each that it does not."""
    kind, _, name = selector.partition("/")
    return (name if kind == "tiers" else None, name if kind == "models" else None)
