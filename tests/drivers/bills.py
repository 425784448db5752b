"""What served calls cost, worked out a second time: from the simulator's own log and the figures of the price book.

Nothing of the server's arithmetic is used here: fractions, one rounding per line, half to even.
"""

import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from fractions import Fraction
from pathlib import Path
from typing import Any

import tollhouse_server.pricing
from tollhouse_server.simulator.client import ServedCall

_ON_OWN_SERVERS = "gemma"
_MODALITIES = ("text", "image", "video", "audio", "document")
_SHORTHANDS = {
    "input": tuple(f"input_{modality}" for modality in _MODALITIES),
    "cached": tuple(f"cached_{modality}" for modality in _MODALITIES),
    "output": ("output_text", "thoughts"),
}
_NOT_PRICES = {
    "model",
    "effective_from",
    "source",
    "long_above_tokens",
    "tokens_per_image",
    "service_tiers",
    "cached_service_tiers",
}
_NANOS_PER_TOKEN_AND_DOLLAR_PER_MILLION = 1000

Bill = dict[str, tuple[int, int]]
"""SKU -> (tokens, nano-dollars)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListPrices:
    """One entry of the price book; `dollars` are per million tokens."""

    model: str
    effective_from: datetime
    dollars: Mapping[str, Fraction]
    long_above_tokens: int | None
    tiers: Mapping[str, Fraction]
    cached_tiers: Mapping[str, Fraction]

    def nanos(self, sku: str, tokens: int, *, is_long: bool, service_tier: str) -> int:
        """Return what `tokens` of a SKU cost, rounded once."""
        price = self.dollars.get(f"{sku}_long", self.dollars[sku]) if is_long else self.dollars[sku]
        factors = {**self.tiers, **self.cached_tiers} if sku.startswith("cached") else self.tiers
        factor = Fraction(1) if service_tier == "standard" else factors[service_tier]
        # round() of a Fraction rounds half to even.
        return round(tokens * price * factor * _NANOS_PER_TOKEN_AND_DOLLAR_PER_MILLION)


class ListPriceBook:
    """The packaged price book, read from its file."""

    def __init__(self) -> None:
        path = Path(tollhouse_server.pricing.__file__).with_name("price_book.toml")
        self._entries = [_entry(raw) for raw in tomllib.loads(path.read_text())["prices"]]

    def at(self, model: str, moment: datetime) -> ListPrices:
        """Return the entry of a model that holds at a moment."""
        begun = [one for one in self._entries if one.model == model and one.effective_from <= moment]
        return max(begun, key=lambda one: one.effective_from)

    def bill(self, call: ServedCall) -> Bill:
        """Return what a served call cost, by SKU."""
        prices = self.at(call.model, datetime.fromtimestamp(call.served_at_ms / 1000, UTC))
        usage = call.usage
        if call.model.startswith(_ON_OWN_SERVERS):
            # OpenAI's protocol, in which such servers answer, tells no modalities: there is text alone.
            usage = {**_as_text(usage), **usage}
        tokens = _tokens(usage, has_cached_price="cached_text" in prices.dollars)
        sent = sum(count for sku, count in tokens.items() if sku.startswith(("input", "cached")))
        is_long = prices.long_above_tokens is not None and sent > prices.long_above_tokens
        return {
            sku: (count, prices.nanos(sku, count, is_long=is_long, service_tier=call.service_tier))
            for sku, count in tokens.items()
            if count
        }


def total_nanos(bills: Iterable[Bill]) -> int:
    """Add bills up."""
    return sum(nanos for bill in bills for _, nanos in bill.values())


def _tokens(usage: Mapping[str, Any], *, has_cached_price: bool) -> Counter[str]:
    prompt = _by_modality(usage, "promptTokensDetails", "promptTokenDetails")
    cached = _by_modality(usage, "cacheTokensDetails") if has_cached_price else Counter[str]()
    tool_use = _by_modality(usage, "toolUsePromptTokensDetails")
    output = _by_modality(usage, "candidatesTokensDetails")
    tokens: Counter[str] = Counter()
    for modality in _MODALITIES:
        tokens[f"input_{modality}"] = prompt[modality] - cached[modality] + tool_use[modality]
        tokens[f"cached_{modality}"] = cached[modality]
        tokens[f"output_{modality}"] = output[modality]
    tokens["thoughts"] = int(usage.get("thoughtsTokenCount", 0))
    assert sum(tokens.values()) == usage.get("totalTokenCount", usage["promptTokenCount"])
    return tokens


def _as_text(usage: Mapping[str, Any]) -> Mapping[str, Any]:
    counts = {"prompt": usage["promptTokenCount"], "candidates": usage.get("candidatesTokenCount", 0)}
    return {f"{name}TokensDetails": [{"modality": "TEXT", "tokenCount": count}] for name, count in counts.items()}


def _by_modality(usage: Mapping[str, Any], *names: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for name in names:
        for detail in usage.get(name, ()):
            counts[detail["modality"].lower()] += detail["tokenCount"]
    return counts


def _entry(raw: Mapping[str, Any]) -> ListPrices:
    begins = raw["effective_from"]
    return ListPrices(
        model=raw["model"],
        effective_from=begins if isinstance(begins, datetime) else _midnight(begins),
        dollars=_dollars({name: text for name, text in raw.items() if name not in _NOT_PRICES}),
        long_above_tokens=raw.get("long_above_tokens"),
        tiers={tier: Fraction(text) for tier, text in raw.get("service_tiers", {}).items()},
        cached_tiers={tier: Fraction(text) for tier, text in raw.get("cached_service_tiers", {}).items()},
    )


def _dollars(raw: Mapping[str, str]) -> dict[str, Fraction]:
    spread = {
        sku + suffix: Fraction(raw[short + suffix])
        for short, skus in _SHORTHANDS.items()
        for suffix in ("", "_long")
        if short + suffix in raw
        for sku in skus
    }
    own = {name: Fraction(text) for name, text in raw.items() if name.removesuffix("_long") not in _SHORTHANDS}
    return spread | own


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
