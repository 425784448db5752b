"""Temporary increases: one asks, another decides, time ends them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tollhouse.admin.v1 import limit_increases_pb2 as pb
from tollhouse.admin.v1 import limits_pb2
from tollhouse_server.api.services.limit_increases_service import LONGEST
from tollhouse_server.audit.store import list_events
from tollhouse_server.errors import (
    InvalidRequest,
    ResourceExists,
    ResourceNotFound,
    WrongState,
)

from tests.drivers.postgres import TestDatabase
from tests.integration.admin.increases import NAME, SALES, STEPS, asked, effective, moment, ready
from tests.integration.admin.limits import count, create, dollars, ledger_of, put_counters
from tests.integration.admin.plane import Plane

# --- from the request to the end --------------------------------------------------------------------------------------


async def test_an_approved_increase_raises_the_limit_until_it_is_revoked(plane: Plane) -> None:
    """Requested it changes nothing; the limit's own amount stays what it is."""
    ann = await ready(plane)

    requested = await plane.call(asked(), key=ann)
    before = await effective(plane)
    approved = await plane.call(pb.ApproveLimitIncreaseRequest(name=NAME, decision_reason="fine"))
    during = await effective(plane)
    revoked = await plane.call(pb.RevokeLimitIncreaseRequest(name=NAME))

    assert (requested.state, requested.requester) == (pb.LimitIncrease.STATE_REQUESTED, "tenants/acme/principals/ann")
    assert (requested.scope, requested.decider, requested.HasField("decide_time")) == (SALES, "", False)
    assert (approved.state, approved.decision_reason) == (pb.LimitIncrease.STATE_APPROVED, "fine")
    assert approved.decider == "tenants/platform/principals/administrator"
    assert revoked.state == pb.LimitIncrease.STATE_REVOKED
    assert (before, during, await effective(plane)) == (dollars(100), dollars(150), dollars(100))


async def test_increases_that_run_at_once_add_up_and_end_by_themselves(
    plane: Plane, fresh_database: TestDatabase
) -> None:
    """One that starts later does not count yet, one that is over does not count any more."""
    ann = await ready(plane)
    for increase, fields in (
        ("now", {"amount": dollars(1)}),
        ("started", {"amount": dollars(2), "start_time": moment(timedelta(hours=-1))}),
        ("later", {"amount": dollars(4), "start_time": moment(timedelta(hours=1))}),
        ("over", {"amount": dollars(8)}),
    ):
        await plane.call(asked(increase, **fields), key=ann)
        await plane.call(pb.ApproveLimitIncreaseRequest(name=f"tenants/acme/limitIncreases/{increase}"))
    async with ledger_of(fresh_database.root_dsn) as connection:
        await connection.execute("UPDATE limit_increase SET expires_at = now() WHERE increase_id = 'over'")

    over = await plane.call(pb.GetLimitIncreaseRequest(name="tenants/acme/limitIncreases/over"))

    assert await effective(plane) == dollars(103)
    assert over.state == pb.LimitIncrease.STATE_EXPIRED


async def test_every_step_is_in_the_trail(plane: Plane) -> None:
    """Who, by which permission, from which state to which."""
    ann = await ready(plane)
    await plane.call(asked(), key=ann)
    await plane.call(pb.ApproveLimitIncreaseRequest(name=NAME))
    await plane.call(pb.RevokeLimitIncreaseRequest(name=NAME))

    async with plane.database.transaction() as session:
        trail = [event for event in await list_events(session, "acme") if event.resource == NAME]

    assert [event.permission for event in trail] == [
        f"limitIncreases.{one}" for one in ("request", "approve", "revoke")
    ]
    assert [event.actor.rsplit("/", 1)[1] for event in trail] == ["ann", "administrator", "administrator"]
    states = [((event.before or {}).get("state"), (event.after or {}).get("state")) for event in trail]
    assert states == [
        (None, "STATE_REQUESTED"),
        ("STATE_REQUESTED", "STATE_APPROVED"),
        ("STATE_APPROVED", "STATE_REVOKED"),
    ]


async def test_a_count_is_raised_by_a_count(plane: Plane) -> None:
    """The unit is that of the limit."""
    await plane.tenant("acme")
    await create(plane, metric=limits_pb2.LIMIT_METRIC_CONCURRENCY, amount=count(5), window=0)

    with pytest.raises(InvalidRequest, match=r"amount\.units"):
        await plane.call(asked())
    raised = await plane.call(asked(amount=count(3)))

    assert raised.amount == count(3)


