"""Prices of the Python package `genai-prices` as price lists of ours, with everything that does not fit; pure.

Its units are per million tokens (`_mtok`) or per thousand (`_kcount`). Where it knows one price and the book tells
several apart, the book's stay. Its dates are days; Google changes prices at midnight in California.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, Protocol
from zoneinfo import ZoneInfo

from tollhouse_server.money import NANOS_PER_DOLLAR
from tollhouse_server.pricing.price_file import SHORTHANDS
from tollhouse_server.pricing.skus import GROUNDING_PROMPT, GROUNDING_QUERY, LONG, TOKEN_SKUS
from tollhouse_server.pricing.terms import STANDARD_PERMILLE, ModelPrices, PriceList

GOOGLE_ZONE: Final = ZoneInfo("America/Los_Angeles")
"""Where Google's days begin, for prices as for daily quotas."""

_BEGINNING: Final = datetime(2025, 1, 1, tzinfo=UTC)
_GENERAL: Final = {"input_mtok": "input", "cache_read_mtok": "cached", "output_mtok": "output"}
_SPECIFIC: Final = {
    "input_text_mtok": "input_text",
    "input_audio_mtok": "input_audio",
    "input_image_mtok": "input_image",
    "input_video_mtok": "input_video",
    "cache_audio_read_mtok": "cached_audio",
    "cache_image_read_mtok": "cached_image",
    "cache_video_read_mtok": "cached_video",
    "output_image_mtok": "output_image",
    "output_audio_mtok": "output_audio",
}
_SEARCHES: Final = "web_searches_kcount"
_CACHED_UNITS: Final = frozenset(unit for unit in (*_GENERAL, *_SPECIFIC) if unit.startswith("cache"))
_TIERS: Final = {
    "batch": ("processing", "batch"),
    "flex": ("service_tier", "flex"),
    "priority": ("service_tier", "priority"),
}


class NoteKind(StrEnum):
    """What was done with something that is not taken as it stands."""

    NOT_MAPPED = "NOT_MAPPED"
    KEPT = "KEPT"
    ABSENT = "ABSENT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something that a draft does not take from its source as it stands there."""

    kind: NoteKind
    model: str
    explanation: str
    subject: str = ""


class PublicModel(Protocol):
    """A model of the package, as much of it as is read here."""

    id: str
    prices: Any
    price_variants: Any

    def get_prices(self, request_timestamp: datetime, price_context: Mapping[str, str] | None = None) -> Any: ...


@dataclass(frozen=True, slots=True)
class _Quote:
    """One price of the source: below and above its threshold of prompt tokens, if it has one."""

    nanos: int
    long_nanos: int
    threshold: int | None = None


@dataclass(slots=True)
class _Draft:
    """One list in the making."""

    model: str
    base: PriceList | None
    notes: list[Note]
    short: dict[str, int] = field(default_factory=dict)
    long: dict[str, int] = field(default_factory=dict)
    thresholds: set[int] = field(default_factory=set)

    def put(self, sku: str, quote: _Quote) -> None:
        self.short[sku], self.long[sku] = quote.nanos, quote.long_nanos

    def keep(self, sku: str, why: str) -> None:
        assert self.base is not None  # noqa: S101 - only what it has is kept
        nanos = self.base.nanos_per_million
        self.short[sku] = nanos[sku]
        self.long[sku] = nanos.get(sku + LONG, nanos[sku])
        self.note(NoteKind.KEPT, sku, why)

    def note(self, kind: NoteKind, subject: str, why: str) -> None:
        self.notes.append(Note(kind=kind, model=self.model, subject=subject, explanation=why))


def lists_of(
    model: str, public: PublicModel, chain: tuple[ModelPrices, ...], *, source: str
) -> tuple[list[PriceList], list[Note]]:
    """Return the lists of a model from the first date on at which they differ from the book's `chain`; none if nowhere.

    The notes say what of the source has no place in them, and what they have from the book.
    """
    notes: list[Note] = []
    lists: list[PriceList] = []
    for day in _days(model, public, notes):
        start = _start(day, chain)
        made = _list_at(model, public, day, _base(chain, start), notes)
        if made is not None and (not lists or _says(made) != _says(lists[-1])):
            lists.append(replace(made, effective_from=start, source=source))
    return _from_first_difference(lists, chain), list(dict.fromkeys(notes))


