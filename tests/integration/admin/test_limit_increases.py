"""Temporary increases: one asks, another decides, time ends them."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tollhouse.admin.v1 import api_keys_pb2, limits_pb2
from tollhouse.admin.v1 import limit_increases_pb2 as pb
from tollhouse_server.api.services.limit_increases_service import LONGEST
from tollhouse_server.audit.store import list_events
from tollhouse_server.errors import (
    EtagMismatch,
    InvalidRequest,
    PermissionDenied,
    RequesterOnly,
    ResourceExists,
    ResourceNotFound,
    SecondPersonNeeded,
    WrongState,
)

from tests.drivers.postgres import TestDatabase
from tests.integration.admin.limits import count, create, dollars, ledger_of, put_counters
from tests.integration.admin.plane import Plane

NAME = "tenants/acme/limitIncreases/fair"
EMEA = "tenants/acme/departments/emea"
SALES = "tenants/acme/departments/sales"
STEPS = {
    "approve": pb.ApproveLimitIncreaseRequest,
    "reject": pb.RejectLimitIncreaseRequest,
    "withdraw": pb.WithdrawLimitIncreaseRequest,
    "revoke": pb.RevokeLimitIncreaseRequest,
}


def moment(from_now: timedelta) -> Timestamp:
    """A moment as it travels."""
    message = Timestamp()
    message.FromDatetime(datetime.now(UTC) + from_now)
    return message


def asked(increase_id: str = "fair", *, scope: str = "", **fields: Any) -> pb.RequestLimitIncreaseRequest:
    """A request for $50 more on limit `cap` for a week, or for what `fields` say."""
    given: dict[str, Any] = {
        "limit": "tenants/acme/limits/cap",
        "amount": dollars(50),
        "reason": "the fair in Hanover",
        "expire_time": moment(timedelta(days=7)),
    }
    return pb.RequestLimitIncreaseRequest(
        parent="tenants/acme",
        limit_increase_id=increase_id,
        scope=scope,
        limit_increase=pb.LimitIncrease(**{**given, **fields}),
    )


async def ready(plane: Plane) -> str:
    """Make a $100 limit on department sales, and return the key of Ann, who asks."""
    await plane.tenant("acme")
    await create(plane)
    return await plane.key("acme", "ann", ("tenant-admin", "tenants/acme"))


async def effective(plane: Plane) -> limits_pb2.LimitAmount:
    """Return the amount of limit `cap` in force."""
    limit = await plane.call(limits_pb2.GetLimitRequest(name="tenants/acme/limits/cap"))
    amount: limits_pb2.LimitAmount = limit.current.effective_amount
    return amount


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


# --- the second person ------------------------------------------------------------------------------------------------


async def test_nobody_approves_what_he_asked_for(plane: Plane) -> None:
    """Not with the key that he asked with, not with another one of his, and not in a dry run."""
    ann = await ready(plane)
    key = api_keys_pb2.ApiKey(principal="tenants/acme/principals/ann")
    other_key = (await plane.call(api_keys_pb2.CreateApiKeyRequest(parent="tenants/acme", api_key=key))).secret
    await plane.call(asked(), key=ann)

    for credential in (ann, other_key):
        for validate_only in (False, True):
            with pytest.raises(SecondPersonNeeded):
                request = pb.ApproveLimitIncreaseRequest(name=NAME, validate_only=validate_only)
                await plane.call(request, key=credential)

    read = await plane.call(pb.GetLimitIncreaseRequest(name=NAME))
    assert (read.state, await effective(plane)) == (pb.LimitIncrease.STATE_REQUESTED, dollars(100))


async def test_the_database_itself_wants_a_second_person(plane: Plane, fresh_database: TestDatabase) -> None:
    """Should the code ever forget."""
    await ready(plane)
    await plane.call(asked())

    async with ledger_of(fresh_database.app_dsn) as connection:
        with pytest.raises(asyncpg.CheckViolationError, match="limit_increase_second_person"):
            await connection.execute("UPDATE limit_increase SET state = 'APPROVED', decided_by = requested_by")


async def test_only_the_requester_withdraws(plane: Plane) -> None:
    """Whoever else wants it gone rejects it."""
    ann = await ready(plane)
    await plane.call(asked(), key=ann)

    with pytest.raises(RequesterOnly):
        await plane.call(pb.WithdrawLimitIncreaseRequest(name=NAME))
    withdrawn = await plane.call(pb.WithdrawLimitIncreaseRequest(name=NAME), key=ann)

    assert withdrawn.state == pb.LimitIncrease.STATE_WITHDRAWN


async def test_asking_and_approving_are_different_permissions(plane: Plane) -> None:
    """Who has one of them has not the other."""
    await ready(plane)
    asks = await plane.key("acme", "head", ("department-admin", SALES))
    approves = await plane.key("acme", "board", ("limit-approver", "tenants/acme"))

    with pytest.raises(PermissionDenied):
        await plane.call(asked(), key=approves)
    await plane.call(asked(scope=SALES), key=asks)
    for step in ("approve", "reject", "revoke"):
        with pytest.raises(PermissionDenied):
            await plane.call(STEPS[step](name=NAME, scope=SALES), key=asks)
    approved = await plane.call(pb.ApproveLimitIncreaseRequest(name=NAME), key=approves)

    assert approved.decider == "tenants/acme/principals/board"


async def test_a_permission_on_a_part_of_the_tree_is_good_for_limits_there(plane: Plane) -> None:
    """Named as the scope it must be the limit's own: of others nothing is told, not even that they are."""
    await ready(plane)
    await create(plane, "below", scope=EMEA)
    head = await plane.key("acme", "head", ("department-admin", EMEA))
    board = await plane.key("acme", "board", ("limit-approver", EMEA))
    await plane.call(asked())

    with pytest.raises(PermissionDenied):
        await plane.call(asked("mine"), key=head)
    with pytest.raises(ResourceNotFound):
        await plane.call(asked("mine", scope=EMEA), key=head)
    await plane.call(asked("mine", scope=EMEA, limit="tenants/acme/limits/below"), key=head)
    for request in (
        pb.GetLimitIncreaseRequest(name=NAME, scope=EMEA),
        pb.ApproveLimitIncreaseRequest(name=NAME, scope=EMEA),
    ):
        with pytest.raises(ResourceNotFound, match=f"{NAME} does not exist"):
            await plane.call(request, key=board)
    mine = "tenants/acme/limitIncreases/mine"
    approved = await plane.call(pb.ApproveLimitIncreaseRequest(name=mine, scope=EMEA), key=board)
    listed = await plane.call(pb.ListLimitIncreasesRequest(parent="tenants/acme", scope=EMEA), key=head)

    assert approved.state == pb.LimitIncrease.STATE_APPROVED
    assert [one.name for one in listed.limit_increases] == [mine]


