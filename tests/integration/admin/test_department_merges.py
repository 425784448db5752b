"""Merges of departments: what moves, what stays, what is refused, on a real PostgreSQL."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tollhouse.admin.v1 import data_policies_pb2, limits_pb2, projects_pb2, roles_pb2, routing_policies_pb2
from tollhouse.admin.v1 import departments_pb2 as pb
from tollhouse_server.api.department_moves import DueMoves
from tollhouse_server.database.rows import run_sql
from tollhouse_server.errors import MergeObstructed, PermissionDenied, ResourceInUse, ResourceNotFound, WrongState
from tollhouse_server.names import ProjectName
from tollhouse_server.tenancy.store import active_project_path

from tests.integration.admin.plane import Plane

ACME = "tenants/acme"
SALES, EMEA, LABS = (f"{ACME}/departments/{short}" for short in ("sales", "emea", "labs"))
TRANSFER, END = pb.MERGED_LIMITS_TRANSFER, pb.MERGED_LIMITS_END
STATE = pb.DepartmentMove


@pytest.fixture
async def acme(plane: Plane) -> Plane:
    """Tenant acme with sales > emea (project crm), and labs."""
    plane.watch.before_reading(DueMoves(plane.database).carry_out)
    await plane.tenant("acme")
    await plane.call(pb.CreateDepartmentRequest(parent=ACME, department_id="labs"))
    await plane.call(projects_pb2.CreateProjectRequest(parent=SALES, project_id="shop"))
    return plane


async def limit(plane: Plane, limit_id: str, scope: str) -> limits_pb2.Limit:
    """Make a limit of five requests a day."""
    made = limits_pb2.Limit(
        scope=scope,
        metric=limits_pb2.LIMIT_METRIC_REQUESTS,
        window=limits_pb2.LIMIT_WINDOW_DAY,
        amount=limits_pb2.LimitAmount(units=5),
    )
    answer: limits_pb2.Limit = await plane.call(
        limits_pb2.CreateLimitRequest(parent=ACME, limit_id=limit_id, limit=made)
    )
    return answer


def merge(name: str, into: str, *, after: timedelta | None = None, **fields: Any) -> pb.MergeDepartmentRequest:
    """Build a request; `after` counts from now."""
    request = pb.MergeDepartmentRequest(name=name, into_department=into, **fields)
    if after is not None:
        request.effective_time.FromDatetime(datetime.now(UTC) + after)
    return request


async def department(plane: Plane, name: str) -> pb.Department:
    """Read one."""
    found: pb.Department = await plane.call(pb.GetDepartmentRequest(name=name))
    return found


async def when_due(plane: Plane) -> None:
    """Let the time of what is scheduled have come, and a server read the epochs."""
    async with plane.database.transaction() as session:
        await run_sql(session, "UPDATE department_move SET effective_at = now() WHERE state = 'SCHEDULED'")
    await plane.watch.refresh()


async def test_a_merge_moves_what_is_in_a_department_and_ends_it(acme: Plane) -> None:
    """Departments and projects are in the other one; the merged one says where its contents are."""
    answer = await acme.call(merge(SALES, LABS))

    merged = await department(acme, SALES)
    assert (merged.state, merged.merged_into) == (pb.Department.STATE_MERGED, LABS)
    assert list((await department(acme, EMEA)).path) == [LABS, EMEA]
    shop = await acme.call(projects_pb2.GetProjectRequest(name=f"{LABS}/projects/shop"))
    assert shop.name == f"{LABS}/projects/shop"
    move = answer.move
    assert (move.kind, move.state, move.parent_department) == (STATE.KIND_MERGE, STATE.STATE_APPLIED, LABS)
    assert (move.department_count, move.project_count) == (2, 2)
    listed = await acme.call(pb.ListDepartmentsRequest(parent=ACME))
    assert [one.name for one in listed.departments] == [EMEA, LABS]


async def test_old_names_of_projects_still_find_them(acme: Plane) -> None:
    """To read and to call, through any number of merges; nothing is written under them."""
    await acme.call(pb.CreateDepartmentRequest(parent=ACME, department_id="research"))
    await acme.call(merge(SALES, LABS))
    await acme.call(merge(LABS, f"{ACME}/departments/research"))

    for short in ("sales", "labs", "research"):
        old = f"{ACME}/departments/{short}/projects/shop"
        found = await acme.call(projects_pb2.GetProjectRequest(name=old))
        assert found.name == f"{ACME}/departments/research/projects/shop"
        async with acme.database.transaction() as session:
            assert await active_project_path(session, ProjectName("acme", short, "shop")) == ("research",)
    assert (await department(acme, SALES)).merged_into == f"{ACME}/departments/research"
    with pytest.raises(ResourceNotFound):
        await limit(acme, "under-an-old-name", f"{SALES}/projects/shop")


async def test_limits_of_projects_go_with_them(acme: Plane) -> None:
    """The same limit with what it has counted, under the project's new name."""
    before = await limit(acme, "of-shop", f"{SALES}/projects/shop")

    await acme.call(merge(SALES, LABS))

    after = await acme.call(limits_pb2.GetLimitRequest(name=before.name))
    assert (after.scope, after.current) == (f"{LABS}/projects/shop", before.current)


