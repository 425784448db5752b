"""Where a call may go, in order, and what each stop could cost at the most."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tollhouse_server.generation.calls import CallNotice, GenerationCall
from tollhouse_server.generation.encoding import encoded
from tollhouse_server.ledger.ledger import new_attempt_id
from tollhouse_server.ledger.terms import Amounts, CallTerms
from tollhouse_server.pricing.ceiling import Ceiling, ModelBounds, ceiling, ceiling_of_embedding
from tollhouse_server.pricing.terms import ModelPrices, PriceBook
from tollhouse_server.routing.catalogue import Catalogue, Target, UpstreamKind
from tollhouse_server.upstream.protocol import Destination, Method

_FREE = Ceiling(
    input_tokens=0,
    output_tokens=0,
    images=0,
    cost_nanos=0,
    max_output_tokens=0,
    fixed_nanos=0,
    output_nanos_per_million=0,
    candidates=1,
    fixed_output_tokens=0,
)
"""Counting tokens is free of charge; it is booked all the same, as one request."""

_SERVED_KINDS = frozenset({UpstreamKind.GEMINI_API})
"""The kinds of upstream that this version has a client for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """One target that a call may be sent to: the body as it would travel, its prices and its worst case."""

    tier: str
    target: Target
    prices: ModelPrices
    ceiling: Ceiling
    body: bytes
    service_tier: str | None = None
    notices: tuple[CallNotice, ...] = ()

    def terms(self, call: GenerationCall, *, is_first: bool) -> CallTerms:
        """Return the terms on which a new attempt at this stop asks the ledger for admission."""
        return CallTerms(
            attempt_id=new_attempt_id(),
            request_id=call.request_id,
            fingerprint=call.fingerprint() if is_first else b"",
            first=is_first,
            scope=call.scope,
            method=call.method,
            tier=self.tier,
            model=self.target.model,
            account_id=self.target.account_id,
            labels=call.labels,
            price_version=self.prices.version,
            ceiling=Amounts(
                requests=1,
                input_tokens=self.ceiling.input_tokens,
                output_tokens=self.ceiling.output_tokens,
                images=self.ceiling.images,
                cost_nanos=self.ceiling.cost_nanos,
            ),
        )


class Planner:
    """Makes the stops of a call from the current catalogue and price book."""

    def __init__(
        self, catalogue: Callable[[], Catalogue], price_book: Callable[[], PriceBook], *, output_cap_tokens: int
    ) -> None:
        self._catalogue = catalogue
        self._price_book = price_book
        self._output_cap_tokens = output_cap_tokens

    def stops(self, call: GenerationCall) -> Iterator[Stop]:
        """Yield the targets that may serve the call, the preferred one first.

        Raises:
            ModelUnknown, ModelShutDown, ModelUnpriced: at the first stop, before anything is held.
        """
        now = datetime.now(UTC)
        catalogue, book = self._catalogue(), self._price_book()
        route = catalogue.resolve(
            tier=call.tier,
            model=call.model,
            method=call.method,
            at=now,
            region=call.region,
            allow_fallback=call.allow_fallback,
        )
        for target in route.targets:
            if target.kind in _SERVED_KINDS:
                prices = book.terms(target.model, now)
                yield self._stop(call, route.tier, target, prices, catalogue.get_model(target.model).bounds)

    def _stop(self, call: GenerationCall, tier: str, target: Target, prices: ModelPrices, bounds: ModelBounds) -> Stop:
        body = _addressed(call, target)
        sent = encoded(body)
        if call.method is Method.COUNT_TOKENS:
            return Stop(tier=tier, target=target, prices=prices, ceiling=_FREE, body=sent)
        if call.method is Method.EMBED:
            worst = ceiling_of_embedding(prices, body, request_bytes=len(sent))
            return Stop(tier=tier, target=target, prices=prices, ceiling=worst, body=sent)
        worst = ceiling(prices, bounds, body, request_bytes=len(sent), output_cap_tokens=self._output_cap_tokens)
        capped, notices = _capped(body, worst.max_output_tokens)
        return Stop(
            tier=tier,
            target=target,
            prices=prices,
            ceiling=worst,
            body=encoded(capped),
            service_tier=_service_tier(body),
            notices=notices,
        )


def _addressed(call: GenerationCall, target: Target) -> Mapping[str, Any]:
    """Return the body with the model's name where Gemini wants it inside: in each request of an embedding batch."""
    if call.method is not Method.EMBED:
        return call.body
    requests = [{**request, "model": f"models/{target.model}"} for request in call.body.get("requests", ())]
    return {**call.body, "requests": requests}


def _capped(body: Mapping[str, Any], max_output_tokens: int) -> tuple[Mapping[str, Any], tuple[CallNotice, ...]]:
    """Write the output bound that was reserved into the request, so that it binds upstream too."""
    config = body.get("generationConfig") or {}
    asked = config.get("maxOutputTokens")
    if asked == max_output_tokens:
        return body, ()
    capped = {**body, "generationConfig": {**config, "maxOutputTokens": max_output_tokens}}
    if asked is None:
        return capped, ()
    notice = CallNotice(
        code="MAX_OUTPUT_TOKENS_CLAMPED",
        message=f"maxOutputTokens was lowered from {asked} to {max_output_tokens}.",
        metadata={"requested": str(asked), "granted": str(max_output_tokens)},
    )
    return capped, (notice,)


def _service_tier(body: Mapping[str, Any]) -> str | None:
    """Return the service tier that the request asks for, if any."""
    asked = body.get("serviceTier")
    return asked.lower() if isinstance(asked, str) else None


def destination_of(target: Target) -> Destination:
    """Return where a target is reached."""
    return Destination(base_url=target.base_url, api_version=target.api_version, model=target.model)
