"""Moves of departments at a date: scheduled, listed, cancelled, made or failed, on a real PostgreSQL."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tollhouse.admin.v1 import departments_pb2 as pb
from tollhouse.admin.v1 import limits_pb2
from tollhouse_server.access.authorizer import Authorizer
from tollhouse_server.api.department_moves import DueMoves
from tollhouse_server.audit.store import list_events
from tollhouse_server.audit.tables import AuditEventRow
from tollhouse_server.database.epochs import EpochWatch, Topic
from tollhouse_server.database.rows import run_sql
from tollhouse_server.errors import (
    EtagMismatch,
    InvalidRequest,
    PermissionDenied,
    ResourceExists,
    ResourceInUse,
    ResourceNotFound,
    WrongState,
)
from tollhouse_server.identity.directory import Directory
from tollhouse_server.identity.principal import Principal

from tests.integration.admin.plane import PATIENCE_SECONDS, PEPPER, Plane

ACME = "tenants/acme"
SOON = timedelta(seconds=0.8)
LATER = timedelta(seconds=1.5)
"""Late enough to be cancelled before, on a busy machine."""
STATE = pb.DepartmentMove


@pytest.fixture
async def acme(plane: Plane) -> Plane:
    """Tenant acme with sales > emea (project crm), and labs."""
    plane.watch.before_reading(DueMoves(plane.database).carry_out)
    await plane.tenant("acme")
    await plane.call(pb.CreateDepartmentRequest(parent=ACME, department_id="labs"))
    return plane


def department(short: str) -> str:
    """Return the full name."""
    return f"{ACME}/departments/{short}"


def move(short: str, to: str, *, after: timedelta | None = None, **fields: Any) -> pb.MoveDepartmentRequest:
    """Build a request; `after` counts from now."""
    request = pb.MoveDepartmentRequest(name=department(short), parent_department=department(to) if to else "", **fields)
    if after is not None:
        request.effective_time.FromDatetime(datetime.now(UTC) + after)
    return request


async def path_of(plane: Plane, short: str) -> str:
    """Return a department's path as ids."""
    found = await plane.call(pb.GetDepartmentRequest(name=department(short)))
    return ".".join(name.rsplit("/", 1)[1] for name in found.path)


async def moves_of(plane: Plane, **fields: Any) -> list[pb.DepartmentMove]:
    """Return the tenant's moves as they are listed."""
    return list((await plane.call(pb.ListDepartmentMovesRequest(parent=ACME, **fields))).department_moves)


async def events_of(plane: Plane) -> list[AuditEventRow]:
    """Return the trail of acme."""
    async with plane.database.transaction() as session:
        return await list_events(session, "acme", size=1000)


async def test_a_scheduled_move_is_made_when_it_is_due_and_not_before(acme: Plane) -> None:
    """It is a resource meanwhile; when it has been made, list, tree and trail say so."""
    answer = await acme.call(move("sales", "labs", after=SOON))
    before = await path_of(acme, "emea")
    await acme.watch.refresh()
    still = await path_of(acme, "emea")
    await asyncio.sleep(SOON.total_seconds() + 0.05)

    await acme.watch.refresh()

    (made,) = await moves_of(acme)
    assert answer.move.state == STATE.STATE_SCHEDULED
    assert (before, still, await path_of(acme, "emea")) == ("sales.emea", "sales.emea", "labs.sales.emea")
    assert (made.name, made.state) == (answer.move.name, STATE.STATE_APPLIED)
    assert made.end_time.ToDatetime() >= made.effective_time.ToDatetime() == answer.move.effective_time.ToDatetime()
    scheduled, carried_out = (await events_of(acme))[-2:]
    assert (scheduled.resource, carried_out.resource) == (department("sales"), made.name)
    assert carried_out.actor == scheduled.actor == made.creator
    assert carried_out.before is not None
    assert carried_out.after is not None
    assert (carried_out.before["state"], carried_out.after["state"]) == ("STATE_SCHEDULED", "STATE_APPLIED")


