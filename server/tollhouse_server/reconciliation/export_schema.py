"""The schema of Google's Cloud Billing export, and how a line of it is read.

Field names and their meaning: docs.cloud.google.com/billing/docs/how-to/export-data-bigquery-tables/standard-usage and
/detailed-usage, read November 2026. The detailed export has all fields of the standard one. `export_time` is when lines
were appended: Google corrects by further lines, also for days long past, so all lines of a use add up. `cost` is before
credits. `currency_conversion_rate` is how much of the currency one US dollar is. Amounts are floats in BigQuery; here
they are read from their decimal text and never become one.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation, localcontext
from functools import lru_cache
from typing import Any, Final, TypeVar

import orjson

from tollhouse_server.money import NANOS_PER_DOLLAR
from tollhouse_server.reconciliation.dates import google_day
from tollhouse_server.reconciliation.lines import BillLine

COST_TYPES: Final = frozenset({"regular", "tax", "adjustment", "rounding_error"})
FREE_TIER: Final = "FREE_TIER"

_DECIMAL = re.compile(r"[+-]?(\d{1,18}(\.\d{0,30})?|\.\d{1,30})([eE][+-]?\d{1,2})?", re.ASCII)
_EMPTY: Final[tuple[Any, ...]] = (None, "", [], {})
_MOMENT = re.compile(r"20\d{2}-\d\d-\d\d[T ]\d\d:\d\d", re.ASCII)
_MONTH = re.compile(r"20\d{2}(0[1-9]|1[0-2])", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}")
_TEXT_MOST = 1024
_DIGITS_MOST = 60
"""Before or behind the point, of numbers that are only told apart by their text."""

_QUANTITY_BELOW = Decimal(10) ** 30
_NANOS_BELOW = Decimal(10) ** 18
"""A line of a billion dollars is no line of a bill; sums of lines fit what they are shown in."""

_YEARS = range(2000, 3000)

_WORD_MOST = 200
_REMEMBERED = 8_192
"""Texts of up to so many characters, moments and days: some megabytes, and most of the work of a large file."""

Value = TypeVar("Value")


class BadField(Exception):
    """A field of a line is not what the schema says."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__(field, description)
        self.field = field
        self.description = description


def read_line(row: Mapping[str, Any]) -> BillLine:
    """Return a line from its fields, nested as in BigQuery; numbers are decimal text or Decimal, never float.

    Raises:
        BadField: one of them is missing or is not what it should be.
    """
    digests = _digests(row)
    currency, rate = _currency(row)
    cost = _required(row, "cost", _decimal)
    credits_given = _credits(row)
    start = _required(row, "usage_start_time", _moment)
    listed = _optional(row, "cost_at_list", _decimal)
    return BillLine(
        **digests,
        billing_account=_optional(row, "billing_account_id", _text) or "",
        day=_day_of(start),
        usage_start=start,
        usage_end=_required(row, "usage_end_time", _moment),
        export_time=_required(row, "export_time", _moment),
        invoice_month=_optional(row, "invoice.month", _month) or "",
        project=_optional(row, "project.id", _text) or "",
        service_id=_optional(row, "service.id", _text) or "",
        service=_optional(row, "service.description", _text) or "",
        sku_id=_required(row, "sku.id", _text),
        sku=_optional(row, "sku.description", _text) or "",
        cost_type=_optional(row, "cost_type", _cost_type) or "regular",
        currency=currency,
        conversion_rate=rate,
        cost=cost,
        cost_nanos=_nanos("cost", cost, rate),
        list_nanos=None if listed is None else _nanos("cost_at_list", listed, rate),
        credits=[{"type": kind, "name": name, "amount": f"{amount:f}"} for kind, name, amount in credits_given],
        credits_nanos=_nanos("credits", sum((one[2] for one in credits_given), Decimal(0)), rate),
        free_nanos=_nanos("credits", sum((one[2] for one in credits_given if one[0] == FREE_TIER), Decimal(0)), rate),
        quantity=_optional(row, "usage.amount", _quantity) or Decimal(0),
        unit=_optional(row, "usage.unit", _text) or "",
    )


def _digests(row: Mapping[str, Any]) -> dict[str, bytes]:
    """Return what lines are told apart by: the same in every notation, and with columns that are empty or left out."""
    try:
        plain = _plain(row)
        exported = str(plain.pop("export_time", ""))
        usage = hashlib.sha256(orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)).digest()
    except (RecursionError, orjson.JSONEncodeError):
        raise BadField("(line)", "is nested too deeply, or has a text that is not Unicode") from None
    return {"line_digest": hashlib.sha256(usage + exported.encode()).digest(), "usage_digest": usage}


def _plain(value: Any) -> Any:
    # Exact types, and no look at abstract ones: this is most of the work of a large file.
    kind = type(value)
    if kind is str:
        # Most texts of a bill are in many of its lines.
        return _plain_word(value) if len(value) <= _WORD_MOST else _plain_text(value)
    if kind is Decimal:
        # Written out, 1e999999 has a million digits.
        if not value.is_finite() or abs(value.adjusted()) > _DIGITS_MOST:
            raise BadField("(line)", "has a number that is out of range")
        return f"{value.normalize():f}"
    if kind is dict:
        return {name: plain for name, one in value.items() if (plain := _plain(one)) not in _EMPTY}
    return [_plain(one) for one in value] if kind is list else value


