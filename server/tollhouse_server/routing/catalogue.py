"""The catalogue in memory: immutable; answers which upstream targets can serve a tier or a model, in order."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from tollhouse_server.errors import ModelUnknown, NoUpstreamKey, OnDeviceOnly, TierAutoOff, TollhouseError
from tollhouse_server.names import invalid
from tollhouse_server.routing.complexity import AUTO, choose_tier
from tollhouse_server.routing.models import METHODS, Alias, Capability, Model, Tier, TierChoice
from tollhouse_server.routing.policies import EffectivePolicy, OnDeviceRule, Policies, RoutingPolicy
from tollhouse_server.routing.requirements import NOTHING, Requirements, requirements_of
from tollhouse_server.routing.resolution import Plan, Search, Shelves, Wish
from tollhouse_server.routing.route import LeftOut, OnDevice, Reason, Route, RouteRequest
from tollhouse_server.routing.targets import Account, Target, UpstreamKeyMeta
from tollhouse_server.upstream.protocol import UpstreamKind

__all__ = [
    "METHODS",
    "Alias",
    "Capability",
    "Catalogue",
    "CatalogueParts",
    "Explanation",
    "Model",
    "Route",
    "RouteRequest",
    "Tier",
    "TierChoice",
]

_MOST_PLANS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueParts:
    """Everything a catalogue is made of.

    `api_versions` is by (kind, method), where method "*" is any other; `policies` by the names of their scopes.
    """

    models: tuple[Model, ...] = ()
    aliases: tuple[Alias, ...] = ()
    tiers: tuple[Tier, ...] = ()
    accounts: tuple[Account, ...] = ()
    keys: tuple[UpstreamKeyMeta, ...] = ()
    api_versions: Mapping[tuple[str, str], str]
    policies: Mapping[str, RoutingPolicy] | None = None


class Explanation(NamedTuple):
    """What would become of a call: its route, with no targets where `refusal` says why.

    `rule` is the policy's rule, if any, by which the device should answer.
    """

    route: Route
    needs: Requirements
    refusal: TollhouseError | None = None
    rule: OnDeviceRule | None = None

    def with_keys_only(self, has_key: Callable[[str], bool]) -> "Explanation":
        """Return it without the targets whose accounts have no key: routes do not know of keys, calls need them."""
        route = self.route
        keyless = [target for target in route.targets if not has_key(target.account_id)]
        if not keyless:
            return self
        targets = tuple(target for target in route.targets if target not in keyless)
        refusal = self.refusal or (None if targets else NoUpstreamKey(model=keyless[0].model))
        return self._replace(route=route.narrowed(targets, map(_keyless, keyless)), refusal=refusal)


class Catalogue:
    """One state of the catalogue: immutable, safe to share between tasks; remembers the routes that it has found."""

    def __init__(self, parts: CatalogueParts) -> None:
        self._shelves = _shelves(parts)
        self._policies = Policies(parts.policies or {})
        self._keys: dict[str, tuple[UpstreamKeyMeta, ...]] = {}
        for key in sorted(parts.keys, key=lambda one: (one.account_id, one.key_id)):
            self._keys[key.account_id] = (*self._keys.get(key.account_id, ()), key)
        self._owners = frozenset(one.tenant_id for one in parts.accounts)
        self._plans: dict[object, Plan] = {}

    def list_tiers(self) -> tuple[Tier, ...]:
        """Return every tier in the order of their names."""
        return tuple(self._shelves.tiers.values())

    def list_models(self) -> tuple[Model, ...]:
        """Return every model in the order of their names, those that are shut down too."""
        return tuple(self._shelves.models.values())

    def get_tier(self, tier: str) -> Tier:
        """Return one tier.

        Raises:
            ModelUnknown: there is no tier of this name.
        """
        found = self._shelves.tiers.get(tier)
        if found is None:
            raise ModelUnknown(name=tier)
        return found

    def get_model(self, name: str) -> Model:
        """Return a model by its id or one of its aliases, shut down or not.

        Raises:
            ModelUnknown: there is no model of this name.
        """
        return self._shelves.model(name)

    def aliases_of(self, model: str) -> tuple[str, ...]:
        """Return the other names of a model."""
        return tuple(sorted(one.alias for one in self._shelves.aliases.values() if one.model == model))

    def tiers_of(self, model: str) -> tuple[str, ...]:
        """Return the tiers that a model stands behind; first the one in which it comes first."""
        return self._shelves.tiers_of.get(model, ())

    def keys_of(self, account_id: str) -> tuple[UpstreamKeyMeta, ...]:
        """Return an account's active keys in the order of their ids."""
        return self._keys.get(account_id, ())

    def accounts(self) -> tuple[Account, ...]:
        """Return every active account whose address the settings allow."""
        return tuple(account for accounts in self._shelves.accounts.values() for account in accounts)

    def policy(self, tenant_id: str, department_path: tuple[str, ...] = (), project_id: str = "") -> EffectivePolicy:
        """Return the routing policy in force for a project, or with "" for a department, or with () for a tenant."""
        return self._policies.effective(tenant_id, department_path, project_id)

    def resolve(self, request: RouteRequest) -> Route:
        """Return where a call can go; there is at least one target.

        Raises:
            ModelUnknown: no tier or model of this name.
            TierAutoOff: tier "auto" is named, and the policy has not switched it on.
            ModelShutDown: its date has passed; the error names the successor.
            ModelNotAllowed, RegionNotAllowed: the routing policy excludes what is named, or all that could serve it.
            InvalidRequest: neither is named, or no model behind it serves the method or what the body needs.
            OnDeviceOnly: the call or the policy says that it must not be sent.
            NoUpstreamKey: no active account can serve it.
        """
        if request.on_device is OnDevice.REQUIRED:
            raise OnDeviceOnly
        found = self.explain(request)
        if found.refusal is not None:
            raise found.refusal
        return found.route

    def explain(self, request: RouteRequest) -> Explanation:
        """Return where a call can go, or why nowhere, with a reason for everything that was left out.

        Raises:
            ModelUnknown, TierAutoOff, InvalidRequest: what is named does not exist, or nothing is named.
        """
        policy = self._policies.effective(request.tenant_id, request.department_path, request.project_id)
        needs = NOTHING if request.body is None else requirements_of(request.body)
        if request.model:
            route, refusal = self._outcome(request, policy, needs, model=request.model.removeprefix("models/"))
        elif not request.tier:
            raise invalid("model", "name a tier or a model")
        elif (tier := request.tier.removeprefix("tiers/")) == AUTO:
            route, refusal = self._auto(request, policy, needs)
        else:
            route, refusal = self._outcome(request, policy, needs, tier=tier)
        if not policy.policy.on_device_rules:
            return Explanation(route=route, needs=needs, refusal=refusal)
        rule = _rule(request, route, needs)
        if rule is not None and rule.is_required:
            refusal = OnDeviceOnly(rule=rule.name, scope=policy.rule_scopes[rule.name])
        return Explanation(route=route, needs=needs, refusal=refusal, rule=rule)

    def _outcome(
        self, request: RouteRequest, policy: EffectivePolicy, needs: Requirements, *, tier: str = "", model: str = ""
    ) -> tuple[Route, TollhouseError | None]:
        may_fall_back = policy.may_fall_back(request.allow_fallback)
        owner = request.tenant_id if request.tenant_id in self._owners else ""
        key = (
            *(tier, model, request.method, owner, request.environment),
            *(request.region, request.kinds, may_fall_back, id(policy)),
        )
        plan = self._plans.get(key)
        if plan is None or not plan.holds(request.at):
            wish = Wish(
                tier=tier,
                model=model,
                method=request.method,
                tenant_id=owner,
                environment=request.environment,
                region=request.region or "",
                kinds=request.kinds,
                may_fall_back=may_fall_back,
            )
            plan = Search(shelves=self._shelves, wish=wish, policy=policy, at=request.at).plan()
            if len(self._plans) >= _MOST_PLANS:
                # Callers choose names of regions: what they make up must not fill the memory.
                self._plans.clear()
            self._plans[key] = plan
        return plan.outcome(needs, self._shelves, request.method)

    def _auto(
        self, request: RouteRequest, policy: EffectivePolicy, needs: Requirements
    ) -> tuple[Route, TollhouseError | None]:
        """Route by the tier that the request's complexity leads to, or the next one up that can serve it."""
        router = policy.policy.auto
        if router is None or not router.is_enabled:
            raise TierAutoOff
        choice = choose_tier(request.body or {}, needs, router)
        tiers = [one.tier for one in choice.thresholds]
        first: tuple[Route, TollhouseError | None] | None = None
        for tier in tiers[tiers.index(choice.tier) :]:
            route, refusal = self._outcome(request, policy, needs, tier=tier)
            found = replace(route, choice=replace(choice, tier=tier)), refusal
            if refusal is None:
                return found
            first = first or found
        assert first is not None  # noqa: S101 - the chosen tier is one of the thresholds
        return first


