"""Nobody gives himself more: who asks and who approves are two, whoever is faster."""

import asyncio
from uuid import uuid4

import asyncpg
import pytest
from tollhouse.admin.v1 import api_keys_pb2
from tollhouse.admin.v1 import limit_increases_pb2 as pb
from tollhouse_server.audit.store import list_events
from tollhouse_server.errors import (
    EtagMismatch,
    PermissionDenied,
    RequesterOnly,
    ResourceNotFound,
    SecondPersonNeeded,
    WrongState,
)

from tests.drivers.postgres import TestDatabase
from tests.integration.admin.increases import EMEA, NAME, SALES, STEPS, asked, effective, ready
from tests.integration.admin.limits import create, dollars, ledger_of
from tests.integration.admin.plane import Plane

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

    async with ledger_of(fresh_database.root_dsn) as connection:
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
