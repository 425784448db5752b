"""Accounts of every kind as administrators keep them: validated by field, changed by mask, listed with their limits."""

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.type.money_pb2 import Money
from tollhouse.admin.v1 import accounts_pb2 as pb
from tollhouse.admin.v1 import limits_pb2, tenants_pb2
from tollhouse_server.audit.store import list_events
from tollhouse_server.errors import EtagMismatch, InvalidRequest, ResourceNotFound
from tollhouse_server.routing.live import seed

from tests.integration.admin.plane import ADDRESSES, Plane

REQUESTS = pb.AccountLimit.METRIC_REQUESTS_PER_MINUTE
TOKENS = pb.AccountLimit.METRIC_INPUT_TOKENS_PER_MINUTE
SPEND = pb.AccountLimit.METRIC_SPEND_PER_10_MINUTES


def units(amount: int) -> limits_pb2.LimitAmount:
    return limits_pb2.LimitAmount(units=amount)


def limit(metric: "pb.AccountLimit.Metric.ValueType" = REQUESTS, amount: int = 600, model: str = "") -> pb.AccountLimit:
    return pb.AccountLimit(metric=metric, amount=units(amount), model=model)


def spend(dollars: int) -> pb.AccountLimit:
    money = Money(currency_code="USD", units=dollars)
    return pb.AccountLimit(metric=SPEND, amount=limits_pb2.LimitAmount(money=money))


def vertex(**fields: Any) -> pb.Account:
    given = {"upstream": pb.Account.UPSTREAM_VERTEX, "google_project": "acme-prod", "region": "europe-west4"}
    return pb.Account(**{**given, **fields})


async def seeded(plane: Plane) -> Plane:
    async with plane.database.transaction() as session:
        await seed(session, accounts=[], addresses=ADDRESSES)
    return plane


async def create(plane: Plane, account: pb.Account, account_id: str = "main") -> pb.Account:
    request = pb.CreateAccountRequest(account_id=account_id, account=account)
    created: pb.Account = await plane.call(request)
    return created


async def test_a_vertex_account_has_all_that_was_said(plane: Plane) -> None:
    """Its address is the one named as its kind; limits come back in one order, whatever order they were sent in."""
    await seeded(plane)
    await plane.tenant("acme")
    sent = [spend(50), limit(TOKENS, 1_000_000, "gemini-3.8-flash"), limit()]
    account = vertex(egress="hong-kong", tenant="tenants/acme", environment=pb.Account.ENVIRONMENT_TEST, limits=sent)

    created = await create(plane, account)
    read = await plane.call(pb.GetAccountRequest(name="accounts/main"))
    listed = await plane.call(pb.ListAccountsRequest())

    assert (created.endpoint, created.egress, created.tenant) == ("vertex", "hong-kong", "tenants/acme")
    assert (created.upstream, created.environment) == (pb.Account.UPSTREAM_VERTEX, pb.Account.ENVIRONMENT_TEST)
    assert list(created.limits) == [sent[2], sent[1], sent[0]]
    assert created == read == listed.accounts[0]


async def test_limits_are_changed_as_a_whole_and_count_as_a_new_version(plane: Plane) -> None:
    """The etag changes with them and not without; other fields stay, and the trail has both states."""
    created = await create(plane, pb.Account(region="us", limits=[limit(), spend(10)]))
    more = pb.Account(name=created.name, etag=created.etag, limits=[limit(amount=900)])
    masked = FieldMask(paths=["limits"])

    changed = await plane.call(pb.UpdateAccountRequest(account=more, update_mask=masked))
    same = await plane.call(pb.UpdateAccountRequest(account=pb.Account(name=created.name, limits=more.limits)))
    emptied = await plane.call(pb.UpdateAccountRequest(account=pb.Account(name=created.name), update_mask=masked))

    async with plane.database.transaction() as session:
        [event] = [one for one in await list_events(session, "platform") if (one.before or {}).get("etag") == "v1"]
    assert list(changed.limits) == [limit(amount=900)]
    assert [changed.etag, same.etag, emptied.etag] == ["v2", "v2", "v3"]
    assert (emptied.region, list(emptied.limits)) == ("us", [])
    assert (len((event.before or {})["limits"]), len((event.after or {})["limits"])) == (2, 1)
    with pytest.raises(EtagMismatch):
        await plane.call(pb.UpdateAccountRequest(account=more, update_mask=masked))


async def test_a_mask_changes_one_field_or_clears_it(plane: Plane) -> None:
    """What the mask does not name stays as it is."""
    await create(plane, vertex(egress="hong-kong", limits=[limit()]))
    name = "accounts/main"

    live = pb.Account(name=name, environment=pb.Account.ENVIRONMENT_LIVE)
    changed = await plane.call(pb.UpdateAccountRequest(account=live))
    cleared = await plane.call(
        pb.UpdateAccountRequest(account=pb.Account(name=name), update_mask=FieldMask(paths=["egress", "environment"]))
    )

    assert (changed.environment, changed.egress) == (pb.Account.ENVIRONMENT_LIVE, "hong-kong")
    assert (cleared.environment, cleared.egress) == (pb.Account.ENVIRONMENT_UNSPECIFIED, "")
    assert list(cleared.limits) == [limit()]
    with pytest.raises(InvalidRequest, match=r"account\.region"):
        await plane.call(
            pb.UpdateAccountRequest(account=pb.Account(name=name), update_mask=FieldMask(paths=["region"]))
        )
    with pytest.raises(InvalidRequest, match="update_mask: 'upstream' cannot be changed"):
        await plane.call(
            pb.UpdateAccountRequest(account=pb.Account(name=name), update_mask=FieldMask(paths=["upstream"]))
        )


@pytest.mark.parametrize(
    ("account", "field"),
    [
        (vertex(region=""), "account.region"),
        (vertex(google_project=""), "account.google_project"),
        (vertex(endpoint="gemini_api"), "account.endpoint"),
        (vertex(egress="elsewhere"), "account.egress"),
        (pb.Account(upstream=pb.Account.UPSTREAM_OPENAI_COMPATIBLE), "account.endpoint"),
        (pb.Account(tenant="acme"), "account.tenant"),
        (pb.Account(limits=[limit(), limit(amount=0)]), r"account.limits\[1\].amount"),
        (pb.Account(limits=[limit(amount=-1)]), r"account.limits\[0\].amount"),
        (pb.Account(limits=[limit(SPEND)]), r"account.limits\[0\].amount.money"),
        (pb.Account(limits=[pb.AccountLimit(metric=REQUESTS, amount=spend(1).amount)]), "amount.units"),
        (pb.Account(limits=[limit(), limit(amount=2)]), r"account.limits\[1\]: repeats"),
        (pb.Account(limits=[limit(model="gemini-9")]), r"account.limits\[0\].model"),
    ],
)
async def test_a_wrong_account_is_refused_by_its_field(plane: Plane, account: pb.Account, field: str) -> None:
    """Nothing of it is stored."""
    with pytest.raises(InvalidRequest, match=field):
        await create(plane, account)

    with pytest.raises(ResourceNotFound):
        await plane.call(pb.GetAccountRequest(name="accounts/main"))


async def test_a_tenants_own_account_needs_the_tenant(plane: Plane) -> None:
    """One that never was, or was deleted, owns nothing."""
    await plane.tenant("gone")
    await plane.call(tenants_pb2.DeleteTenantRequest(name="tenants/gone"))

    for tenant in ("nobody", "gone"):
        with pytest.raises(ResourceNotFound, match=f"tenants/{tenant}"):
            await create(plane, pb.Account(tenant=f"tenants/{tenant}"))