async def test_a_dry_run_shows_paths_and_counts_and_schedules_nothing(acme: Plane) -> None:
    """Departments and projects that move, limits that no longer count them, limits that begin to."""
    for number, scope in enumerate((ACME, department("sales"), department("labs"), department("labs"))):
        limit = limits_pb2.Limit(
            scope=scope,
            metric=limits_pb2.LIMIT_METRIC_REQUESTS,
            window=limits_pb2.LIMIT_WINDOW_DAY,
            mode=limits_pb2.LIMIT_MODE_STRICT,
            amount=limits_pb2.LimitAmount(units=5),
        )
        await acme.call(limits_pb2.CreateLimitRequest(parent=ACME, limit_id=f"limit-{number}", limit=limit))

    answer = await acme.call(move("emea", "labs", after=timedelta(days=3), validate_only=True))

    assert list(answer.path) == [department("sales"), department("emea")]
    assert list(answer.move.path_before) == [department("sales"), department("emea")]
    assert list(answer.move.path_after) == [department("labs"), department("emea")]
    counts = (answer.move.department_count, answer.move.project_count)
    assert (*counts, answer.move.left_limit_count, answer.move.joined_limit_count) == (1, 1, 1, 2)
    assert await moves_of(acme) == []


async def test_a_move_at_once_is_in_the_list_too(acme: Plane) -> None:
    """The list is the history of the tree; a time just past means now."""
    await acme.call(move("emea", "labs"))
    answer = await acme.call(move("emea", "", after=-timedelta(seconds=30)))

    listed = await moves_of(acme, department=department("emea"))
    assert [one.state for one in listed] == [STATE.STATE_APPLIED] * 2
    assert listed[0] == answer.move
    assert await path_of(acme, "emea") == "emea"


@pytest.mark.parametrize("after", [-timedelta(minutes=2), timedelta(days=401)])
async def test_a_time_out_of_bounds_is_refused(acme: Plane, after: timedelta) -> None:
    """By the database's clock, with the field's name."""
    with pytest.raises(InvalidRequest, match="effective_time"):
        await acme.call(move("sales", "labs", after=after))

    assert await moves_of(acme) == []


async def test_a_time_that_no_calendar_has_is_refused(acme: Plane) -> None:
    """A timestamp of the year 30000 is nonsense, not a crash."""
    request = pb.MoveDepartmentRequest(name=department("sales"), effective_time=Timestamp(seconds=900_000_000_000))

    with pytest.raises(InvalidRequest, match="effective_time"):
        await acme.call(request)


async def test_what_cannot_be_is_refused_when_it_is_scheduled(acme: Plane) -> None:
    """A parent that is not there, a parent below, a department that is not there, the same moment twice."""
    day = timedelta(days=1)
    taken = move("emea", "labs", after=day)
    await acme.call(taken)
    again = pb.MoveDepartmentRequest(name=department("emea"), effective_time=taken.effective_time)

    for request, error in (
        (move("sales", "none", after=day), ResourceNotFound),
        (move("none", "sales", after=day), ResourceNotFound),
        (move("sales", "emea", after=-timedelta(seconds=1)), ResourceInUse),
        (move("sales", "sales", after=day), ResourceInUse),
        (again, ResourceExists),
    ):
        with pytest.raises(error):
            await acme.call(request)


async def test_a_plan_of_several_moves_is_checked_against_the_tree_of_its_day(acme: Plane) -> None:
    """What an earlier move makes possible may be scheduled after it, and what it makes impossible may not."""
    await acme.call(move("emea", "labs", after=timedelta(days=1)))

    later = await acme.call(move("sales", "emea", after=timedelta(days=2)))

    names = [name.rsplit("/", 1)[1] for name in later.move.path_after]
    assert names == ["labs", "emea", "sales"]
    with pytest.raises(ResourceInUse):
        await acme.call(move("labs", "emea", after=timedelta(days=2)))