async def test_limits_of_the_department_itself_never_vanish_in_silence(acme: Plane) -> None:
    """Somebody says what becomes of them, or the merge is refused."""
    own = await limit(acme, "of-sales", SALES)

    with pytest.raises(MergeObstructed, match="limits/of-sales"):
        await acme.call(merge(SALES, LABS))
    planned = await acme.call(merge(SALES, LABS, limit_policy=END, validate_only=True))

    assert planned.move.own_limit_count == 1
    assert (await acme.call(limits_pb2.GetLimitRequest(name=own.name))).scope == SALES


async def test_transferred_limits_bind_the_other_department_and_ended_ones_nobody(acme: Plane) -> None:
    """As the request says."""
    await limit(acme, "of-sales", SALES)
    await limit(acme, "of-emea", EMEA)

    await acme.call(merge(EMEA, LABS, limit_policy=END))
    await acme.call(merge(SALES, LABS, limit_policy=TRANSFER))

    listed = await acme.call(limits_pb2.ListLimitsRequest(parent=ACME))
    assert [(one.name, one.scope) for one in listed.limits] == [(f"{ACME}/limits/of-sales", LABS)]


async def test_a_routing_policy_of_its_own_stands_against_a_merge(shop: Plane) -> None:
    """Where data may go must not change because an organisation chart does."""
    await shop.tenant("acme")
    await shop.call(pb.CreateDepartmentRequest(parent=ACME, department_id="labs"))
    policy = routing_policies_pb2.RoutingPolicy(
        name=f"{SALES}/routingPolicy", allowed_tiers=routing_policies_pb2.NameList(names=["flash"])
    )
    await shop.call(routing_policies_pb2.UpdateRoutingPolicyRequest(routing_policy=policy))

    with pytest.raises(MergeObstructed, match="routing policy"):
        await shop.call(merge(SALES, LABS))


async def test_a_data_policy_of_its_own_stands_against_a_merge(acme: Plane) -> None:
    """What must not leave a department must not leave it as a part of another one either."""
    rule = data_policies_pb2.DataRule(detectors=["EMAIL"], action=data_policies_pb2.DATA_ACTION_BLOCK)
    policy = data_policies_pb2.DataPolicy(name=f"{SALES}/dataPolicy", rules=[rule])
    await acme.call(data_policies_pb2.UpdateDataPolicyRequest(data_policy=policy))

    with pytest.raises(MergeObstructed, match="data policy"):
        await acme.call(merge(SALES, LABS))


