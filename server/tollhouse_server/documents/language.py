"""Languages of statements: the texts of a file each, numbers and dates as its readers write them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Final
from zoneinfo import ZoneInfo

import yaml
from babel import Locale, UnknownLocaleError
from babel.core import get_global
from babel.dates import format_date, format_datetime, format_skeleton
from babel.numbers import format_compact_decimal, format_currency, format_decimal, format_percent

from tollhouse_server.money import NANOS_PER_DOLLAR, nanos_to_dollars
from tollhouse_server.names import invalid

DEFAULT: Final = "en"
_CENT_NANOS: Final = NANOS_PER_DOLLAR // 100
_SUFFIX: Final = ".yaml"


@dataclass(frozen=True, slots=True)
class Language:
    """A language by its BCP 47 tag. Amounts are read in dollars and cents; what counts is always exact elsewhere."""

    tag: str
    locale: Locale
    texts: Mapping[str, str]

    def say(self, key: str, **words: str) -> str:
        """Return the text of a key with its words filled in; an unknown key is a defect and raises KeyError."""
        return self.texts[key].format(**words) if words else self.texts[key]

    def money(self, nanos: int) -> str:
        """Return an amount rounded to cents, half to even; below a cent with every digit it has."""
        if 0 < abs(nanos) < _CENT_NANOS:
            digits = len(nanos_to_dollars(abs(nanos)).partition(".")[2])
            return self._currency(nanos, "¤#,##0." + "0" * digits)
        return self._currency(nanos, None)

    def signed_money(self, nanos: int) -> str:
        """Return an amount that is added or taken off, with its sign."""
        return f"+{self.money(nanos)}" if nanos > 0 else self.money(nanos)

    def money_in(self, nanos: int, code: str, per_dollar_millionths: int) -> str:
        """Return an amount of nano-dollars in another currency, rounded to what is its smallest coin."""
        amount = Decimal(nanos) * per_dollar_millionths / (NANOS_PER_DOLLAR * 1_000_000)
        return str(format_currency(amount, code, locale=self.locale))

    def exact(self, nanos: int) -> str:
        """Return an amount with every digit, and the dollar named."""
        return self.say("exact_dollars", amount=nanos_to_dollars(nanos))

    def count(self, number: int) -> str:
        """Return a whole number with its groups of digits."""
        return str(format_decimal(number, locale=self.locale))

    def short_count(self, number: int) -> str:
        """Return a number for a glance, such as 1.2M."""
        return str(format_compact_decimal(number, locale=self.locale, fraction_digits=1))

    def rate(self, millionths: int) -> str:
        """Return a rate of exchange."""
        return str(format_decimal(Decimal(millionths) / 1_000_000, format="#,##0.######", locale=self.locale))

    def percent(self, part: int, whole: int) -> str:
        """Return a share in per cent with one decimal, a dash of nothing."""
        if not whole:
            return "–"
        return str(format_percent(Decimal(part) / Decimal(whole), format="#,##0.0%", locale=self.locale))

    def long_date(self, day: date) -> str:
        """Return a date as in a letter."""
        return str(format_date(day, "long", locale=self.locale))

    def short_date(self, day: date) -> str:
        """Return a date as in a table."""
        return str(format_date(day, "medium", locale=self.locale))

    def day_of_month(self, day: date) -> str:
        """Return a day and its month, for an axis."""
        return str(format_skeleton("MMMd", day, locale=self.locale))

    def month(self, month: str) -> str:
        """Return a month written `YYYY-MM` with its name."""
        return str(format_skeleton("yMMMM", date.fromisoformat(f"{month}-01"), locale=self.locale))

    def moment(self, at: datetime, zone: str) -> str:
        """Return a moment in a time zone, to the minute, with the zone's offset."""
        local = at.astimezone(ZoneInfo(zone))
        return f"{format_datetime(local, 'medium', locale=self.locale)} {local:UTC%z}"

    def _currency(self, nanos: int, pattern: str | None) -> str:
        amount = Decimal(nanos) / NANOS_PER_DOLLAR
        return str(format_currency(amount, "USD", format=pattern, locale=self.locale, currency_digits=pattern is None))


@cache
def languages() -> Mapping[str, Language]:
    """Return every language that has a file, by its tag."""
    tags = sorted(
        each.name.removesuffix(_SUFFIX)
        for each in files(__package__).joinpath("languages").iterdir()
        if each.name.endswith(_SUFFIX)
    )
    return {tag: _read(tag) for tag in tags}


def language_of(tag: str, field: str = "language") -> Language:
    """Return the language for a tag: `zh-CN` and `zh` are written as `zh-Hans`; empty means English.

    Raises:
        InvalidRequest: there is no such language, or the tag, which came in the request's `field`, is none.
    """
    known = languages()
    if (tag or DEFAULT) in known:
        return known[tag or DEFAULT]
    try:
        wanted = _written(Locale.parse(tag, sep="-"))
    except (ValueError, UnknownLocaleError):
        wanted = ("", None)
    for language in known.values():
        if _written(language.locale) == wanted:
            return language
    raise invalid(field, f"is not a language of statements; there are {', '.join(known)}")


def _written(locale: Locale) -> tuple[str, str | None]:
    """Return the language and the script, which most tags leave to be known."""
    if locale.script:
        return locale.language, locale.script
    likely = get_global("likely_subtags")
    # The place tells the script where the language does not: zh-TW is written in another one than zh-CN.
    full = likely.get(f"{locale.language}_{locale.territory}") or likely.get(locale.language, locale.language)
    return locale.language, Locale.parse(full).script


def _read(tag: str) -> Language:
    text = files(__package__).joinpath("languages", tag + _SUFFIX).read_text(encoding="utf-8")
    return Language(tag=tag, locale=Locale.parse(tag, sep="-"), texts=yaml.safe_load(text))
