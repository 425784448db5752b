"""From an answer to its bill: what it used, what that costs, and what the caller is told where it reports nothing."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from tollhouse_server.errors import UsageMissing
from tollhouse_server.generation.attempts import Attempt
from tollhouse_server.generation.calls import CallNotice
from tollhouse_server.generation.plans import Stop
from tollhouse_server.pricing.price import Priced, price
from tollhouse_server.pricing.terms import STANDARD
from tollhouse_server.pricing.usage import StreamUsage, Usage, from_embed, from_generate_body
from tollhouse_server.upstream.protocol import Method

_NOT_REPORTED = CallNotice(
    code="USAGE_ESTIMATED",
    message="Gemini reported no usage; the call is in suspense until it is reconciled.",
)


class Bill(NamedTuple):
    """The bill of one answer. Without reported usage the cost is what stands in suspense for it, by policy."""

    usage: Usage | None
    priced: Priced
    notices: tuple[CallNotice, ...] = ()


def bill_of(method: Method, stop: Stop, body: Mapping[str, Any], attempt: Attempt) -> Bill:
    """Return the bill of a whole unary answer to an attempt."""
    if method is Method.COUNT_TOKENS:
        return Bill(usage=Usage(), priced=_unlisted(stop, 0))
    try:
        usage = from_embed(body) if method is Method.EMBED else from_generate_body(body)
    except UsageMissing:
        return _unreported(stop, attempt)
    return _at_usage(stop, usage, attempt)


def bill_of_stream(stop: Stop, meter: StreamUsage, attempt: Attempt) -> Bill:
    """Return the bill of a stream whose chunks `meter` has seen."""
    try:
        usage = meter.usage()
    except UsageMissing:
        return _unreported(stop, attempt)
    return _at_usage(stop, usage, attempt)


def bill_of_cut_stream(stop: Stop, meter: StreamUsage, attempt: Attempt, *, used_tokens: int) -> Bill:
    """Return the bill of a stream that was cut: what its last chunk reports, but `used_tokens` of output.

    Nobody tells how much was under way when the connection was closed (docs/decisions/0012); the flag says how much of
    the output was never seen.
    """
    try:
        usage = meter.usage()
    except UsageMissing:
        return _unreported(stop, attempt)
    unseen = max(0, used_tokens - usage.output_tokens)
    candidates = replace(usage.candidates, text=usage.candidates.text + unseen)
    flags = (*usage.flags, f"cut_off_{unseen}_output_tokens_unseen")
    return _at_usage(stop, replace(usage, candidates=candidates, flags=flags), attempt)


def _at_usage(stop: Stop, usage: Usage, attempt: Attempt) -> Bill:
    priced = price(stop.prices, usage, stop.service_tier)
    return Bill(usage, priced, _above_hold(priced.cost_nanos, attempt.held_nanos))


def _above_hold(cost_nanos: int, held_nanos: int) -> tuple[CallNotice, ...]:
    if cost_nanos <= held_nanos:
        return ()
    return (
        CallNotice(
            code="COST_ABOVE_HOLD",
            message="The call cost more than was held for it; it is charged in full, and its limits may be passed.",
            metadata={"held_nanos": str(held_nanos), "cost_nanos": str(cost_nanos)},
        ),
    )


def _unlisted(stop: Stop, cost_nanos: int) -> Priced:
    return Priced(cost_nanos=cost_nanos, lines=(), price_version=stop.prices.version, service_tier=STANDARD)


def _unreported(stop: Stop, attempt: Attempt) -> Bill:
    return Bill(usage=None, priced=_unlisted(stop, attempt.suspense_nanos), notices=(_NOT_REPORTED,))