# --- at once ----------------------------------------------------------------------------------------------------------


async def test_of_several_who_approve_at_once_one_does(plane: Plane) -> None:
    """The others meet an increase that is approved; it counts once, and the trail says so once."""
    ann = await ready(plane)
    people = [await plane.key("acme", f"board-{n}", ("limit-approver", "tenants/acme")) for n in range(5)]
    await plane.call(asked(), key=ann)

    outcomes = await asyncio.gather(
        *(plane.call(pb.ApproveLimitIncreaseRequest(name=NAME), key=key) for key in people), return_exceptions=True
    )

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["LimitIncrease", *["WrongState"] * 4]
    assert await effective(plane) == dollars(150)
    async with plane.database.transaction() as session:
        assert len([event for event in await list_events(session, "acme") if event.resource == NAME]) == 2


@pytest.mark.parametrize("other", ["withdraw", "reject"])
async def test_an_approval_and_what_excludes_it_do_not_both_happen(plane: Plane, other: str) -> None:
    """Whichever comes first holds; the other is refused; what counts is what is said."""
    ann = await ready(plane)
    total = 100

    for number in range(10):
        name = f"tenants/acme/limitIncreases/race-{number}"
        await plane.call(asked(f"race-{number}", amount=dollars(1)), key=ann)
        steps = [
            plane.call(pb.ApproveLimitIncreaseRequest(name=name)),
            plane.call(STEPS[other](name=name), key=ann if other == "withdraw" else None),
        ]
        outcomes = await asyncio.gather(*(steps if number % 2 else reversed(steps)), return_exceptions=True)

        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["LimitIncrease", "WrongState"]
        is_approved = any(getattr(one, "state", 0) == pb.LimitIncrease.STATE_APPROVED for one in outcomes)
        total += is_approved
        assert await effective(plane) == dollars(total)


async def test_what_is_decided_is_what_was_read(plane: Plane) -> None:
    """A step on an older version is refused."""
    ann = await ready(plane)
    requested = await plane.call(asked(), key=ann)
    approved = await plane.call(pb.ApproveLimitIncreaseRequest(name=NAME, etag=requested.etag))

    with pytest.raises(EtagMismatch):
        await plane.call(pb.RevokeLimitIncreaseRequest(name=NAME, etag=requested.etag))

    assert (await plane.call(pb.RevokeLimitIncreaseRequest(name=NAME, etag=approved.etag))).etag != approved.etag


async def test_a_repeated_approval_is_answered_and_not_done_again(plane: Plane) -> None:
    """By its request id; without one it is refused as too late."""
    ann = await ready(plane)
    await plane.call(asked(), key=ann)
    request = pb.ApproveLimitIncreaseRequest(name=NAME, request_id=str(uuid4()))

    first = await plane.call(request)
    again = await plane.call(request)

    assert first == again
    with pytest.raises(WrongState):
        await plane.call(pb.ApproveLimitIncreaseRequest(name=NAME))


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