def _days(model: str, public: PublicModel, notes: list[Note]) -> list[date | None]:
    """Return the days on which something changes; None is the beginning."""
    conditional = public.prices if isinstance(public.prices, list) else []
    days: set[date] = set()
    for one in (*conditional, *(public.price_variants or ())):
        start = getattr(one.constraint, "start_date", None)
        if start is not None:
            days.add(start)
        elif one.constraint is not None:
            why = "prices that hold at hours of the day have no place in the book"
            notes.append(
                Note(kind=NoteKind.NOT_MAPPED, model=model, subject=type(one.constraint).__name__, explanation=why)
            )
    return [None, *sorted(days)]


def _start(day: date | None, chain: tuple[ModelPrices, ...]) -> datetime:
    if day is None:
        return chain[0].terms.effective_from if chain else _BEGINNING
    return datetime.combine(day, time(), GOOGLE_ZONE)


def _base(chain: tuple[ModelPrices, ...], at: datetime) -> PriceList | None:
    held = [one.terms for one in chain if one.terms.effective_from <= at]
    return held[-1] if held else (chain[0].terms if chain else None)


def _list_at(
    model: str, public: PublicModel, day: date | None, base: PriceList | None, notes: list[Note]
) -> PriceList | None:
    # Noon, so that no zone moves the moment to another day.
    at = datetime.combine(day or date(2000, 1, 1), time(12), UTC)
    stated = _stated(public.get_prices(at))
    if not stated:
        notes.append(Note(kind=NoteKind.ABSENT, model=model, explanation="the source states no price, also not zero"))
        return None
    draft = _Draft(model, base, notes)
    _put_specific(draft, stated)
    for unit, shorthand in _GENERAL.items():
        if unit in stated:
            _put_general(draft, _quote(draft, unit, stated[unit]), SHORTHANDS[shorthand])
    _put_searches(draft, stated)
    _keep_rest(draft)
    tiers, cached_tiers = _tier_factors(draft, public, at, stated)
    threshold = _threshold(draft)
    long = {sku + LONG: nanos for sku, nanos in draft.long.items() if sku in TOKEN_SKUS} if threshold else {}
    return PriceList(
        model=model,
        effective_from=_BEGINNING,
        source="",
        nanos_per_million={**draft.short, **long},
        long_above_tokens=threshold,
        tokens_per_image=base.tokens_per_image if base else {},
        tier_permille=tiers,
        cached_tier_permille=cached_tiers,
    )


def _stated(prices: Any) -> dict[str, Any]:
    return {key: value for key, value in vars(prices).items() if value is not None and not key.startswith("_")}


def _quote(draft: _Draft, unit: str, price: Any) -> _Quote:
    if isinstance(price, Decimal):
        return _Quote(_nanos(price), _nanos(price))
    if len(price.tiers) > 1:
        draft.note(NoteKind.NOT_MAPPED, unit, "has more than one price for long prompts; the first is taken")
    tier = price.tiers[0]
    draft.thresholds.add(tier.start)
    return _Quote(_nanos(price.base), _nanos(tier.price), tier.start)


def _nanos(dollars: Decimal) -> int:
    """Return dollars per million as nano-dollars per million; finer than that no source is."""
    return int(dollars * NANOS_PER_DOLLAR)


def _put_specific(draft: _Draft, stated: Mapping[str, Any]) -> None:
    for unit, price in stated.items():
        if unit in _SPECIFIC:
            draft.put(_SPECIFIC[unit], _quote(draft, unit, price))
        elif unit not in _GENERAL and unit != _SEARCHES:
            draft.note(NoteKind.NOT_MAPPED, unit, "the book has no SKU that counts this")


def _put_general(draft: _Draft, quote: _Quote, skus: Iterable[str]) -> None:
    """Put a price that the source states for all kinds on those SKUs that the book prices alike."""
    group = list(skus)
    priced = {} if draft.base is None else draft.base.nanos_per_million
    known = [sku for sku in group if sku in priced]
    for sku in known or group:
        if sku in draft.short:
            continue
        if known and priced[sku] != priced[known[0]]:
            draft.keep(sku, f"the source does not tell it from {known[0]}, the book does")
        else:
            draft.put(sku, quote)


def _put_searches(draft: _Draft, stated: Mapping[str, Any]) -> None:
    if _SEARCHES not in stated:
        return
    priced = {} if draft.base is None else draft.base.nanos_per_million
    by_prompt = GROUNDING_PROMPT in priced or (GROUNDING_QUERY not in priced and draft.model.startswith("gemini-2"))
    price = stated[_SEARCHES]
    if isinstance(price, Decimal):
        # Dollars per thousand: a thousand times as much for a million.
        nanos = _nanos(price * 1_000)
        draft.put(GROUNDING_PROMPT if by_prompt else GROUNDING_QUERY, _Quote(nanos, nanos))
    else:
        draft.note(NoteKind.NOT_MAPPED, _SEARCHES, "has a price for long prompts, which searches have not in the book")


