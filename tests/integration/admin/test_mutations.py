"""One transaction for the claim, the act, its audit row and its epochs."""

import asyncio
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from tollhouse.admin.v1 import tenants_pb2
from tollhouse_server.audit.store import list_events
from tollhouse_server.audit.tables import AuditEventRow
from tollhouse_server.database.epochs import Topic
from tollhouse_server.database.roles import AS_CONTROL
from tollhouse_server.database.rows import run_sql
from tollhouse_server.errors import RequestIdReused, ResourceExists, ResourceNotFound

from tests.drivers.postgres import TestDatabase
from tests.integration.admin.plane import PATIENCE_SECONDS, Plane, call_of


async def _events(plane: Plane, tenant: str) -> list[AuditEventRow]:
    async with plane.database.transaction() as session:
        return await list_events(session, tenant)


async def test_every_change_leaves_its_row_with_before_and_after(plane: Plane) -> None:
    """Who, with which credential, by which permission, what, before, after, and under which ids."""
    request_id = str(uuid4())
    await plane.call(tenants_pb2.CreateTenantRequest(tenant_id="acme", request_id=request_id))
    await plane.call(tenants_pb2.SuspendTenantRequest(name="tenants/acme"))

    created, suspended = await _events(plane, "acme")

    assert created.actor == "tenants/platform/principals/administrator"
    assert created.credential_id == plane.admin_key.split("_")[2]
    assert (created.method, created.permission) == ("tollhouse.admin.v1.TenantService.CreateTenant", "tenants.create")
    assert (created.resource, created.request_id, created.before) == ("tenants/acme", request_id, None)
    assert len(created.correlation_id) == 32
    assert created.after is not None and created.after["state"] == "STATE_ACTIVE"
    assert suspended.before == created.after
    assert suspended.after is not None and suspended.after["state"] == "STATE_SUSPENDED"


async def test_an_act_that_fails_leaves_nothing(plane: Plane) -> None:
    """No row, no claim of the id, no epoch."""
    request_id = str(uuid4())
    before = await _epochs(plane)
    with pytest.raises(ResourceNotFound):
        await plane.call(tenants_pb2.SuspendTenantRequest(name="tenants/acme", request_id=request_id))

    assert await _events(plane, "acme") == []
    assert await _epochs(plane) == before
    await plane.call(tenants_pb2.CreateTenantRequest(tenant_id="acme", request_id=request_id))


async def test_without_its_audit_row_no_act_commits(plane: Plane, fresh_database: TestDatabase) -> None:
    """The trail refuses the row: the tenant is not there either."""
    connection = await asyncpg.connect(fresh_database.owner_dsn)
    await connection.execute("ALTER TABLE audit_event ADD CONSTRAINT full_disk CHECK (tenant_id <> 'acme')")
    await connection.close()

    with pytest.raises(Exception, match="full_disk"):
        await plane.call(tenants_pb2.CreateTenantRequest(tenant_id="acme"))

    with pytest.raises(ResourceNotFound):
        await plane.call(tenants_pb2.GetTenantRequest(name="tenants/acme"))


async def test_a_dry_run_answers_as_the_change_would_and_changes_nothing(plane: Plane) -> None:
    """It finds the same errors, claims no id, writes no row, moves no epoch."""
    request = tenants_pb2.CreateTenantRequest(tenant_id="acme", request_id=str(uuid4()), validate_only=True)
    before = await _epochs(plane)

    dry = await plane.call(request)

    assert (dry.name, dry.state) == ("tenants/acme", tenants_pb2.Tenant.STATE_ACTIVE)
    assert await _events(plane, "acme") == []
    assert await _epochs(plane) == before
    with pytest.raises(ResourceNotFound):
        await plane.call(tenants_pb2.GetTenantRequest(name="tenants/acme"))
    request.validate_only = False
    await plane.call(request)
    with pytest.raises(ResourceExists):
        await plane.call(tenants_pb2.CreateTenantRequest(tenant_id="acme", validate_only=True))


