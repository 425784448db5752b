"""What on-device use would have cost upstream: the same tokens, at the list price of the model not asked."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tollhouse_server.devices.terms import Avoided, Receipt
from tollhouse_server.errors import ModelUnknown, ModelUnpriced
from tollhouse_server.money import charge_nanos
from tollhouse_server.pricing.skus import INPUT_SKUS, OUTPUT_TEXT, Modality
from tollhouse_server.pricing.terms import ModelPrices, PriceBook
from tollhouse_server.routing.catalogue import Catalogue
from tollhouse_server.routing.models import ranked
from tollhouse_server.routing.policies import EffectivePolicy, OnDeviceRule

DEFAULT_TIER: Final = "flash-lite"
"""Where a rule names neither model nor tier: the cheapest way upstream, so that nobody's savings look too large."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """The way upstream that a project's on-device use did not take, by the catalogue, policy and prices of a moment."""

    catalogue: Catalogue
    policy: EffectivePolicy
    price_book: PriceBook
    at: datetime

    def avoided(self, receipt: Receipt) -> Avoided:
        """Return what the receipt's tokens would have cost; surcharges of an upstream address are left out."""
        model = next(self._models(receipt), "")
        try:
            nanos = list_nanos(self.price_book.terms(model, self.at), receipt)
        except ModelUnpriced:
            nanos = None
        return Avoided(model=model, nanos=nanos, price_version=self.price_book.version)

    def _models(self, receipt: Receipt) -> Iterator[str]:
        """Yield the models that might have served, the likeliest first; unknown ones are left out."""
        rule = self._rule(receipt)
        for name in () if rule is None else rule.models:
            try:
                yield self.catalogue.get_model(name).model
            except ModelUnknown:
                continue
        for tier in (*(() if rule is None else rule.tiers), DEFAULT_TIER):
            yield from self._models_of(tier)

    def _models_of(self, tier: str) -> Iterator[str]:
        try:
            choices = self.policy.policy.tier_overrides.get(tier) or self.catalogue.get_tier(tier).choices
            models = [self.catalogue.get_model(choice.model) for _, choice in ranked(choices)]
        except ModelUnknown:
            return
        yield from (one.model for one in models if one.shutdown_at is None or one.shutdown_at > self.at)

    def _rule(self, receipt: Receipt) -> OnDeviceRule | None:
        """Return the first rule that the use meets, as far as a receipt tells: in the order that calls meet them."""
        for rule in sorted(self.policy.policy.on_device_rules, key=lambda one: not one.is_required):
            is_short = rule.max_input_tokens is None or receipt.input_tokens <= rule.max_input_tokens * receipt.requests
            if is_short and rule.labels.items() <= receipt.labels.items():
                return rule
        return None


def list_nanos(prices: ModelPrices, receipt: Receipt) -> int:
    """Return the list price of a receipt's tokens as text, in nano-dollars.

    Raises:
        ModelUnpriced: the model has no price for a direction that was used.
    """
    above = prices.terms.long_above_tokens
    is_long = above is not None and receipt.input_tokens > above * receipt.requests
    used = ((INPUT_SKUS[Modality.TEXT], receipt.input_tokens), (OUTPUT_TEXT, receipt.output_tokens))
    nanos = 0
    for sku, tokens in used:
        if tokens:
            price = prices.nanos(sku, is_long=is_long)
            if price is None:
                raise ModelUnpriced(model=prices.model, sku=sku)
            nanos += charge_nanos(tokens, price)
    return nanos
