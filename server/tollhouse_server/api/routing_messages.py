"""Routing on the wire and in here: options, kinds of upstream, choices of tiers."""

from dataclasses import dataclass
from typing import Final

from tollhouse.v1 import generation_pb2 as pb

from tollhouse_server.routing.complexity import AutoChoice
from tollhouse_server.routing.priorities import Priority
from tollhouse_server.routing.route import OnDevice
from tollhouse_server.upstream.protocol import UpstreamKind

KINDS: Final = {
    pb.UPSTREAM_KIND_GEMINI_API: UpstreamKind.GEMINI_API,
    pb.UPSTREAM_KIND_VERTEX: UpstreamKind.VERTEX,
    pb.UPSTREAM_KIND_OPENAI_COMPATIBLE: UpstreamKind.OPENAI_COMPATIBLE,
}
KIND_NUMBERS: Final = {kind: number for number, kind in KINDS.items()}

PRIORITIES: Final = {
    pb.PRIORITY_CRITICAL: Priority.CRITICAL,
    pb.PRIORITY_DEFAULT: Priority.DEFAULT,
    pb.PRIORITY_BATCH: Priority.BATCH,
    pb.PRIORITY_SHEDDABLE: Priority.SHEDDABLE,
}
PRIORITY_NUMBERS: Final = {priority: number for number, priority in PRIORITIES.items()}

_ON_DEVICE: Final = {pb.ON_DEVICE_REQUIRED: OnDevice.REQUIRED, pb.ON_DEVICE_FORBIDDEN: OnDevice.FORBIDDEN}
_NO_KINDS: Final[frozenset[UpstreamKind]] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedRouting:
    """What a call's RoutingOptions say; None where they say nothing."""

    region: str | None
    allow_fallback: bool | None
    resend_unknown_outcome: bool | None
    kinds: frozenset[UpstreamKind]
    priority: Priority
    on_device: OnDevice


SAYS_NOTHING: Final = AskedRouting(
    region=None,
    allow_fallback=None,
    resend_unknown_outcome=None,
    kinds=_NO_KINDS,
    priority=Priority.DEFAULT,
    on_device=OnDevice.ALLOWED,
)
"""What calls without options ask for."""


def asked_routing(options: pb.RoutingOptions) -> AskedRouting:
    """Return the options of a call; absent ones are as an empty message."""
    return AskedRouting(
        region=options.region if options.HasField("region") else None,
        allow_fallback=options.allow_fallback if options.HasField("allow_fallback") else None,
        resend_unknown_outcome=options.resend_unknown_outcome if options.HasField("resend_unknown_outcome") else None,
        kinds=frozenset(KINDS[kind] for kind in options.kinds) if options.kinds else _NO_KINDS,
        priority=PRIORITIES.get(options.priority, Priority.DEFAULT),
        on_device=_ON_DEVICE.get(options.on_device, OnDevice.ALLOWED),
    )


def tier_choice_message(choice: AutoChoice) -> pb.TierChoice:
    """Return how tier "auto" chose, for the caller."""
    return pb.TierChoice(
        tier=choice.tier,
        score=choice.score,
        features=[pb.TierFeature(name=one.name, value=one.value, points=one.points) for one in choice.features],
        thresholds=[pb.TierThreshold(tier=one.tier, min_score=one.min_score) for one in choice.thresholds],
    )