def _keep_rest(draft: _Draft) -> None:
    if draft.base is None:
        return
    for sku in draft.base.nanos_per_million:
        if sku.removesuffix(LONG) not in draft.short:
            draft.keep(sku.removesuffix(LONG), "the source has no price of it")


def _threshold(draft: _Draft) -> int | None:
    if len(draft.thresholds) > 1:
        draft.note(NoteKind.NOT_MAPPED, LONG, "long prompts begin at several sizes; the smallest is taken")
    if draft.thresholds:
        return min(draft.thresholds)
    above = None if draft.base is None else draft.base.long_above_tokens
    if draft.base is not None and above is not None:
        for sku in draft.long:
            draft.long[sku] = draft.base.nanos_per_million.get(sku + LONG, draft.long[sku])
        draft.note(NoteKind.KEPT, LONG, "the source has no prices for long prompts")
    return above


def _tier_factors(
    draft: _Draft, public: PublicModel, at: datetime, stated: Mapping[str, Any]
) -> tuple[dict[str, int], dict[str, int]]:
    """Return service tiers' factors on tokens and on cached ones: the source's, where it has any, or the book's."""
    tiers = dict(draft.base.tier_permille) if draft.base else {}
    cached = dict(draft.base.cached_tier_permille) if draft.base else {}
    for tier, (key, value) in _TIERS.items():
        varied = _stated(public.get_prices(at, {key: value}))
        ratios = {unit: _permille(stated[unit], varied[unit]) for unit in stated if unit.endswith("_mtok")}
        fresh = {ratio for unit, ratio in ratios.items() if unit not in _CACHED_UNITS}
        kept = {ratio for unit, ratio in ratios.items() if unit in _CACHED_UNITS}
        if set(ratios.values()) == {STANDARD_PERMILLE}:
            if tier in tiers:
                draft.note(NoteKind.KEPT, f"service_tiers.{tier}", "the source has no prices of this tier")
            continue
        _set_factor(draft, tiers, tier, fresh, "service_tiers")
        if kept:
            _set_factor(draft, cached, tier, kept, "cached_service_tiers")
    return tiers, {tier: permille for tier, permille in cached.items() if tier in tiers}


def _set_factor(draft: _Draft, factors: dict[str, int], tier: str, ratios: set[int | None], field_name: str) -> None:
    (ratio, *others) = ratios
    if ratio is None or others:
        draft.note(NoteKind.NOT_MAPPED, f"{field_name}.{tier}", "is no one factor with three decimals on all prices")
    else:
        factors[tier] = ratio


def _permille(standard: Any, varied: Any) -> int | None:
    """Return what a price is multiplied by in thousandths, None where that is no whole number of them."""
    one, other = (price if isinstance(price, Decimal) else price.base for price in (standard, varied))
    if one == 0:
        return STANDARD_PERMILLE
    permille = other * STANDARD_PERMILLE / one
    return int(permille) if permille == permille.to_integral_value() else None


def _says(one: PriceList) -> dict[str, object]:
    """Return all that a list says but for its date and source."""
    return {
        "prices": dict(one.nanos_per_million),
        "long": one.long_above_tokens,
        "images": dict(one.tokens_per_image),
        "tiers": {(sku, tier): one.permille(sku, tier) for sku in ("input", "cached") for tier in one.tier_permille},
    }


def _from_first_difference(lists: list[PriceList], chain: tuple[ModelPrices, ...]) -> list[PriceList]:
    """Return the lists that hold at the first moment at which they say something else than the book, and later ones."""
    moments = sorted({one.effective_from for one in lists} | {one.terms.effective_from for one in chain})
    for at in moments:
        mine = next((one for one in reversed(lists) if one.effective_from <= at), None)
        book = next((one.terms for one in reversed(chain) if one.terms.effective_from <= at), None)
        if mine is not None and (book is None or _says(mine) != _says(book)):
            first = mine if mine.effective_from == at else replace(mine, effective_from=at)
            return [first, *(one for one in lists if one.effective_from > at)]
    return []


def unmapped(models: Iterable[str]) -> Iterator[Note]:
    """Yield a note for each model that the source does not know."""
    for model in models:
        yield Note(kind=NoteKind.ABSENT, model=model, explanation="the source does not know this model")
