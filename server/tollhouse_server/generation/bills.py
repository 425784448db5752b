"""From an answer to its bill: what it used, what that costs, and what the caller is told where it reports nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tollhouse_server.errors import UsageMissing
from tollhouse_server.generation.calls import CallNotice
from tollhouse_server.generation.plans import Stop
from tollhouse_server.pricing.price import Priced, price
from tollhouse_server.pricing.terms import STANDARD
from tollhouse_server.pricing.usage import StreamUsage, Usage, from_embed, from_generate_body
from tollhouse_server.upstream.protocol import Method

_NOT_REPORTED = CallNotice(
    code="USAGE_ESTIMATED",
    message="Gemini reported no usage; the call is booked in suspense at its ceiling until it is reconciled.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """The bill of one answer. Without reported usage the cost is the ceiling, in suspense."""

    usage: Usage | None
    priced: Priced
    notices: tuple[CallNotice, ...] = ()


def bill_of(method: Method, stop: Stop, body: Mapping[str, Any]) -> Bill:
    """Return the bill of a whole unary answer."""
    if method is Method.COUNT_TOKENS:
        return Bill(usage=Usage(), priced=_free(stop))
    try:
        usage = from_embed(body) if method is Method.EMBED else from_generate_body(body)
    except UsageMissing:
        return _unreported(stop)
    return _at_usage(stop, usage)


def bill_of_stream(stop: Stop, meter: StreamUsage) -> Bill:
    """Return the bill of a stream whose chunks `meter` has seen."""
    try:
        usage = meter.usage()
    except UsageMissing:
        return _unreported(stop)
    return _at_usage(stop, usage)


def _at_usage(stop: Stop, usage: Usage) -> Bill:
    return Bill(usage=usage, priced=price(stop.prices, usage, stop.service_tier))


def _free(stop: Stop) -> Priced:
    return Priced(cost_nanos=0, lines=(), price_version=stop.prices.version, service_tier=STANDARD)


def _unreported(stop: Stop) -> Bill:
    ceiling = Priced(
        cost_nanos=stop.ceiling.cost_nanos, lines=(), price_version=stop.prices.version, service_tier=STANDARD
    )
    return Bill(usage=None, priced=ceiling, notices=(_NOT_REPORTED,))
