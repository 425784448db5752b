"""What an import may not do to the book although its file is well formed: leave gaps, jump, make things free; pure.

A file is compared with the book as it was, moment by moment: at each date on which either book changes a model's list.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Final

from tollhouse_server.errors import FieldViolation
from tollhouse_server.pricing.price_file import ParsedPriceFile
from tollhouse_server.pricing.terms import ModelPrices, PriceBook, PriceList

DEFAULT_JUMP_FACTOR: Final = 10
"""A decimal point in the wrong place is a factor of ten; Google has never changed a price by more than two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowances:
    """What one import may do: how far prices may jump, or that they may jump at all; `reason` is for people."""

    max_jump_factor: int = DEFAULT_JUMP_FACTOR
    allow_jumps: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A file and the books before and after it. From its date in `shutdowns` on, a model needs no price."""

    parsed: ParsedPriceFile
    before: PriceBook
    after: PriceBook
    allowances: Allowances = field(default_factory=Allowances)
    shutdowns: Mapping[str, datetime] = field(default_factory=dict)


def implausible(comparison: Comparison) -> tuple[FieldViolation, ...]:
    """Return everything that cannot be meant, by the path of its field in the file; empty when all is well."""
    parsed = comparison.parsed
    places = {(one.model, one.effective_from): index for index, one in enumerate(parsed.lists)}
    found: dict[str, FieldViolation] = {}
    for model in dict.fromkeys(one.model for one in parsed.lists):
        for pair in _pairs(comparison, model):
            index = places[model, pair.new.effective_from]
            for violation in _faults(comparison, pair, index):
                # The same fault shows at every date from then on: the first says it.
                found.setdefault(violation.path, violation)
    for violation in _surcharge_jumps(comparison):
        found.setdefault(violation.path, violation)
    return tuple(found.values())


@dataclass(frozen=True, slots=True)
class _Pair:
    """A list of the file, and what it takes the place of at a moment."""

    old: PriceList | None
    new: PriceList
    at: datetime


def _pairs(comparison: Comparison, model: str) -> Iterator[_Pair]:
    """Yield what holds from each date on, beside what held then before, and beside the list that it follows."""
    was, now = comparison.before.history(model), comparison.after.history(model)
    mine = {one.effective_from for one in comparison.parsed.lists if one.model == model}
    first = min(mine)
    for at in sorted({one.terms.effective_from for one in (*was, *now) if one.terms.effective_from >= first}):
        new = _holding(now, at)
        if new is not None:
            yield _Pair(_holding(was, at), new, at)
    for earlier, later in pairwise(now):
        if later.terms.effective_from in mine:
            yield _Pair(earlier.terms, later.terms, later.terms.effective_from)


def _holding(chain: Iterable[ModelPrices], at: datetime) -> PriceList | None:
    return next((one.terms for one in reversed(tuple(chain)) if one.terms.effective_from <= at), None)


def _faults(comparison: Comparison, pair: _Pair, index: int) -> Iterator[FieldViolation]:
    old, new = pair.old, pair.new
    retired_at = comparison.shutdowns.get(new.model)
    if old is not None and (retired_at is None or pair.at < retired_at):
        yield from _gaps(old, pair, index)
    if index not in comparison.parsed.free_lists:
        yield from _free(old, new, index)
    if old is not None and not comparison.allowances.allow_jumps:
        yield from _jumps(old, new, index, comparison.allowances.max_jump_factor)


def _gaps(old: PriceList, pair: _Pair, index: int) -> Iterator[FieldViolation]:
    kept = _numbers(pair.new)
    for name in _numbers(old):
        if name not in kept:
            yield _violation(
                index, name, f"{pair.new.model} has it in the book and would have none from {_day(pair.at)} on"
            )


def _free(old: PriceList | None, new: PriceList, index: int) -> Iterator[FieldViolation]:
    for sku, nanos in new.nanos_per_million.items():
        if nanos == 0 and (old is None or old.nanos_per_million.get(sku) != 0):
            yield _violation(index, sku, f"makes {new.model} free; say zero_prices = true if it is meant")


def _jumps(old: PriceList, new: PriceList, index: int, factor: int) -> Iterator[FieldViolation]:
    was = _numbers(old)
    for name, value in _numbers(new).items():
        if is_jump(was.get(name, 0), value, factor):
            yield _violation(
                index,
                name,
                f"is {_times(was[name], value)} what {new.model} has in the book; more than {factor} times is refused "
                "unless the import allows jumps and says why",
            )


def is_jump(before: int, after: int, factor: int) -> bool:
    """Tell whether one amount is more than `factor` times the other; nothing is a jump from or to zero."""
    return min(before, after) > 0 and max(before, after) > factor * min(before, after)


def _surcharge_jumps(comparison: Comparison) -> Iterator[FieldViolation]:
    if comparison.allowances.allow_jumps:
        return
    for index, one in enumerate(comparison.parsed.surcharges):
        before = comparison.before.surcharge_per_million(one.endpoint, one.effective_from)
        if is_jump(before, one.per_million, comparison.allowances.max_jump_factor):
            yield FieldViolation(
                path=f"surcharges[{index}].percent",
                description=f"is {_times(before, one.per_million)} what {one.endpoint} has in the book; more than "
                f"{comparison.allowances.max_jump_factor} times is refused unless the import allows jumps and says why",
            )


def _numbers(one: PriceList) -> dict[str, int]:
    """Return all that a list states, by the name of its field."""
    return {
        **one.nanos_per_million,
        **{f"service_tiers.{tier}": permille for tier, permille in one.tier_permille.items()},
        **{f"tokens_per_image.{size}": tokens for size, tokens in one.tokens_per_image.items()},
    }


def _violation(index: int, name: str, description: str) -> FieldViolation:
    return FieldViolation(path=f"prices[{index}].{name}", description=description)


def _times(before: int, after: int) -> str:
    if after > before:
        return f"{after // before} times"
    return f"1/{before // after} of"


def _day(at: datetime) -> str:
    return at.date().isoformat()
