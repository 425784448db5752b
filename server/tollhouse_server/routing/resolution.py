"""From a name to targets: every choice and account looked at once, with a reason for each that is left out."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from math import gcd, lcm

from tollhouse_server.errors import (
    ModelNotAllowed,
    ModelShutDown,
    ModelUnknown,
    NoUpstreamKey,
    RegionNotAllowed,
    TollhouseError,
)
from tollhouse_server.names import invalid
from tollhouse_server.routing.models import METHODS, Alias, Capability, Model, Tier, TierChoice, ranked
from tollhouse_server.routing.policies import EffectivePolicy
from tollhouse_server.routing.requirements import Requirements
from tollhouse_server.routing.route import LeftOut, Reason, Retiring, Route
from tollhouse_server.routing.targets import Account, Target
from tollhouse_server.upstream.protocol import UpstreamKind

_NAMED_AT_MOST = 5
_PLACES = frozenset({Reason.KIND_NOT_ALLOWED, Reason.REGION_NOT_ALLOWED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelves:
    """The catalogue's things by their names; `tiers_of` has the tiers of each model, the one that it leads first."""

    models: Mapping[str, Model]
    aliases: Mapping[str, Alias]
    tiers: Mapping[str, Tier]
    tiers_of: Mapping[str, tuple[str, ...]]
    accounts: Mapping[UpstreamKind, tuple[Account, ...]]
    api_versions: Mapping[tuple[str, str], str]

    def model(self, name: str) -> Model:
        """Return a model by its id or one of its aliases, shut down or not.

        Raises:
            ModelUnknown: there is no model of this name.
        """
        alias = self.aliases.get(name)
        found = self.models.get(alias.model if alias else name)
        if found is None:
            raise ModelUnknown(name=name)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """All of a call that its targets depend on, but its body: exactly one of `tier` and `model` is not ""."""

    tier: str
    model: str
    method: str
    tenant_id: str
    environment: str
    region: str
    kinds: frozenset[UpstreamKind]
    may_fall_back: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The targets of a wish between two moments, before a body is looked at; what its models can do all of them.

    `refuse` makes the error where there is no target.
    """

    route: Route
    refuse: Callable[[], TollhouseError] | None
    since: datetime
    until: datetime | None
    capabilities: frozenset[Capability] = frozenset()
    input_token_limit: int = 0

    def holds(self, at: datetime) -> bool:
        """Tell whether nothing that depends on the clock differs at this moment."""
        return self.since <= at and (self.until is None or at < self.until)

    def outcome(self, needs: Requirements, shelves: Shelves, method: str) -> tuple[Route, TollhouseError | None]:
        """Return the route of a request with these needs, and the error where it has no target."""
        if self.refuse is not None:
            return self.route, self.refuse()
        if needs.least_input_tokens <= self.input_token_limit and self.capabilities.issuperset(needs.fields):
            return self.route, None
        return self._narrowed(needs, shelves, method)

    def _narrowed(self, needs: Requirements, shelves: Shelves, method: str) -> tuple[Route, TollhouseError | None]:
        lacking = {name: _lack(shelves.models[name], needs) for name in {one.model for one in self.route.targets}}
        left_out = [found for _, found in sorted(lacking.items()) if found is not None]
        targets = tuple(one for one in self.route.targets if lacking[one.model] is None)
        refusal = None if targets else _unfit(needs, self.route, shelves, method, self.since)
        return self.route.narrowed(targets, left_out), refusal


def _lack(model: Model, needs: Requirements) -> LeftOut | None:
    missing = sorted(needs.capabilities - model.capabilities)
    if missing:
        detail = ", ".join(f"{needs.fields[one]} needs {one}" for one in missing)
        return LeftOut(model=model.model, reason=Reason.CAPABILITY, detail=detail)
    limit, least = model.bounds.input_token_limit, needs.least_input_tokens
    if least > limit:
        return LeftOut(
            model=model.model, reason=Reason.TOO_LARGE, detail=f"takes {limit} tokens, at least {least} came"
        )
    return None


def _unfit(needs: Requirements, route: Route, shelves: Shelves, method: str, at: datetime) -> TollhouseError:
    """Return the error that names the field which no model of the route can serve, and models that could."""
    able = [
        one.model
        for one in shelves.models.values()
        if METHODS.get(method) in one.capabilities
        and not is_over(one.shutdown_at, at)
        and _lack(one, needs) is None
        and route.policy.allows_model(one.model)
    ]
    asked = sorted({one.model for one in route.targets})
    field_name = next(
        (needs.fields[one] for one in needs.fields if one not in shelves.models[asked[0]].capabilities), "contents"
    )
    needed = ", ".join(sorted(needs.fields)) or "INPUT_TOKENS"
    who = f"tier {route.tier}" if route.tier else ", ".join(asked)
    if field_name == "contents":
        needed = f"at least {needs.least_input_tokens} input tokens"
    names = ", ".join(able[:_NAMED_AT_MOST]) or "no model of the catalogue"
    return invalid(field_name, f"needs {needed}, which {who} does not have; it could be served by: {names}")


def is_over(shutdown_at: datetime | None, at: datetime) -> bool:
    """Tell whether a shutdown date has passed."""
    return shutdown_at is not None and at >= shutdown_at


@dataclass(slots=True, kw_only=True)
class Search:
    """Looks for the targets of one wish at one moment."""

    shelves: Shelves
    wish: Wish
    policy: EffectivePolicy
    at: datetime
    left_out: list[LeftOut] = field(default_factory=list)
    retiring: dict[str, Retiring] = field(default_factory=dict)
    moments: set[datetime] = field(default_factory=set)

    def plan(self) -> Plan:
        """Return the targets.

        Raises:
            ModelUnknown: no tier or model of this name.
        """
        tier, choices = self._choices()
        refuse = self._refusal_of_name(tier)
        found = [] if refuse else self._found(choices)
        targets = tuple(_weighted(found))
        models = [self.shelves.models[name] for name in dict.fromkeys(one.model for one in targets)]
        if not targets and refuse is None:
            refuse = self._refusal([choice.model for _, choice in choices])
        return Plan(
            route=Route(
                tier=tier,
                targets=targets,
                left_out=tuple(self.left_out),
                retiring=tuple(self.retiring.values()),
                policy=self.policy,
            ),
            refuse=refuse,
            since=self.at,
            until=min((one for one in self.moments if one > self.at), default=None),
            capabilities=frozenset.intersection(*(one.capabilities for one in models)) if models else frozenset(),
            input_token_limit=min((one.bounds.input_token_limit for one in models), default=0),
        )

    def _choices(self) -> tuple[str, list[tuple[int, TierChoice]]]:
        wish = self.wish
        if wish.tier:
            tier = self.shelves.tiers.get(wish.tier)
            if tier is None:
                raise ModelUnknown(name=wish.tier)
            return wish.tier, ranked(self.policy.policy.tier_overrides.get(wish.tier, tier.choices))
        model = self.shelves.model(wish.model).model
        return next(iter(self.shelves.tiers_of.get(model, ())), ""), [(0, TierChoice(model=model))]

    # --- what the name itself does not allow --------------------------------------------------------------------------

    def _refusal_of_name(self, tier: str) -> Callable[[], TollhouseError] | None:
        """Return what refuses the call before any choice is looked at: the policy, or an alias that has ended."""
        wish, policy = self.wish, self.policy
        if wish.tier and not policy.allows_tier(tier):
            return partial(self._not_allowed, f"tier {tier}", "allowed_tiers")
        alias = self.shelves.aliases.get(wish.model)
        if alias is not None and self._is_over(alias.alias, alias.shutdown_at, None, alias.model):
            return partial(_shut_down, wish.model, alias.shutdown_at, alias.model)
        if wish.region and not policy.allows_region(wish.region):
            return partial(self._place_not_allowed, f"region {wish.region}", "allowed_regions")
        if wish.kinds and not any(map(policy.allows_kind, wish.kinds)):
            return partial(self._place_not_allowed, f"upstream {', '.join(sorted(wish.kinds))}", "allowed_kinds")
        return None

    def _not_allowed(self, name: str, part: str) -> TollhouseError:
        allowed = ", ".join(sorted(getattr(self.policy.policy, part) or ()))
        return ModelNotAllowed(name=name, scope=self.policy.scope_of(part), allowed=f"{part[8:]} {allowed}".rstrip())

    def _place_not_allowed(self, place: str, part: str) -> TollhouseError:
        allowed = ", ".join(sorted(getattr(self.policy.policy, part) or ()))
        return RegionNotAllowed(place=place, scope=self.policy.scope_of(part), allowed=f"{part[8:]} {allowed}".rstrip())

    def _is_over(self, name: str, shutdown_at: datetime | None, notice_from: datetime | None, successor: str) -> bool:
        """Tell whether a date has passed; where it is near, keep that for the caller, and when this will change."""
        if shutdown_at is None:
            return False
        self.moments.add(shutdown_at)
        if notice_from is not None:
            self.moments.add(notice_from)
            if notice_from <= self.at < shutdown_at:
                self.retiring[name] = Retiring(model=name, shutdown_at=shutdown_at, successor=successor)
        return self.at >= shutdown_at

    # --- choices and accounts -----------------------------------------------------------------------------------------

    def _found(self, choices: list[tuple[int, TierChoice]]) -> list[tuple[TierChoice, int, list[Target]]]:
        found = []
        first: int | None = None
        for rank, choice in choices:
            model = self.shelves.models.get(choice.model)
            if model is None:
                self.left_out.append(_left(choice.model, Reason.NO_ACCOUNT, "is not in the catalogue"))
                continue
            if (why := self._unusable(model)) is not None:
                self.left_out.append(why)
                continue
            first = rank if first is None else first
            if rank != first and not self.wish.may_fall_back:
                self.left_out.append(_left(model.model, Reason.FALLBACK, f"has rank {rank}, and fallback is off"))
                continue
            found.append((choice, rank, self._targets(model, choice, rank)))
        return found

    def _unusable(self, model: Model) -> LeftOut | None:
        if self._is_over(model.model, model.shutdown_at, model.retires_from, model.successor):
            successor = f"; use {model.successor}" if model.successor else ""
            return _left(model.model, Reason.SHUT_DOWN, f"was shut down on {_day(model.shutdown_at)}{successor}")
        if METHODS.get(self.wish.method) not in model.capabilities:
            return _left(model.model, Reason.METHOD, f"does not serve {self.wish.method}")
        if not self.policy.allows_model(model.model) or not self._has_allowed_tier(model.model):
            return _left(model.model, Reason.MODEL_NOT_ALLOWED, "is not in the policy's lists")
        return None

    def _has_allowed_tier(self, model: str) -> bool:
        """Tell whether a model that was named directly stands behind a tier that the policy allows."""
        if self.wish.tier or self.policy.policy.allowed_tiers is None:
            return True
        return any(map(self.policy.allows_tier, self.shelves.tiers_of.get(model, ())))

    def _targets(self, model: Model, choice: TierChoice, rank: int) -> list[Target]:
        targets = []
        seen = len(self.left_out)
        for account in self._accounts_for(model, choice):
            why = self._unreachable(account)
            if why is None:
                targets.append(self._target(model, account, rank))
            else:
                reason, detail = why
                self.left_out.append(
                    LeftOut(
                        model=model.model,
                        reason=reason,
                        detail=detail,
                        kind=account.kind,
                        account_id=account.account_id,
                        region=account.region,
                    )
                )
        if not targets and len(self.left_out) == seen:
            self.left_out.append(_left(model.model, Reason.NO_ACCOUNT, "no active account serves it"))
        return targets

    def _accounts_for(self, model: Model, choice: TierChoice) -> Iterator[Account]:
        """Yield the accounts that could serve a choice; those that are kept for others do not exist for this call."""
        for kind in model.upstreams:
            for account in self.shelves.accounts.get(kind, ()):
                if (
                    account.tenant_id in ("", self.wish.tenant_id)
                    and account.environment in ("", self.wish.environment)
                    and choice.account_id in ("", account.account_id)
                    and choice.region in ("", account.region)
                ):
                    yield account

    def _unreachable(self, account: Account) -> tuple[Reason, str] | None:
        wish = self.wish
        if not self.policy.allows_kind(account.kind):
            return Reason.KIND_NOT_ALLOWED, f"{account.kind} is not in the policy's allowed_kinds"
        if not self.policy.allows_region(account.region):
            return Reason.REGION_NOT_ALLOWED, f"{account.region or 'global'} is not in the policy's allowed_regions"
        if wish.kinds and account.kind not in wish.kinds:
            return Reason.KIND_NOT_ASKED, f"the call asks for {', '.join(sorted(wish.kinds))}"
        if wish.region not in ("", account.region):
            return Reason.REGION_NOT_ASKED, f"the call asks for {wish.region}"
        return None

    def _target(self, model: Model, account: Account, rank: int) -> Target:
        versions = self.shelves.api_versions
        return Target(
            kind=account.kind,
            account_id=account.account_id,
            project=account.project,
            base_url=account.base_url,
            api_version=versions.get((account.kind, self.wish.method)) or versions[account.kind, "*"],
            model=model.model,
            region=account.region,
            endpoint=account.endpoint,
            egress_url=account.egress_url,
            rank=rank,
        )

    # --- why nothing was found ----------------------------------------------------------------------------------------

    def _refusal(self, models: list[str]) -> Callable[[], TollhouseError]:
        """Return the error for what came nearest: places that were looked at, then accounts, then the first model."""
        tried = [one for one in self.left_out if one.account_id]
        if tried and all(one.reason in _PLACES for one in tried):
            one = tried[0]
            if one.reason is Reason.KIND_NOT_ALLOWED:
                return partial(self._place_not_allowed, f"upstream {one.kind}", "allowed_kinds")
            return partial(self._place_not_allowed, f"region {one.region or 'global'}", "allowed_regions")
        usable = [one.model for one in self.left_out if one.account_id or one.reason is Reason.NO_ACCOUNT]
        if usable or not self.left_out:
            return partial(NoUpstreamKey, model=usable[0] if usable else next(iter(models), self.wish.tier))
        return self._refusal_of_model(self.left_out[0])

    def _refusal_of_model(self, why: LeftOut) -> Callable[[], TollhouseError]:
        model = self.shelves.models[why.model]
        if why.reason is Reason.SHUT_DOWN:
            return partial(_shut_down, model.model, model.shutdown_at, model.successor)
        if why.reason is Reason.METHOD:
            return partial(invalid, "model", f"{model.model} does not serve {self.wish.method}")
        part = "allowed_tiers" if self.policy.allows_model(model.model) else "allowed_models"
        return partial(self._not_allowed, f"model {model.model}", part)


def _left(model: str, reason: Reason, detail: str) -> LeftOut:
    return LeftOut(model=model, reason=reason, detail=detail)


def _weighted(found: Iterable[tuple[TierChoice, int, list[Target]]]) -> Iterator[Target]:
    """Yield each account and model once, at its first rank; the targets of a choice share that choice's weight."""
    seen: set[tuple[str, str]] = set()
    ranks: dict[int, list[tuple[int, list[Target]]]] = {}
    for choice, rank, targets in found:
        fresh = [one for one in targets if (one.account_id, one.model) not in seen]
        seen.update((one.account_id, one.model) for one in fresh)
        if fresh:
            ranks.setdefault(rank, []).append((choice.weight, fresh))
    for choices in ranks.values():
        parts = lcm(*(len(targets) for _, targets in choices))
        shares = [weight * parts // len(targets) for weight, targets in choices]
        unit = gcd(*shares)
        for share, (_, targets) in zip(shares, choices, strict=True):
            yield from (replace(one, weight=share // unit) for one in targets)


def _day(moment: datetime | None) -> str:
    return moment.date().isoformat() if moment else ""


def _shut_down(model: str, shutdown_at: datetime | None, successor: str) -> ModelShutDown:
    return ModelShutDown(model=model, shutdown_on=_day(shutdown_at), successor=successor)