def _keyless(target: Target) -> LeftOut:
    return LeftOut(
        model=target.model,
        reason=Reason.NO_ACCOUNT,
        detail="the account has no active key",
        kind=target.kind,
        account_id=target.account_id,
        region=target.region,
    )


def _rule(request: RouteRequest, route: Route, needs: Requirements) -> OnDeviceRule | None:
    return route.policy.on_device_rule(
        tier=route.tier,
        models=[one.model for one in route.targets] or [one.model for one in route.left_out],
        input_tokens=needs.likely_input_tokens if request.input_tokens is None else request.input_tokens,
        labels=request.labels,
        is_offline=request.is_offline,
    )


def _shelves(parts: CatalogueParts) -> Shelves:
    tiers = {one.tier: one for one in sorted(parts.tiers, key=lambda one: one.tier)}
    accounts: dict[UpstreamKind, tuple[Account, ...]] = {}
    for account in sorted(parts.accounts, key=lambda one: one.account_id):
        accounts[account.kind] = (*accounts.get(account.kind, ()), account)
    places = sorted(
        (position, tier.tier, choice.model) for tier in tiers.values() for position, choice in enumerate(tier.choices)
    )
    tiers_of: dict[str, tuple[str, ...]] = {}
    for _, tier, model in places:
        if tier not in (known := tiers_of.get(model, ())):
            tiers_of[model] = (*known, tier)
    return Shelves(
        models={one.model: one for one in sorted(parts.models, key=lambda one: one.model)},
        aliases={one.alias: one for one in parts.aliases},
        tiers=tiers,
        tiers_of=tiers_of,
        accounts=accounts,
        api_versions=dict(parts.api_versions),
    )
