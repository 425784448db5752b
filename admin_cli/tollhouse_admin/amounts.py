"""Money, counts and moments as people type and read them; exact, never floating point."""

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation

from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money

from tollhouse_admin.failures import Failure, wrong_usage

NANOS_PER_UNIT = 1_000_000_000
_LARGEST_UNITS = 2**63 - 1
_COUNT = re.compile(r"(\d[\d_]*(?:\.\d+)?)([kKmMgG]?)", re.ASCII)
_COUNT_SUFFIXES = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}
_DURATION = re.compile(r"(\d+)([smhdw])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def parse_dollars(text: str) -> Decimal:
    """Return US dollars typed as `$100`, `100` or `0.10`, exact.

    Raises:
        Failure: not a plain decimal number, negative, or finer than a nano-dollar.
    """
    cleaned = text.strip().removeprefix("$").removeprefix("USD").strip()
    if not re.fullmatch(r"\d[\d_]*(\.\d+)?", cleaned, re.ASCII):
        raise _not_dollars(text)
    try:
        amount = Decimal(cleaned.replace("_", ""))
    except InvalidOperation as error:
        raise _not_dollars(text) from error
    if -int(amount.as_tuple().exponent) > 9:
        raise wrong_usage(f"{text!r} is finer than a nano-dollar", "Give at most nine decimal places.")
    if amount > _LARGEST_UNITS:
        raise wrong_usage(f"{text!r} is more than can be counted")
    return amount


def _not_dollars(text: str) -> Failure:
    return wrong_usage(f"{text!r} is not an amount of US dollars", "Write it like 100, $100 or 0.10.")


def money_of(amount: Decimal) -> Money:
    """Return `amount` US dollars, which has at most nine decimal places, as google.type.Money."""
    units = int(amount)
    return Money(currency_code="USD", units=units, nanos=int((amount - units) * NANOS_PER_UNIT))


def dollars_of(money: Money) -> Decimal:
    """Return the exact amount of `money`."""
    return dollars_of_nanos(money.units * NANOS_PER_UNIT + money.nanos)


def dollars_of_nanos(nanos: int) -> Decimal:
    """Return nano-dollars as dollars, exact whatever their size."""
    sign = int(nanos < 0)
    return Decimal((sign, tuple(int(digit) for digit in str(abs(nanos))), -9))


def dollars_text(amount: Decimal) -> str:
    """Return all digits of `amount` that say something, and at least two decimal places."""
    whole, _, fraction = f"{amount:f}".partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"


def parse_count(text: str) -> int:
    """Return a whole number typed as `5000`, `5_000`, `5k` or `1.5M`.

    Raises:
        Failure: not a number, or not a whole one.
    """
    match = _COUNT.fullmatch(text.strip())
    if match is None:
        raise wrong_usage(f"{text!r} is not a count", "Write it like 5000, 5k or 1.5M.")
    count = Decimal(match[1].replace("_", "")) * _COUNT_SUFFIXES[match[2].lower()]
    if count != int(count) or count > _LARGEST_UNITS:
        raise wrong_usage(f"{text!r} is not a whole number that can be counted")
    return int(count)


def parse_duration(text: str) -> timedelta:
    """Return a span typed as `45s`, `30m`, `24h`, `90d`, `2w` or a sum such as `1h30m`.

    Raises:
        Failure: not such a span.
    """
    cleaned = text.strip().lower()
    if not cleaned or _DURATION.sub("", cleaned):
        raise wrong_usage(f"{text!r} is not a duration", "Write it like 90d, 24h or 1h30m.")
    seconds = sum(int(number) * _SECONDS[unit] for number, unit in _DURATION.findall(cleaned))
    try:
        return timedelta(seconds=seconds)
    except OverflowError as error:
        raise wrong_usage(f"{text!r} is too long") from error


def parse_moment(text: str, *, now: datetime, past: bool) -> Timestamp:
    """Return a moment typed as `2026-12-31`, `2026-12-31T12:00:00Z`, or a span from `now` (`past`: before it).

    A date means its first moment in UTC, and so does a time without a zone.

    Raises:
        Failure: neither a date, a time nor a duration.
    """
    cleaned = text.strip()
    if not re.match(r"\d{4}-", cleaned, re.ASCII):
        if not re.fullmatch(r"(\d+[smhdw])+", cleaned.lower(), re.ASCII):
            advice = "Write it like 2026-12-31, 2026-12-31T12:00Z, or as a span such as 90d."
            raise wrong_usage(f"{text!r} is neither a date nor a span", advice)
        span = parse_duration(cleaned)
        return _timestamp(_shifted(now, -span if past else span, text), text)
    try:
        moment = datetime.fromisoformat(cleaned)
    except ValueError as error:
        raise wrong_usage(
            f"{text!r} is not a date or time", "Write it like 2026-12-31 or 2026-12-31T12:00Z."
        ) from error
    return _timestamp(moment if moment.tzinfo else moment.replace(tzinfo=UTC), text)


def _shifted(now: datetime, span: timedelta, text: str) -> datetime:
    try:
        return now + span
    except OverflowError as error:
        raise wrong_usage(f"{text!r} is outside of the calendar") from error


def _timestamp(moment: datetime, text: str) -> Timestamp:
    timestamp = Timestamp()
    try:
        timestamp.FromDatetime(moment.astimezone(UTC))
    except (ValueError, OverflowError) as error:
        raise wrong_usage(f"{text!r} is outside of the calendar") from error
    return timestamp


def parse_month(text: str, *, today: date) -> str:
    """Return a month as `YYYY-MM`, typed so or as `this` or `last`.

    Raises:
        Failure: neither of them.
    """
    if text == "this":
        return f"{today:%Y-%m}"
    if text == "last":
        return f"{today.replace(day=1) - timedelta(days=1):%Y-%m}"
    if not re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])", text):
        raise wrong_usage(f"{text!r} is not a month", "Write it like 2026-11, this or last.")
    return text


def month_moments(month: str) -> tuple[Timestamp, Timestamp]:
    """Return the first moment of a month `YYYY-MM` in UTC, and that of the next one."""
    start = datetime.fromisoformat(f"{month}-01").replace(tzinfo=UTC)
    end = (start + timedelta(days=31)).replace(day=1)
    return _timestamp(start, month), _timestamp(end, month)
