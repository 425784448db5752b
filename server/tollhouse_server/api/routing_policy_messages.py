"""Routing policies and tier targets on the wire and in here."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from tollhouse.admin.v1 import routing_policies_pb2 as pb
from tollhouse.v1 import generation_pb2

from tollhouse_server.api.routing_messages import KIND_NUMBERS, KINDS, PRIORITIES, PRIORITY_NUMBERS
from tollhouse_server.names import invalid
from tollhouse_server.routing.models import TierChoice
from tollhouse_server.routing.policies import AutoRouter, AutoThreshold, EffectivePolicy, OnDeviceRule, RoutingPolicy


def choice_of(target: pb.TierTarget) -> TierChoice:
    """Return one choice of a tier."""
    return TierChoice(
        model=target.model,
        account_id=target.account,
        region=target.region,
        rank=target.rank if target.HasField("rank") else None,
        weight=target.weight if target.HasField("weight") else 1,
    )


def target_messages(choices: Iterable[TierChoice]) -> list[pb.TierTarget]:
    """Return choices as an administrator sees them: the rank as it was given, the weight always."""
    return [
        pb.TierTarget(model=one.model, account=one.account_id, region=one.region, rank=one.rank, weight=one.weight)
        for one in choices
    ]


def values_of(message: pb.RoutingPolicy, fields: Iterable[str]) -> dict[str, Any]:
    """Return the fields of a policy as `RoutingPolicy` has them; one that is not set is None or empty.

    Raises:
        InvalidRequest: a tier has two overrides.
    """
    return {name: READERS[name](message) for name in fields}


def policy_message(policy: RoutingPolicy) -> pb.RoutingPolicy:
    """Return what a policy says, without a name."""
    auto = policy.auto
    return pb.RoutingPolicy(
        allowed_tiers=_names(policy.allowed_tiers),
        allowed_models=_names(policy.allowed_models),
        allowed_kinds=None
        if policy.allowed_kinds is None
        else pb.UpstreamKindList(kinds=sorted(KIND_NUMBERS[kind] for kind in policy.allowed_kinds)),
        allowed_regions=_names(policy.allowed_regions),
        highest_priority=generation_pb2.PRIORITY_UNSPECIFIED
        if policy.highest_priority is None
        else PRIORITY_NUMBERS[policy.highest_priority],
        on_device_rules=map(_rule_message, policy.on_device_rules),
        tier_overrides=[
            pb.TierOverride(tier=tier, targets=target_messages(choices))
            for tier, choices in sorted(policy.tier_overrides.items())
        ],
        allow_fallback=policy.allow_fallback,
        resend_unknown_outcome=policy.resend_unknown_outcome,
        auto=None if auto is None else _auto_message(auto),
        department_weights=dict(policy.department_weights),
    )


def origin_messages(effective: EffectivePolicy) -> list[generation_pb2.RoutingPolicyOrigin]:
    """Return which scopes each part of a policy comes from."""
    return [
        generation_pb2.RoutingPolicyOrigin(field=name, scopes=scopes)
        for name, scopes in sorted(effective.origins.items())
    ]


def _names(names: Iterable[str] | None) -> pb.NameList | None:
    return None if names is None else pb.NameList(names=sorted(names))


def _rule_message(rule: OnDeviceRule) -> pb.OnDeviceRule:
    return pb.OnDeviceRule(
        name=rule.name,
        tiers=rule.tiers,
        models=rule.models,
        max_input_tokens=rule.max_input_tokens,
        labels=dict(rule.labels),
        offline_only=rule.is_offline_only,
        required=rule.is_required,
    )


def _auto_message(auto: AutoRouter) -> pb.AutoRouting:
    return pb.AutoRouting(
        enabled=auto.is_enabled,
        points=dict(auto.points),
        thresholds=[generation_pb2.TierThreshold(tier=one.tier, min_score=one.min_score) for one in auto.thresholds],
    )


# --- from the wire ----------------------------------------------------------------------------------------------------


def _list(name: str) -> Callable[[pb.RoutingPolicy], frozenset[str] | None]:
    def read(message: pb.RoutingPolicy) -> frozenset[str] | None:
        if not message.HasField(name):  # type: ignore[arg-type]
            return None
        names = frozenset(getattr(message, name).names)
        if name != "allowed_regions" and any(one.endswith("*") for one in names):
            raise invalid(name, "only regions may end with *")
        return names

    return read


def _optional(name: str) -> Callable[[pb.RoutingPolicy], bool | None]:
    return lambda message: getattr(message, name) if message.HasField(name) else None  # type: ignore[arg-type]


def _kinds(message: pb.RoutingPolicy) -> frozenset[Any] | None:
    return frozenset(KINDS[one] for one in message.allowed_kinds.kinds) if message.HasField("allowed_kinds") else None


def _rules(message: pb.RoutingPolicy) -> tuple[OnDeviceRule, ...]:
    return tuple(
        OnDeviceRule(
            name=one.name,
            tiers=tuple(one.tiers),
            models=tuple(one.models),
            max_input_tokens=one.max_input_tokens if one.HasField("max_input_tokens") else None,
            labels=dict(one.labels),
            is_offline_only=one.offline_only,
            is_required=one.required,
        )
        for one in message.on_device_rules
    )


def _overrides(message: pb.RoutingPolicy) -> dict[str, tuple[TierChoice, ...]]:
    found = {one.tier: tuple(map(choice_of, one.targets)) for one in message.tier_overrides}
    if len(found) < len(message.tier_overrides):
        raise invalid("tier_overrides", "a tier is there twice")
    return found


def _auto(message: pb.RoutingPolicy) -> AutoRouter | None:
    if not message.HasField("auto"):
        return None
    return AutoRouter(
        is_enabled=message.auto.enabled,
        points=dict(message.auto.points),
        thresholds=_thresholds(message.auto.thresholds),
    )


def _thresholds(found: Sequence[generation_pb2.TierThreshold]) -> tuple[AutoThreshold, ...]:
    if len({one.min_score for one in found}) < len(found):
        raise invalid("auto.thresholds", "two have the same score")
    return tuple(AutoThreshold(tier=one.tier, min_score=one.min_score) for one in found)


READERS: Final[Mapping[str, Callable[[pb.RoutingPolicy], Any]]] = MappingProxyType(
    {
        "allowed_tiers": _list("allowed_tiers"),
        "allowed_models": _list("allowed_models"),
        "allowed_kinds": _kinds,
        "allowed_regions": _list("allowed_regions"),
        "highest_priority": lambda message: PRIORITIES.get(message.highest_priority),
        "on_device_rules": _rules,
        "tier_overrides": _overrides,
        "allow_fallback": _optional("allow_fallback"),
        "resend_unknown_outcome": _optional("resend_unknown_outcome"),
        "auto": _auto,
        "department_weights": lambda message: dict(message.department_weights),
    }
)
"""How each field that can be changed is read."""
