"""Routing policies: what a tenant, its departments and projects allow and prefer, and what that comes to for one call.

What allows (tiers, models, kinds, regions, the priority that may be claimed, rules that keep calls on the device) only
narrows on the way down the tree: nothing below can widen it. What prefers (fallback, sending anew, a tier's own
choices, tier "auto") is taken from the nearest scope that says anything.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from tollhouse_server.names import domain_of
from tollhouse_server.routing.models import TierChoice
from tollhouse_server.routing.priorities import Priority
from tollhouse_server.upstream.protocol import UpstreamKind

GLOBAL: Final = "global"
"""The region of accounts that have none: data may be processed anywhere."""

_Weight = Annotated[int, Field(ge=1, le=1_000)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OnDeviceRule(_Part):
    """Calls that should be answered on the device: those that meet every condition that the rule names.

    `is_required` refuses such a call to every model elsewhere; otherwise only ResolveRoute says so.
    """

    name: str
    tiers: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    max_input_tokens: int | None = None
    labels: Mapping[str, str] = Field(default_factory=dict)
    is_offline_only: bool = False
    is_required: bool = False


class AutoThreshold(_Part):
    """From which score on tier "auto" means this tier."""

    tier: str
    min_score: int


class AutoRouter(_Part):
    """How tier "auto" chooses; `points` are the most that a feature adds, where it is not the default."""

    is_enabled: bool = False
    points: Mapping[str, int] = Field(default_factory=dict)
    thresholds: tuple[AutoThreshold, ...] = ()


class RoutingPolicy(_Part):
    """What one scope says; None means that it says nothing of it, and for what allows: no restriction of its own."""

    allowed_tiers: frozenset[str] | None = None
    allowed_models: frozenset[str] | None = None
    allowed_kinds: frozenset[UpstreamKind] | None = None
    allowed_regions: frozenset[str] | None = None
    highest_priority: Priority | None = None
    on_device_rules: tuple[OnDeviceRule, ...] = ()
    tier_overrides: Mapping[str, tuple[TierChoice, ...]] = Field(default_factory=dict)
    allow_fallback: bool | None = None
    resend_unknown_outcome: bool | None = None
    auto: AutoRouter | None = None
    department_weights: Mapping[str, _Weight] = Field(default_factory=dict)


NO_POLICY: Final = RoutingPolicy()


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectivePolicy:
    """What holds for one place in the tree, and which scopes each part of it comes from, the topmost first."""

    policy: RoutingPolicy = NO_POLICY
    origins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rule_scopes: Mapping[str, str] = field(default_factory=dict)

    def allows_tier(self, tier: str) -> bool:
        """Tell whether calls may name the tier, or a model behind it."""
        return self.policy.allowed_tiers is None or tier in self.policy.allowed_tiers

    def allows_model(self, model: str) -> bool:
        """Tell whether a list of models has this one, or there is none."""
        return self.policy.allowed_models is None or model in self.policy.allowed_models

    def allows_kind(self, kind: UpstreamKind) -> bool:
        """Tell whether calls may go to this kind of upstream."""
        return self.policy.allowed_kinds is None or kind in self.policy.allowed_kinds

    def allows_region(self, region: str) -> bool:
        """Tell whether calls may be processed in the region; "" is an account without one."""
        allowed = self.policy.allowed_regions
        return allowed is None or any(covers(pattern, region or GLOBAL) for pattern in allowed)

    def scope_of(self, part: str) -> str:
        """Return the nearest scope that has a say in a part of the policy."""
        return self.origins.get(part, ("",))[-1]

    def granted(self, priority: Priority) -> Priority:
        """Return the priority that a call gets when it claims this one."""
        highest = self.policy.highest_priority
        return max(priority, Priority.DEFAULT if highest is None else highest)

    def may_resend_unknown(self, asked: bool | None = None) -> bool:  # noqa: FBT001 - the call's own word
        """Tell whether a call may be sent anew after an unknown outcome; it may forbid that, not allow it itself."""
        return asked is not False and self.policy.resend_unknown_outcome is not False

    def may_fall_back(self, asked: bool | None = None) -> bool:  # noqa: FBT001 - the call's own word
        """Tell whether further choices of a tier may serve a call: its own word, else the policy's, else yes."""
        if asked is not None:
            return asked
        return self.policy.allow_fallback is not False

    def queue_weight(self, department_path: Sequence[str]) -> float:
        """Return a department's turns in the queue beside others': that of the nearest one that has a weight, else 1.

        The heaviest of a tenant counts 1: weights divide what the tenant gets, they take nothing from other tenants.
        """
        weights = self.policy.department_weights
        if not weights:
            return 1.0
        own = next((weights[one] for one in reversed(department_path) if one in weights), 1)
        return own / max(weights.values())

    def on_device_rule(
        self, *, tier: str, models: Iterable[str], input_tokens: int | None, labels: Mapping[str, str], is_offline: bool
    ) -> OnDeviceRule | None:
        """Return the first rule that a call meets, those that are required before the others."""
        names = frozenset(models)
        for rule in sorted(self.policy.on_device_rules, key=lambda one: not one.is_required):
            if (
                (not rule.tiers or tier in rule.tiers)
                and (not rule.models or not names.isdisjoint(rule.models))
                and (rule.max_input_tokens is None or (input_tokens or 0) <= rule.max_input_tokens)
                and all(labels.get(name) == value for name, value in rule.labels.items())
                and (is_offline or not rule.is_offline_only)
            ):
                return rule
        return None