async def test_a_move_that_has_become_impossible_fails_with_its_reason(acme: Plane) -> None:
    """The new parent was deleted meanwhile: the tree stays, the list and the trail say why."""
    scheduled = (await acme.call(move("sales", "labs", after=SOON))).move
    await acme.call(pb.DeleteDepartmentRequest(name=department("labs")))
    await asyncio.sleep(SOON.total_seconds() + 0.05)

    await acme.watch.refresh()

    (failed,) = await moves_of(acme, state=STATE.STATE_FAILED)
    assert failed.name == scheduled.name
    assert failed.failure == f"{department('labs')} had been deleted or merged by then."
    assert await path_of(acme, "emea") == "sales.emea"
    event = (await events_of(acme))[-1]
    assert event.resource == scheduled.name
    assert event.after is not None
    assert event.after["failure"] == failed.failure


async def test_a_move_that_would_close_a_ring_by_then_fails(acme: Plane) -> None:
    """Someone has moved the parent below the department since."""
    await acme.call(move("sales", "labs", after=SOON))
    await acme.call(move("labs", "emea"))
    await asyncio.sleep(SOON.total_seconds() + 0.05)

    await acme.watch.refresh()

    (failed,) = await moves_of(acme, state=STATE.STATE_FAILED)
    assert failed.failure.startswith(f"{department('labs')} was {department('sales')} itself or below it by then")
    assert await path_of(acme, "labs") == "sales.emea.labs"


async def test_a_cancelled_move_is_not_made(acme: Plane) -> None:
    """It stays in the list; a second cancellation and one of a made move are refused."""
    scheduled = (await acme.call(move("sales", "labs", after=LATER))).move
    made = (await acme.call(move("emea", "labs"))).move

    cancelled = await acme.call(pb.CancelDepartmentMoveRequest(name=scheduled.name, etag=scheduled.etag))

    await asyncio.sleep(LATER.total_seconds() + 0.05)
    await acme.watch.refresh()
    assert cancelled.state == STATE.STATE_CANCELLED
    assert await path_of(acme, "sales") == "sales"
    assert await acme.call(pb.GetDepartmentMoveRequest(name=scheduled.name)) == cancelled
    for name in (scheduled.name, made.name):
        with pytest.raises(WrongState):
            await acme.call(pb.CancelDepartmentMoveRequest(name=name))
    with pytest.raises(EtagMismatch):
        await acme.call(pb.CancelDepartmentMoveRequest(name=made.name, etag="v9"))


async def test_a_move_that_is_due_is_not_cancelled_any_more(acme: Plane) -> None:
    """Calls may be counted by it already, though nobody has looked yet."""
    scheduled = (await acme.call(move("sales", "labs", after=SOON))).move
    await asyncio.sleep(SOON.total_seconds() + 0.05)

    with pytest.raises(WrongState, match="due"):
        await acme.call(pb.CancelDepartmentMoveRequest(name=scheduled.name))


async def test_a_repeated_request_schedules_once(acme: Plane) -> None:
    """The same request id is answered with the first outcome."""
    request = move("sales", "labs", after=timedelta(days=1), request_id=str(uuid4()))

    first, second = await acme.call(request), await acme.call(request)

    assert first == second
    assert len(await moves_of(acme)) == 1


async def test_moves_are_made_in_the_order_of_their_times(acme: Plane) -> None:
    """Also when nobody came to them in time, and a later one is made at once before anyone looks."""
    first, second = datetime.now(UTC) + timedelta(seconds=0.6), datetime.now(UTC) + timedelta(seconds=0.8)
    for to, at in (("", second), ("labs", first)):
        request = move("emea", to)
        request.effective_time.FromDatetime(at)
        await acme.call(request)
    await asyncio.sleep((second - datetime.now(UTC)).total_seconds() + 0.05)

    await acme.call(move("labs", "sales"))

    ends = [(one.effective_time.ToDatetime(), one.end_time.ToDatetime()) for one in await moves_of(acme)]
    assert await path_of(acme, "emea") == "emea"
    assert sorted(ends) == sorted(ends, key=lambda pair: pair[1])
    assert len(await moves_of(acme, state=STATE.STATE_APPLIED)) == 3


