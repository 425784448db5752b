"""Where a call may go, in order, and what each stop could cost at the most."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from tollhouse_server.generation.calls import CallNotice, GenerationCall
from tollhouse_server.generation.encoding import encoded
from tollhouse_server.generation.output_bounds import (
    asked_output_tokens,
    capped,
    clamp_notice,
    flows_evenly,
    least_output_tokens,
    require_output_bound,
    thinking_tokens,
)
from tollhouse_server.ledger.ledger import new_attempt_id
from tollhouse_server.ledger.terms import Amounts, CallTerms, Shrunk
from tollhouse_server.long_values import Json
from tollhouse_server.pricing.ceiling import Ceiling, ceiling, ceiling_of_embedding
from tollhouse_server.pricing.terms import ModelPrices, PriceBook
from tollhouse_server.routing.catalogue import Capability, Catalogue, Model, Route, RouteRequest
from tollhouse_server.routing.priorities import Priority
from tollhouse_server.routing.route import Retiring
from tollhouse_server.routing.targets import Target
from tollhouse_server.upstream.protocol import Method

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


_WRITES = frozenset({Method.GENERATE, Method.STREAM})
_NO_REQUEST: Mapping[str, Any] = MappingProxyType({})


class Stop(NamedTuple):
    """One target that a call may be sent to: the body as it would travel, its prices and its worst case.

    `opening` is what is held at first: the whole ceiling, unless the stream is held for in steps. `request` is the body
    before it was encoded. `least_output_tokens` is the smallest output bound that it is worth sending with.
    `step_tokens` is 0 where all is held at once.
    """

    tier: str
    target: Target
    prices: ModelPrices
    ceiling: Ceiling
    opening: Ceiling
    body: Json
    request: Mapping[str, Any] = _NO_REQUEST
    asked_output_tokens: object = None
    least_output_tokens: int = 0
    step_tokens: int = 0
    service_tier: str | None = None
    notices: tuple[CallNotice, ...] = ()

    @property
    def likely_input_tokens(self) -> int:
        """Return about how many tokens the prompt has: four bytes each, media as published."""
        return min(self.ceiling.input_tokens, len(self.body) // 4 + 1)

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
            labels=call.labels if call.booked_labels is None else call.booked_labels,
            price_version=self.prices.version,
            ceiling=amounts_of(self.opening),
            shrink=self.shrink if self.opening.max_output_tokens else None,
            correlation_id=call.correlation_id,
        )

    def shrink(self, cost_nanos: int | None, output_tokens: int | None) -> Shrunk | None:
        """Return the largest call that these amounts afford, None if it is not worth sending (see `CallTerms`)."""
        smaller = self.opening.clamped_to(cost_nanos, output_tokens)
        if smaller is None or smaller.max_output_tokens < min(self.least_output_tokens, self.opening.max_output_tokens):
            return None
        return Shrunk(amounts_of(smaller), smaller.max_output_tokens)

    def clamped(self, max_output_tokens: int, *, limit: str) -> "Stop":
        """Return the stop with the output bound that the ledger has granted, written into what is sent."""
        granted = self.opening.with_output(max_output_tokens) or self.opening
        request = capped(self.request, max_output_tokens)
        requested = self.asked_output_tokens or self.ceiling.max_output_tokens
        return self._replace(
            ceiling=granted,
            opening=granted,
            step_tokens=0,
            request=request,
            body=encoded(request),
            notices=(clamp_notice(requested, max_output_tokens, limit=limit),),
        )


def amounts_of(worst: Ceiling) -> Amounts:
    """Return a ceiling in the ledger's terms."""
    return Amounts(
        requests=1,
        input_tokens=worst.input_tokens,
        output_tokens=worst.output_tokens,
        images=worst.images,
        cost_nanos=worst.cost_nanos,
    )