@lru_cache(maxsize=_REMEMBERED)
def _plain_word(text: str) -> Any:
    return _plain_text(text)


def _plain_text(text: str) -> Any:
    if not text or text[0].isalpha():
        return text
    if text[0] in "[{":
        try:
            return _plain(json.loads(text, parse_float=Decimal, parse_int=Decimal, parse_constant=str))
        except (ValueError, RecursionError):
            return text
    if _DECIMAL.fullmatch(text):
        return f"{Decimal(text).normalize():f}"
    try:
        return _moment("", text).astimezone(UTC).isoformat() if _MOMENT.match(text) else text
    except BadField:
        return text


def _nanos(field: str, amount: Decimal, rate: Decimal) -> Decimal:
    """Return an amount of a currency in nano-dollars; a quotient is cut behind its 38th digit, far below a nano.

    Raises:
        BadField: it is beyond what a line can cost.
    """
    if not amount:
        return Decimal(0)
    with localcontext(prec=38):
        nanos = amount * NANOS_PER_DOLLAR / rate if rate != 1 else amount * NANOS_PER_DOLLAR
    if abs(nanos) >= _NANOS_BELOW:
        raise BadField(field, "must be less than a billion US dollars")
    return nanos


def _currency(row: Mapping[str, Any]) -> tuple[str, Decimal]:
    currency = _required(row, "currency", _text)
    if not _CURRENCY.fullmatch(currency):
        raise BadField("currency", "must be the three letters of a currency")
    rate = _optional(row, "currency_conversion_rate", _decimal)
    if currency == "USD" and rate in (None, 1):
        return currency, Decimal(1)
    if rate is None or rate <= 0:
        raise BadField("currency_conversion_rate", f"must say how much {currency} one US dollar is")
    return currency, rate


def _credits(row: Mapping[str, Any]) -> list[tuple[str, str, Decimal]]:
    given = row.get("credits") or []
    if isinstance(given, str):
        try:
            given = json.loads(given, parse_float=str, parse_int=str, parse_constant=str)
        except (ValueError, RecursionError):
            raise BadField("credits", "must be a list of credits, in CSV as JSON") from None
    if not isinstance(given, list) or not all(isinstance(one, Mapping) for one in given):
        raise BadField("credits", "must be a list of credits")
    return [
        (
            _optional(one, "type", _text) or "",
            _optional(one, "full_name", _text) or _optional(one, "name", _text) or "",
            _required(one, "amount", _decimal, f"credits[{index}].amount"),
        )
        for index, one in enumerate(given)
    ]


# --- fields -----------------------------------------------------------------------------------------------------------


def _find(row: Mapping[str, Any], path: str) -> Any:
    if "." not in path:
        return row.get(path)
    found: Any = row
    for part in path.split("."):
        found = found.get(part) if type(found) is dict else None
    return found


def _optional(row: Mapping[str, Any], path: str, read: Callable[[str, Any], Value]) -> Value | None:
    value = _find(row, path)
    return None if value in (None, "") else read(path, value)


def _required(row: Mapping[str, Any], path: str, read: Callable[[str, Any], Value], name: str | None = None) -> Value:
    value = _find(row, path)
    if value in (None, ""):
        raise BadField(name or path, "is missing")
    return read(name or path, value)


def _text(path: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > _TEXT_MOST or "\0" in value:
        raise BadField(path, f"must be a text of at most {_TEXT_MOST} characters")
    return value


def _decimal(path: str, value: Any) -> Decimal:
    text = str(value)
    if isinstance(value, (bool, float)) or not _DECIMAL.fullmatch(text):
        raise BadField(path, "must be a decimal number")
    try:
        return value if type(value) is Decimal else Decimal(text)
    except InvalidOperation:
        raise BadField(path, "must be a decimal number") from None


def _quantity(path: str, value: Any) -> Decimal:
    quantity = _decimal(path, value)
    if abs(quantity) >= _QUANTITY_BELOW:
        raise BadField(path, "must be less than 10^30")
    return quantity


def _moment(path: str, value: Any) -> datetime:
    moment = _moment_of(_text(path, value))
    if moment is None:
        raise BadField(path, "must be a moment such as 2026-10-01 07:00:00 UTC")
    return moment


@lru_cache(maxsize=_REMEMBERED)
def _moment_of(text: str) -> datetime | None:
    # BigQuery writes "2026-10-01 07:00:00 UTC" as CSV and JSON, others what ISO 8601 says.
    try:
        moment = datetime.fromisoformat(text.removesuffix(" UTC"))
    except ValueError:
        return None
    if moment.year not in _YEARS:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


_day_of = lru_cache(maxsize=_REMEMBERED)(google_day)


def _month(path: str, value: Any) -> str:
    text = str(value)
    if not _MONTH.fullmatch(text):
        raise BadField(path, "must be a month such as 202610")
    return f"{text[:4]}-{text[4:]}"


def _cost_type(path: str, value: Any) -> str:
    kind = _text(path, value).lower().replace(" ", "_")
    if kind not in COST_TYPES:
        raise BadField(path, f"must be one of {', '.join(sorted(COST_TYPES))}")
    return kind
