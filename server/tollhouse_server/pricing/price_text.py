"""Price lists as the text of a price file, which reads back as the same lists."""

import json
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal

from tollhouse_server.money import NANOS_PER_DOLLAR, UNITS_PER_PRICE
from tollhouse_server.pricing.price_file import SHORTHANDS
from tollhouse_server.pricing.skus import LONG, SKUS
from tollhouse_server.pricing.terms import STANDARD_PERMILLE, PriceList


def price_file_text(lists: Iterable[PriceList], *, note: str, comments: Iterable[str] = ()) -> str:
    """Return a price file in TOML."""
    heading = [f"# {line}".rstrip() for comment in comments for line in comment.splitlines()]
    blocks = ["\n".join(_list_lines(one)) for one in lists]
    return "\n".join([*heading, f"note = {_quoted(note)}"]) + "\n" + "".join(f"\n{block}\n" for block in blocks)


def _list_lines(one: PriceList) -> Iterator[str]:
    yield "[[prices]]"
    yield f"model = {_quoted(one.model)}"
    yield f"effective_from = {one.effective_from.isoformat()}"
    yield f"source = {_quoted(one.source)}"
    for key, dollars in _prices(one.nanos_per_million).items():
        yield f'{key} = "{dollars}"'
    if one.long_above_tokens is not None:
        yield f"long_above_tokens = {one.long_above_tokens}"
    if one.tokens_per_image:
        sizes = ", ".join(f"{_quoted(size)} = {tokens}" for size, tokens in one.tokens_per_image.items())
        yield f"tokens_per_image = {{ {sizes} }}"
    yield from _factors("service_tiers", one.tier_permille)
    yield from _factors("cached_service_tiers", one.cached_tier_permille)


def _prices(nanos: Mapping[str, int]) -> dict[str, str]:
    """Return prices in dollars by key: a shorthand where all that it stands for cost the same."""
    left = dict(nanos)
    written: dict[str, str] = {}
    for suffix in ("", LONG):
        for shorthand, bases in SHORTHANDS.items():
            skus = [base + suffix for base in bases]
            if all(sku in left for sku in skus) and len({left[sku] for sku in skus}) == 1:
                written[shorthand + suffix] = dollars_of(skus[0], left[skus[0]])
                for sku in skus:
                    del left[sku]
    return written | {sku: dollars_of(sku, price) for sku, price in left.items()}


def dollars_of(sku: str, nanos_per_million: int) -> str:
    """Return a price in dollars for as many units as price files quote it in, exactly."""
    quoted = Decimal(nanos_per_million) * SKUS[sku].quote_units / UNITS_PER_PRICE / NANOS_PER_DOLLAR
    return f"{quoted.normalize():f}"


def _factors(key: str, permilles: Mapping[str, int]) -> Iterator[str]:
    if permilles:
        factors = ", ".join(
            f'{tier} = "{(Decimal(permille) / STANDARD_PERMILLE).normalize():f}"'
            for tier, permille in permilles.items()
        )
        yield f"{key} = {{ {factors} }}"


def _quoted(text: str) -> str:
    # A JSON string is a basic string of TOML, but for DEL, which TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