class Plan:
    """The targets of one call, in the order of their ranks, and what each would be sent."""

    def __init__(self, call: GenerationCall, route: Route, stop_at: Callable[[Target], Stop]) -> None:
        self.tier = route.tier
        self.targets = route.targets
        self.choice = route.choice
        self.priority = route.policy.granted(call.priority)
        self.weight = route.policy.queue_weight(call.scope.department_path)
        self.resend_unknown = route.policy.may_resend_unknown(call.resend_unknown)
        self.notices: tuple[CallNotice, ...] = ()
        if self.priority is not call.priority or route.retiring:
            self.notices = (*_priority_notice(call, self.priority), *map(_retiring_notice, route.retiring))
        self._stop_at = stop_at
        self._stops: dict[tuple[str, str], Stop] = {}

    def stop(self, target: Target) -> Stop:
        """Return what is sent to a target, and what it could cost at the most.

        Raises:
            ModelUnpriced: it has no price.
        """
        key = (target.model, target.endpoint)
        found = self._stops.get(key)
        if found is None:
            found = self._stops[key] = self._stop_at(target)
        return found if found.target is target else found._replace(target=target)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Planner:
    """Makes the plan of a call from the current catalogue and price book, with the prices of the moment `clock()`."""

    def __init__(
        self,
        catalogue: Callable[[], Catalogue],
        price_book: Callable[[], PriceBook],
        *,
        output_cap_tokens: int,
        stream_step_tokens: int = 0,
        clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._catalogue = catalogue
        self._price_book = price_book
        self._output_cap_tokens = output_cap_tokens
        self._stream_step_tokens = stream_step_tokens
        self._clock = clock

    def plan(self, call: GenerationCall) -> Plan:
        """Return where the call may go; nothing is held yet.

        Raises:
            ModelUnknown, ModelShutDown, ModelNotAllowed, RegionNotAllowed, TierAutoOff, OnDeviceOnly, NoUpstreamKey,
            InvalidRequest: see `Catalogue.resolve` and `require_output_bound`.
        """
        if call.method in _WRITES:
            require_output_bound(call.body)
        now = self._clock()
        catalogue, book = self._catalogue(), self._price_book()
        route = catalogue.resolve(
            RouteRequest(
                tier=call.tier,
                model=call.model,
                method=call.method,
                at=now,
                tenant_id=call.scope.tenant_id,
                department_path=call.scope.department_path,
                project_id=call.scope.project_id,
                environment=call.environment,
                region=call.region,
                kinds=call.kinds,
                allow_fallback=call.allow_fallback,
                on_device=call.on_device,
                labels=call.labels,
                body=call.body,
            )
        )

        def stop_at(target: Target) -> Stop:
            prices = book.terms(target.model, now, endpoint=target.endpoint)
            return self._stop(call, route.tier, target, prices, catalogue.get_model(target.model))

        return Plan(call, route, stop_at)

    def _stop(self, call: GenerationCall, tier: str, target: Target, prices: ModelPrices, model: Model) -> Stop:
        body = _addressed(call, target)
        sent = encoded(body)
        if call.method is Method.COUNT_TOKENS:
            return Stop(tier=tier, target=target, prices=prices, ceiling=_FREE, opening=_FREE, body=sent)
        if call.method is Method.EMBED:
            worst = ceiling_of_embedding(prices, body, request_bytes=len(sent))
            return Stop(tier=tier, target=target, prices=prices, ceiling=worst, opening=worst, body=sent)
        worst = ceiling(prices, model.bounds, body, request_bytes=len(sent), output_cap_tokens=self._output_cap_tokens)
        thinking = thinking_tokens(body, can_think=Capability.THINKING in model.capabilities)
        request, asked = capped(body, worst.max_output_tokens), asked_output_tokens(body)
        is_lowered = asked is not None and request is not body
        opening = self._opening(call, worst, thinking)
        return Stop(
            tier=tier,
            target=target,
            prices=prices,
            ceiling=worst,
            opening=opening,
            body=sent if request is body else encoded(request),
            request=request,
            asked_output_tokens=asked,
            least_output_tokens=least_output_tokens(worst, thinking),
            step_tokens=self._stream_step_tokens if opening is not worst else 0,
            service_tier=_service_tier(body),
            notices=(clamp_notice(asked, worst.max_output_tokens),) if is_lowered else (),
        )

    def _opening(self, call: GenerationCall, worst: Ceiling, thinking: int | None) -> Ceiling:
        """Return what is held before the first byte: for a stream that is held for in steps, its first step."""
        is_stepped = self._stream_step_tokens and call.method is Method.STREAM
        if not is_stepped or thinking is None or not flows_evenly(call.body, worst, thinking):
            return worst
        first = self._stream_step_tokens + thinking
        return worst if first >= worst.max_output_tokens else worst.with_output(first) or worst


def _addressed(call: GenerationCall, target: Target) -> Mapping[str, Any]:
    """Return the body with the model's name where Gemini wants it inside: in each request of an embedding batch."""
    if call.method is not Method.EMBED:
        return call.body
    requests = [{**request, "model": f"models/{target.model}"} for request in call.body.get("requests", ())]
    return {**call.body, "requests": requests}


def _priority_notice(call: GenerationCall, granted: Priority) -> list[CallNotice]:
    if granted is call.priority:
        return []
    message = f"The routing policy grants priority {granted.name} at the most, not {call.priority.name}."
    metadata = {"requested": call.priority.name, "granted": granted.name}
    return [CallNotice(code="PRIORITY_LOWERED", message=message, metadata=metadata)]


def _retiring_notice(retiring: Retiring) -> CallNotice:
    day = retiring.shutdown_at.date().isoformat()
    message = f"{retiring.model} will be shut down on {day}" + (
        f"; use {retiring.successor}." if retiring.successor else "."
    )
    metadata = {"model": retiring.model, "shutdown_on": day, "successor": retiring.successor}
    return CallNotice(code="MODEL_RETIRING", message=message, metadata=metadata)


def _service_tier(body: Mapping[str, Any]) -> str | None:
    """Return the service tier that the request asks for, if any."""
    asked = body.get("serviceTier")
    return asked.lower() if isinstance(asked, str) else None
