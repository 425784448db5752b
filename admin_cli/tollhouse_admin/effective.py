"""When something takes effect, as people type it: a date in the tenant's calendar, or an exact moment."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from google.protobuf.timestamp_pb2 import Timestamp

from tollhouse_admin.failures import ExitCode, Failure, wrong_usage

_ADVICE = "Write it like 2027-01-01 (midnight in the tenant's time zone) or 2027-01-01T06:00+02:00."


def parse_day_or_moment(text: str) -> date | datetime:
    """Return a date, or a moment with its offset.

    Raises:
        Failure: neither of them; a time without an offset could mean many moments.
    """
    cleaned = text.strip()
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", cleaned, re.ASCII):
            return date.fromisoformat(cleaned)
        moment = datetime.fromisoformat(cleaned)
    except ValueError as error:
        raise wrong_usage(f"{text!r} is not a date or time", _ADVICE) from error
    if moment.tzinfo is None:
        raise wrong_usage(f"{text!r} has no offset", _ADVICE)
    return moment


def moment_of(day: date | datetime, zone: Callable[[], ZoneInfo]) -> Timestamp:
    """Return a moment as it is, or the first moment of a date in `zone`, which is asked for only then.

    Raises:
        Failure: it is beyond what a calendar holds.
    """
    # On a day that begins with a jump of the clock, midnight by the offset before it is that jump's moment.
    moment = day if isinstance(day, datetime) else datetime.combine(day, time.min, zone())
    found = Timestamp()
    try:
        found.FromDatetime(moment.astimezone(UTC))
    except (ValueError, OverflowError) as error:
        raise wrong_usage(f"{day.isoformat()!r} is outside of the calendar") from error
    return found


def zone_of(name: str) -> ZoneInfo:
    """Return a time zone by its IANA name.

    Raises:
        Failure: this machine has no such zone.
    """
    try:
        return ZoneInfo(name or "UTC")
    except ZoneInfoNotFoundError as error:
        raise Failure(
            reason="TIME_ZONE",
            message=f"This machine does not know the tenant's time zone {name!r}",
            advice="Install time zone data (the package tzdata), or give the time with its offset.",
            exit_code=ExitCode.GENERAL,
        ) from error