async def test_rights_along_the_tree_change_in_the_same_step_as_paths(acme: Plane) -> None:
    """Ann's grant on labs reaches emea from the move on, Bob's on sales until then, and so do the paths of calls."""
    project = f"{department('emea')}/projects/crm"
    ann = await acme.key("acme", "ann", ("department-admin", department("labs")))
    bob = await acme.key("acme", "bob", ("department-admin", department("sales")))
    caller = await acme.key("acme", "caller", ("caller", project), project=project)
    watch = EpochWatch(acme.database)
    directory = Directory(acme.database, watch, PEPPER)
    # Whatever takes long to load between the two must not part them.
    watch.on_change(Topic.IDENTITY, partial(asyncio.sleep, 0.05))
    authorizer = Authorizer(acme.database, watch)
    seen: set[tuple[bool, bool, tuple[str, ...]]] = set()

    async def look() -> None:
        people = [
            await directory.authenticate(f"Bearer {key}", patience_seconds=PATIENCE_SECONDS)
            for key in (ann, bob, caller)
        ]
        rights = [allows(authorizer, person, project) for person in people[:2]]
        seen.add((rights[0], rights[1], people[2].department_ids))
        await asyncio.sleep(0)

    await watch.refresh()
    await look()
    await acme.call(move("emea", "labs"))
    refreshing = asyncio.create_task(watch.refresh())
    while not refreshing.done():
        await look()
    await refreshing
    await look()

    assert seen == {(False, True, ("sales", "emea")), (True, False, ("labs", "emea"))}


def allows(authorizer: Authorizer, principal: Principal, project: str) -> bool:
    """Tell whether someone may change a project, by what the server knows now."""
    try:
        authorizer.require(principal, "projects.update", project)
    except PermissionDenied:
        return False
    return True


async def test_a_tenant_that_is_locked_does_not_keep_others_waiting(acme: Plane) -> None:
    """Its own move comes when the lock is gone; everyone else's, and the reading of the epochs, go on."""
    await acme.tenant("bolt")
    await acme.call(move("sales", "labs", after=SOON))
    for tenant in ("aaa", "zzz"):
        await acme.tenant(tenant)
        request = pb.MoveDepartmentRequest(name=f"tenants/{tenant}/departments/emea")
        request.effective_time.FromDatetime(datetime.now(UTC) + SOON)
        await acme.call(request)
    await asyncio.sleep(SOON.total_seconds() + 0.05)

    async with acme.database.transaction() as session:
        await run_sql(session, "SELECT 1 FROM tenant WHERE tenant_id = 'acme' FOR UPDATE")
        started_at = time.monotonic()
        await acme.watch.refresh()
        await acme.watch.refresh()
        seconds = time.monotonic() - started_at
        others = [
            (await acme.call(pb.GetDepartmentRequest(name=f"tenants/{tenant}/departments/emea"))).parent_department
            for tenant in ("aaa", "zzz")
        ]
        waiting = await path_of(acme, "sales")
    await acme.watch.refresh()

    assert others == ["", ""]
    assert waiting == "sales"
    assert seconds < 2.0
    assert await path_of(acme, "sales") == "labs.sales"


async def test_moves_are_listed_in_pages_without_gaps(acme: Plane) -> None:
    """The latest effective one first."""
    for days in (3, 1, 5, 2, 4):
        await acme.call(move("emea", "labs", after=timedelta(days=days)))

    found, token = [], ""
    while True:
        page = await acme.call(pb.ListDepartmentMovesRequest(parent=ACME, page_size=2, page_token=token))
        found += [one.effective_time.ToDatetime() for one in page.department_moves]
        token = page.next_page_token
        if not token:
            break

    assert len(found) == 5
    assert found == sorted(found, reverse=True)


async def test_only_who_may_move_departments_schedules_and_cancels(acme: Plane) -> None:
    """The permission is needed on the whole tenant, as for a move at once."""
    scheduled = (await acme.call(move("sales", "labs", after=timedelta(days=1)))).move
    key = await acme.key(
        "acme", "ann", ("department-admin", department("sales")), ("department-admin", department("labs"))
    )

    for request in (
        move("sales", "labs", after=timedelta(days=1)),
        pb.CancelDepartmentMoveRequest(name=scheduled.name),
        pb.ListDepartmentMovesRequest(parent=ACME),
    ):
        with pytest.raises(PermissionDenied):
            await acme.call(request, key=key)