UNRESTRICTED: Final = EffectivePolicy()
"""Where no scope says anything."""


def covers(pattern: str, region: str) -> bool:
    """Tell whether an allowed region, such as "europe-west4" or "europe-*", stands for a region or for a pattern."""
    return region.startswith(pattern[:-1]) if pattern.endswith("*") else region == pattern


class Policies:
    """The policies of one moment, by the names of their scopes; works out what is in force and remembers it."""

    def __init__(self, policies: Mapping[str, RoutingPolicy]) -> None:
        self._policies = dict(policies)
        self._tenants = frozenset(domain_of(scope) for scope in policies)
        self._effective: dict[tuple[str, ...], EffectivePolicy] = {}

    def effective(self, tenant_id: str, department_path: tuple[str, ...] = (), project_id: str = "") -> EffectivePolicy:
        """Return what is in force for a project, or with "" for a department, or with an empty path for a tenant."""
        if tenant_id not in self._tenants:
            return UNRESTRICTED
        # By the scopes that say something: projects that say nothing share what stands above them, and their routes.
        above = scopes_above(tenant_id, department_path, project_id)
        speaking = tuple(scope for scope in above if scope in self._policies)
        found = self._effective.get(speaking)
        if found is None:
            found = self._effective[speaking] = effective_policy([(scope, self._policies[scope]) for scope in speaking])
        return found


def scopes_above(tenant_id: str, department_path: Sequence[str], project_id: str) -> list[str]:
    """Return the names of the scopes whose policies hold for a place in the tree, the topmost first."""
    tenant = f"tenants/{tenant_id}"
    departments = [f"{tenant}/departments/{one}" for one in department_path]
    project = [f"{departments[-1]}/projects/{project_id}"] if project_id and departments else []
    return [tenant, *departments, *project]


def effective_policy(levels: Sequence[tuple[str, RoutingPolicy]]) -> EffectivePolicy:
    """Return what the policies of a tenant, its departments and a project come to, given from the top down; pure."""
    fields: dict[str, Any] = {}
    origins: dict[str, tuple[str, ...]] = {}
    for scope, policy in levels:
        for name in policy.model_fields_set:
            value = getattr(policy, name)
            if value is None or value in ((), {}):
                continue
            join = _JOINS.get(name)
            is_joined = join is not None and name in fields
            fields[name] = join(fields[name], value) if join is not None and name in fields else value
            origins[name] = (*origins[name], scope) if is_joined else (scope,)
    if "highest_priority" in fields and "/" in origins["highest_priority"][0].removeprefix("tenants/"):
        # What the tenant itself has not granted, nothing below it can.
        fields["highest_priority"] = max(fields["highest_priority"], Priority.DEFAULT)
    rules = {rule.name: scope for scope, policy in reversed(levels) for rule in policy.on_device_rules}
    return EffectivePolicy(policy=RoutingPolicy.model_construct(**fields), origins=origins, rule_scopes=rules)


def _joined_regions(above: frozenset[str], below: frozenset[str]) -> frozenset[str]:
    """Return what both lists allow: of two entries of which one covers the other, the narrower."""
    narrower = {one for one in below if any(covers(other, one) for other in above)}
    return frozenset(narrower | {one for one in above if any(covers(other, one) for other in below)})


def _narrowed(above: frozenset[Any], below: frozenset[Any]) -> frozenset[Any]:
    return above & below


def _merged(above: Mapping[str, Any], below: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**above, **below}


def _both(above: tuple[Any, ...], below: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*above, *below)


_JOINS: Final[Mapping[str, Any]] = {
    "allowed_tiers": _narrowed,
    "allowed_models": _narrowed,
    "allowed_kinds": _narrowed,
    "allowed_regions": _joined_regions,
    "highest_priority": max,
    "on_device_rules": _both,
    "tier_overrides": _merged,
}
