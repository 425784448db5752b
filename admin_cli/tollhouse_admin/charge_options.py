"""Rates, signed amounts, days and months as people type them for charges; exact, never floating point."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated

import typer
from google.type.money_pb2 import Money

from tollhouse_admin.amounts import money_of, parse_dollars, parse_month
from tollhouse_admin.failures import wrong_usage

_PERCENT = re.compile(r"-?\d{1,4}(\.\d{1,4})?", re.ASCII)
_MILLIONTHS_OF_PERCENT = 10_000

Why = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for who reads the statement.")]


def parse_percent(text: str) -> int:
    """Return a rate typed as `5`, `-2.5` or `2.5%` in millionths.

    Raises:
        Failure: not a number, or finer than a ten-thousandth of a per cent.
    """
    cleaned = text.strip().removesuffix("%").strip()
    if not _PERCENT.fullmatch(cleaned):
        raise wrong_usage(f"{text!r} is not a rate in per cent", "Write it like 5, -2.5 or 0.1%.")
    return int(Decimal(cleaned) * _MILLIONTHS_OF_PERCENT)


def signed_money(text: str) -> Money:
    """Return an amount of US dollars, which may be negative, typed as `100`, `-$5` or `0.10`.

    Raises:
        Failure: it is none.
    """
    cleaned = text.strip()
    money = money_of(parse_dollars(cleaned.removeprefix("-")))
    sign = -1 if cleaned.startswith("-") else 1
    return Money(currency_code=money.currency_code, units=sign * money.units, nanos=sign * money.nanos)


def parse_day(text: str) -> str:
    """Return a day as `YYYY-MM-DD`, typed so or as `today`.

    Raises:
        Failure: it is none.
    """
    if text == "today":
        return datetime.now(UTC).date().isoformat()
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise wrong_usage(f"{text!r} is not a day", "Write it like 2026-12-01, or today.") from error


def month_named(text: str) -> str:
    """Return a month as `YYYY-MM`, typed so or as `this` or `last`."""
    return parse_month(text, today=datetime.now(UTC).date())


def parse_pairs(texts: Sequence[str], *, example: str) -> Mapping[str, str]:
    """Return what was typed as `name=value`, in its order.

    Raises:
        Failure: one is not of that form, or a name comes twice.
    """
    pairs: dict[str, str] = {}
    for text in texts:
        name, is_pair, value = text.partition("=")
        if not (name and is_pair) or name in pairs:
            raise wrong_usage(f"{text!r} is not a pair, or comes twice", f"Write it like {example}.")
        pairs[name] = value
    return pairs
