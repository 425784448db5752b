"""Whether calls can go upstream: accounts with keys, breakers, and, if asked to, a call that costs nothing."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Final

from tollhouse_server.names import PLATFORM
from tollhouse_server.operations.checks import store
from tollhouse_server.operations.checks.terms import (
    Check,
    Finding,
    Surroundings,
    duration_text,
    failure,
    fine,
    skipped,
    warning,
)
from tollhouse_server.routing.catalogue import Catalogue
from tollhouse_server.traffic.breaker_overview import BreakerOverview
from tollhouse_server.traffic.breakers import BreakerKey, Forced, State, order_over
from tollhouse_server.traffic.traffic_view import view

MOST_ACCOUNTS: Final = 50
"""Accounts that are looked at one by one."""

_PROBE_ADVICE: Final = "See whether this host reaches the account's endpoint: tollhouse accounts show"


def checks_of_accounts(catalogue: Catalogue) -> Iterator[Check]:
    """Yield two checks for each account."""
    for account in catalogue.accounts()[:MOST_ACCOUNTS]:
        name = account.account_id
        yield Check(
            name=f"upstream.{name}",
            look=partial(_account, name),
            advice="See postgres.reachable",
            needs="postgres.reachable",
        )
        yield Check(name=f"upstream.{name}.probe", look=partial(_probe, name), advice=_PROBE_ADVICE)


async def accounts(surroundings: Surroundings) -> Finding:
    """See that there is somewhere to go."""
    found = surroundings.catalogue().accounts()
    if not found:
        return failure(
            "there is no active account whose address the settings allow", "Add one: tollhouse accounts create"
        )
    more = f"; only the first {MOST_ACCOUNTS} are looked at" if len(found) > MOST_ACCOUNTS else ""
    return fine(f"{len(found)} active{more}")


async def _account(account_id: str, surroundings: Surroundings) -> Finding:
    """See that an account has a key that could be read, and when it served last."""
    keys = surroundings.catalogue().keys_of(account_id)
    if not keys:
        advice = f"Add one: tollhouse upstream-keys add NAME --account {account_id}"
        return failure("it has no active key", advice)
    missing = surroundings.keys.missing(account_id)
    if len(missing) == len(keys):
        return failure("none of its keys could be read from Vault", "See vault.reachable; then wait half a minute")
    async with surroundings.database.single_query() as session:
        served_at = await store.last_success(session, account_id)
    ago = "no call served yet" if served_at is None else f"served a call in the hour of {served_at:%Y-%m-%d %H:%M} UTC"
    if missing:
        return warning(
            f"keys that could not be read: {', '.join(missing)}", "See tollhouse upstream-keys list, and Vault"
        )
    oldest = max((datetime.now(UTC) - key.created_at).total_seconds() for key in keys)
    return fine(f"{len(keys)} keys, the oldest of {duration_text(oldest)}; {ago}")


async def _probe(account_id: str, surroundings: Surroundings) -> Finding:
    """Have the account count the tokens of a word, which is free."""
    if not surroundings.probes:
        return skipped("not asked for: --probe")
    verdict = await surroundings.keys.probe(account_id)
    if verdict == "ACCEPTED":
        return fine("the upstream took the key and counted the tokens of a word")
    if verdict == "REFUSED":
        return failure(
            "the upstream refuses the key", f"Rotate it: tollhouse upstream-keys rotate KEY --account {account_id}"
        )
    return failure("the upstream did not answer, or not about the key", _PROBE_ADVICE)


async def breakers(surroundings: Surroundings) -> Finding:
    """See whether targets are left alone."""
    async with surroundings.database.within(PLATFORM) as session:
        seen = await view(session, surroundings.catalogue(), datetime.now(UTC))
    troubled = [one for one in seen.breakers.values() if one.is_troubled]
    if not troubled:
        return fine("all closed, none held by an order")
    worst = max(troubled, key=lambda one: (one.state, one.is_forced))
    text, advice = f"{len(troubled)} in trouble: {_breaker_text(worst)}", _advice(worst, seen.orders)
    return failure(text, advice) if worst.state is State.OPEN else warning(text, advice)


def _breaker_text(one: BreakerOverview) -> str:
    seen = f", {one.failures} of {one.calls} calls failed" if one.calls else ""
    held = ", by an operator's order" if one.is_forced else seen
    return f"{one.key.account_id} {one.key.model} is {one.state.name.lower().replace('_', '-')}{held}"


def _advice(one: BreakerOverview, orders: Mapping[BreakerKey, Forced]) -> str:
    if not one.is_forced:
        return "See why its calls fail: tollhouse breakers list --troubled, tollhouse upstream status"
    # An order of a moment ago may be taken back already, and a process not have heard of it.
    order = order_over(one.key, orders)
    return "See who: tollhouse breakers orders" + ("" if order is None else f"; take it back: {_auto(order)}")


def _auto(order: BreakerKey) -> str:
    region = f" --region {order.region}" if order.region else ""
    model = f" --model {order.model}" if order.model else ""
    return f"tollhouse breakers auto {order.account_id}{region}{model}"