async def test_approving_and_revoking_have_the_next_alert_worked_out_anew(
    plane: Plane, fresh_database: TestDatabase
) -> None:
    """And tell every server to read the limits again; asking and rejecting change no limit."""
    ann = await ready(plane)
    async with ledger_of(fresh_database.root_dsn) as connection:
        await put_counters(connection, "cap", [(datetime(2026, 11, 1, tzinfo=UTC), 0, 7, 0)], alert_at=40)
        seen = []

        for message in (
            *(asked(), asked("second"), pb.RejectLimitIncreaseRequest(name="tenants/acme/limitIncreases/second")),
            *(pb.ApproveLimitIncreaseRequest(name=NAME), pb.RevokeLimitIncreaseRequest(name=NAME)),
        ):
            epoch = await connection.fetchval("SELECT value FROM epoch WHERE topic = 'limits'")
            await plane.call(message, key=ann if isinstance(message, pb.RequestLimitIncreaseRequest) else None)
            moved = await connection.fetchval("SELECT value FROM epoch WHERE topic = 'limits'") - epoch
            seen.append((moved, await connection.fetchval("UPDATE counter SET alert_at = 40 RETURNING old.alert_at")))

    assert seen == [(0, 40), (0, 40), (0, 40), (1, 0), (1, 0)]


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"reason": ""}, "reason"),
        ({"reason": " \n"}, "reason"),
        ({"reason": "a\0b"}, "NUL"),
        ({"amount": dollars(0)}, "amount.*more than zero"),
        ({"amount": dollars(-5)}, "amount.*negative"),
        ({"amount": limits_pb2.LimitAmount()}, "amount.money"),
        ({"amount": dollars(9_223_372_036)}, "amount.*counted"),
        ({"expire_time": None}, "expire_time.*required"),
        ({"expire_time": moment(timedelta(seconds=-1))}, "expire_time.*future"),
        ({"expire_time": moment(LONGEST + timedelta(days=1))}, "expire_time.*400 days"),
        ({"start_time": moment(timedelta(days=8))}, "start_time.*before the expiry"),
        ({"limit": "tenants/bolt/limits/cap"}, "limit_increase.limit.*tenant"),
        ({"limit": "tenants/acme/limits/-"}, "limit_increase.limit"),
    ],
)
async def test_a_request_that_makes_no_sense_is_refused(plane: Plane, fields: dict[str, Any], problem: str) -> None:
    """The error names the field."""
    await ready(plane)

    with pytest.raises(InvalidRequest, match=problem):
        await plane.call(asked(**fields))


async def test_a_request_needs_a_limit_and_an_id_of_its_own(plane: Plane) -> None:
    """A deleted limit cannot be raised, whether it is asked for before or after."""
    ann = await ready(plane)
    await plane.call(asked(), key=ann)

    with pytest.raises(ResourceExists):
        await plane.call(asked())
    with pytest.raises(ResourceNotFound, match="limits/none"):
        await plane.call(asked("other", limit="tenants/acme/limits/none"))
    await plane.call(limits_pb2.DeleteLimitRequest(name="tenants/acme/limits/cap"))
    with pytest.raises(ResourceNotFound, match="limits/cap"):
        await plane.call(pb.ApproveLimitIncreaseRequest(name=NAME))
    assert (await plane.call(pb.RejectLimitIncreaseRequest(name=NAME))).state == pb.LimitIncrease.STATE_REJECTED


@pytest.mark.parametrize(
    ("taken", "refused"),
    [
        (None, ("revoke",)),
        ("approve", ("approve", "reject", "withdraw")),
        ("reject", tuple(STEPS)),
        ("withdraw", tuple(STEPS)),
        ("expire", tuple(STEPS)),
    ],
)
async def test_a_step_that_does_not_lead_on_is_refused(
    plane: Plane, fresh_database: TestDatabase, taken: str | None, refused: tuple[str, ...]
) -> None:
    """What is decided or over stays so; only what is approved can be revoked."""
    ann = await ready(plane)
    await plane.call(asked(), key=ann)
    if taken == "expire":
        async with ledger_of(fresh_database.root_dsn) as connection:
            await connection.execute("UPDATE limit_increase SET expires_at = now()")
    elif taken is not None:
        await plane.call(STEPS[taken](name=NAME), key=ann if taken == "withdraw" else None)

    for step in refused:
        with pytest.raises(WrongState):
            await plane.call(STEPS[step](name=NAME), key=ann if step == "withdraw" else None)


# --- lists ------------------------------------------------------------------------------------------------------------


async def test_increases_are_listed_the_newest_first_page_by_page(plane: Plane, fresh_database: TestDatabase) -> None:
    """By limit and by the state that they have now."""
    ann = await ready(plane)
    await create(plane, "other")
    for number in range(5):
        limit = "tenants/acme/limits/other" if number == 4 else "tenants/acme/limits/cap"
        await plane.call(asked(f"li-{number}", limit=limit), key=ann)
    await plane.call(pb.ApproveLimitIncreaseRequest(name="tenants/acme/limitIncreases/li-1"))
    async with ledger_of(fresh_database.root_dsn) as connection:
        await connection.execute("UPDATE limit_increase SET expires_at = now() WHERE increase_id IN ('li-2', 'li-3')")

    async def listed(**narrowed: Any) -> list[str]:
        request = pb.ListLimitIncreasesRequest(parent="tenants/acme", page_size=2, **narrowed)
        found: list[str] = []
        while True:
            page = await plane.call(request)
            found += [one.name[-1] for one in page.limit_increases]
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return found

    state = pb.LimitIncrease.State
    assert await listed() == ["4", "3", "2", "1", "0"]
    assert await listed(limit="tenants/acme/limits/cap") == ["3", "2", "1", "0"]
    assert await listed(state=state.STATE_EXPIRED) == ["3", "2"]
    assert await listed(state=state.STATE_REQUESTED) == ["4", "0"]
    assert await listed(state=state.STATE_APPROVED) == ["1"]
    assert await listed(state=state.STATE_REJECTED) == []
    assert await listed(scope="tenants/acme") == []
