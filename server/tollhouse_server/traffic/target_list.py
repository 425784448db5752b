"""Every target of every tier, whoever may call it: what an operator looks at."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from tollhouse_server.routing.catalogue import Catalogue
from tollhouse_server.routing.models import Tier, TierChoice, ranked
from tollhouse_server.routing.resolution import is_over
from tollhouse_server.routing.targets import Account
from tollhouse_server.traffic.breakers import BreakerKey


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedTarget:
    """An account at its place in a tier; `account` is None where no active account serves the choice."""

    tier: str
    rank: int
    weight: int
    model: str
    account: Account | None

    @property
    def key(self) -> BreakerKey | None:
        """Return which breaker watches it."""
        return None if self.account is None else BreakerKey(self.account.account_id, self.account.region, self.model)

    @property
    def position(self) -> str:
        """Return its place in the list, as text that sorts."""
        account = "" if self.account is None else self.account.account_id
        return f"{self.tier} {self.rank:06} {self.model} {account}"


def targets_of(catalogue: Catalogue, at: datetime) -> list[ListedTarget]:
    """Return all targets in the order of tier, rank, model and account, models that are shut down left out."""
    found = [one for tier in catalogue.list_tiers() for one in _of_tier(catalogue, tier, at)]
    return sorted(found, key=lambda one: one.position)


def _of_tier(catalogue: Catalogue, tier: Tier, at: datetime) -> Iterator[ListedTarget]:
    models = {one.model: one for one in catalogue.list_models()}
    seen: set[tuple[str, str]] = set()
    for rank, choice in ranked(tier.choices):
        model = models.get(choice.model)
        if model is None or is_over(model.shutdown_at, at):
            continue
        serving: list[Account | None] = [
            one for one in catalogue.accounts() if one.kind in model.upstreams and _is_chosen(one, choice)
        ]
        for account in serving or [None]:
            account_id = "" if account is None else account.account_id
            # Routing, too, takes an account and model where they come first.
            if (account_id, model.model) not in seen:
                seen.add((account_id, model.model))
                yield ListedTarget(tier=tier.tier, rank=rank, weight=choice.weight, model=model.model, account=account)


def _is_chosen(account: Account, choice: TierChoice) -> bool:
    return choice.account_id in ("", account.account_id) and choice.region in ("", account.region)