async def test_a_repeated_request_is_answered_and_not_done_again(plane: Plane) -> None:
    """The first answer comes back, even after the resource has changed, and the trail has one row."""
    request = tenants_pb2.CreateTenantRequest(tenant_id="acme", request_id=str(uuid4()))
    first = await plane.call(request)
    await plane.call(tenants_pb2.SuspendTenantRequest(name="tenants/acme"))

    again = await plane.call(request)

    assert again == first
    assert len(await _events(plane, "acme")) == 2


async def test_an_id_is_not_good_for_another_request(plane: Plane) -> None:
    """Another body, or the same body from another principal, is not the same request."""
    request = tenants_pb2.CreateTenantRequest(tenant_id="acme", request_id=str(uuid4()))
    await plane.call(request)
    other = await plane.key("platform", "second", ("platform-admin", "platform"))

    with pytest.raises(RequestIdReused):
        await plane.call(request, key=other)
    request.tenant_id = "bolt"
    with pytest.raises(RequestIdReused):
        await plane.call(request)


async def test_of_fifty_repetitions_at_once_one_is_done(plane: Plane) -> None:
    """All get the one answer; the trail has one row."""
    request = tenants_pb2.CreateTenantRequest(tenant_id="acme", request_id=str(uuid4()))

    answers = await asyncio.gather(*(plane.call(request) for _ in range(50)))

    assert all(answer == answers[0] for answer in answers)
    assert len(await _events(plane, "acme")) == 1


async def test_an_id_is_free_again_after_a_day(plane: Plane, fresh_database: TestDatabase) -> None:
    """Twenty-four hours later the id may be used for something else."""
    request = tenants_pb2.CreateTenantRequest(tenant_id="acme", request_id=str(uuid4()))
    await plane.call(request)
    connection = await asyncpg.connect(fresh_database.root_dsn)
    await connection.execute("UPDATE admin_request SET created_at = now() - interval '25 hours'")
    await connection.close()

    request.tenant_id = "bolt"
    await plane.call(request)

    assert (await plane.call(tenants_pb2.GetTenantRequest(name="tenants/bolt"))).name == "tenants/bolt"


@pytest.mark.parametrize("statement", ["UPDATE audit_event SET actor = 'x'", "DELETE FROM audit_event"])
async def test_the_application_cannot_rewrite_the_trail(
    plane: Plane, fresh_database: TestDatabase, statement: str
) -> None:
    """Its role may add and read, nothing else."""
    await plane.call(tenants_pb2.CreateTenantRequest(tenant_id="acme"))
    connection = await asyncpg.connect(fresh_database.app_dsn, server_settings=dict(AS_CONTROL))

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(statement)

    await connection.close()


async def test_an_upset_handler_cannot_forget_the_audit(plane: Plane) -> None:
    """Cancelling a call in the middle leaves either both the act and its row, or neither."""
    principal = await plane.directory.authenticate(f"Bearer {plane.admin_key}", patience_seconds=PATIENCE_SECONDS)
    create: Any = plane.handlers["TenantService"].create_tenant
    for number in range(20):
        request = tenants_pb2.CreateTenantRequest(tenant_id=f"t-{number}")
        task = asyncio.create_task(create(request, call_of(principal, "x")))
        await asyncio.sleep(0.001 * (number % 10))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    listed = await plane.call(tenants_pb2.ListTenantsRequest())

    made = {tenant.name for tenant in listed.tenants} - {"tenants/platform"}
    audited = {f"tenants/t-{number}" for number in range(20) if await _events(plane, f"t-{number}")}
    assert made == audited


async def _epochs(plane: Plane) -> dict[str, int]:
    async with plane.database.transaction() as session:
        rows = (await run_sql(session, "SELECT topic, value FROM epoch")).all()
    assert {row.topic for row in rows} >= {topic.value for topic in Topic}
    return {row.topic: row.value for row in rows}