async def test_nobody_may_more_or_less_after_a_merge(acme: Plane) -> None:
    """Who had the department has what moved, not what was in the other one; who had a project has it."""
    await acme.call(projects_pb2.CreateProjectRequest(parent=LABS, project_id="lasers"))
    of_sales = await acme.key("acme", "seller", ("department-admin", SALES))
    of_shop = await acme.key("acme", "keeper", ("read-only", f"{SALES}/projects/shop"))

    await acme.call(merge(SALES, LABS))
    await acme.watch.refresh()

    for key in (of_sales, of_shop):
        for short in ("sales", "labs"):
            name = f"{ACME}/departments/{short}/projects/shop"
            assert (await acme.call(projects_pb2.GetProjectRequest(name=name), key=key)).name.startswith(LABS)
        for short in ("sales", "labs"):
            with pytest.raises(PermissionDenied):
                name = f"{ACME}/departments/{short}/projects/lasers"
                await acme.call(projects_pb2.GetProjectRequest(name=name), key=key)
    await acme.call(pb.GetDepartmentRequest(name=EMEA), key=of_sales)


async def test_a_merge_comes_at_its_time_and_can_be_cancelled_before(acme: Plane) -> None:
    """It is a move like any other: in the list, made when it is due, with what was foreseen."""
    cancelled = await acme.call(merge(EMEA, LABS, after=timedelta(days=3)))
    await acme.call(pb.CancelDepartmentMoveRequest(name=cancelled.move.name))
    await acme.call(merge(SALES, LABS, after=timedelta(days=3)))
    before = (await department(acme, SALES)).state

    await when_due(acme)

    listed = (await acme.call(pb.ListDepartmentMovesRequest(parent=ACME))).department_moves
    assert [one.state for one in listed] == [STATE.STATE_CANCELLED, STATE.STATE_APPLIED]
    assert before == pb.Department.STATE_ACTIVE
    assert (await department(acme, SALES)).merged_into == LABS
    with pytest.raises(WrongState):
        await acme.call(pb.CancelDepartmentMoveRequest(name=listed[1].name))


async def test_a_scheduled_merge_that_has_become_impossible_says_why(acme: Plane) -> None:
    """A limit that somebody has put on the department meanwhile is not dropped."""
    await acme.call(merge(SALES, LABS, after=timedelta(days=3)))
    await limit(acme, "of-sales", SALES)

    await when_due(acme)

    (failed,) = (await acme.call(pb.ListDepartmentMovesRequest(parent=ACME))).department_moves
    assert failed.state == STATE.STATE_FAILED
    assert "limits/of-sales" in failed.failure
    assert (await department(acme, SALES)).state == pb.Department.STATE_ACTIVE


@pytest.mark.parametrize(("name", "into"), [(SALES, SALES), (SALES, EMEA)])
@pytest.mark.parametrize("after", [None, timedelta(days=1)])
async def test_a_merge_into_itself_or_what_is_below_is_refused(
    acme: Plane, name: str, into: str, after: timedelta | None
) -> None:
    """Now and for a time to come."""
    with pytest.raises(ResourceInUse, match=r"cannot be put into (itself|.*emea, which lies below it); choose"):
        await acme.call(merge(name, into, after=after))


async def test_a_department_admin_cannot_merge(acme: Plane) -> None:
    """The tree belongs to the tenant."""
    key = await acme.key("acme", "seller", ("department-admin", SALES))

    with pytest.raises(PermissionDenied):
        await acme.call(merge(EMEA, SALES), key=key)


async def test_grants_on_the_merged_department_are_in_the_count(acme: Plane) -> None:
    """What a dry run shows is what a merge will make anew."""
    await acme.key("acme", "seller", ("department-admin", SALES))

    planned = await acme.call(merge(SALES, LABS, validate_only=True))

    grants = await acme.call(roles_pb2.ListRoleGrantsRequest(parent=ACME))
    assert (planned.move.own_role_grant_count, len(grants.role_grants)) == (1, 1)
