"""A tenant that is deleted, comes back, or is purged when its time has come, on a real PostgreSQL."""

from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from tollhouse.admin.v1 import departments_pb2, principals_pb2, tenants_pb2
from tollhouse_server.api.tenant_purges import TenantPurges
from tollhouse_server.audit.store import list_events
from tollhouse_server.database.rows import run_sql
from tollhouse_server.errors import CredentialsInvalid, ResourceInUse, ResourceNotFound, VaultUnavailable, WrongState

from tests.integration.admin.plane import Plane

ACME = "tenants/acme"
STATE = tenants_pb2.Tenant


@dataclass(slots=True)
class Keys:
    """Remembers whose data keys were destroyed; fails as often as it is told to."""

    failures: int = 0
    destroyed: list[str] = field(default_factory=list)

    async def destroy(self, tenant_id: str) -> None:
        if self.failures:
            self.failures -= 1
            raise VaultUnavailable(detail="sealed")
        self.destroyed.append(tenant_id)


@pytest.fixture
async def acme(plane: Plane) -> Plane:
    """Tenant acme with a person."""
    await plane.tenant("acme")
    person = principals_pb2.Principal(
        kind=principals_pb2.Principal.KIND_USER,
        display_name="Ann Smith",
        email="ann@acme.example",
        issuer="https://id.acme.example",
        subject="0815",
    )
    await plane.call(principals_pb2.CreatePrincipalRequest(parent=ACME, principal_id="ann", principal=person))
    return plane


async def counted(plane: Plane, table: str) -> int:
    """Return how many rows acme has in a table."""
    async with plane.database.transaction() as session:
        count = await run_sql(session, f"SELECT count(*) FROM {table} WHERE tenant_id = 'acme'")  # noqa: S608
        return int(count.scalar_one())


async def works(plane: Plane, key: str) -> bool:
    """Tell whether a key of a tenant's administrator is let in, as the database has it now."""
    await plane.watch.refresh()
    try:
        await plane.call(tenants_pb2.GetTenantRequest(name=ACME), key=key)
    except CredentialsInvalid:
        return False
    return True


async def test_a_deleted_tenant_says_until_when_it_can_come_back(acme: Plane) -> None:
    """Thirty days, or as many as the request says."""
    by_default = await acme.call(tenants_pb2.DeleteTenantRequest(name=ACME, validate_only=True))
    deleted = await acme.call(tenants_pb2.DeleteTenantRequest(name=ACME, retention_days=3650))

    assert by_default.purge_time.ToDatetime() - by_default.delete_time.ToDatetime() == timedelta(days=30)
    assert deleted.purge_time.ToDatetime() - deleted.delete_time.ToDatetime() == timedelta(days=3650)
    with pytest.raises(ResourceNotFound):
        await acme.call(tenants_pb2.DeleteTenantRequest(name=ACME, retention_days=0))


@pytest.mark.parametrize("suspended", [False, True])
async def test_an_undeleted_tenant_is_what_it_was(acme: Plane, *, suspended: bool) -> None:
    """Its credentials work as they did, and a suspension is still one."""
    key = await acme.key("acme", "boss", ("tenant-admin", ACME))
    if suspended:
        await acme.call(tenants_pb2.SuspendTenantRequest(name=ACME))
    before = await works(acme, key)
    await acme.call(tenants_pb2.DeleteTenantRequest(name=ACME))
    meanwhile = await works(acme, key)

    back = await acme.call(tenants_pb2.UndeleteTenantRequest(name=ACME))

    assert back.state == (STATE.STATE_SUSPENDED if suspended else STATE.STATE_ACTIVE)
    assert not back.HasField("purge_time")
    assert (before, meanwhile, await works(acme, key)) == (not suspended, False, not suspended)


async def test_only_a_deleted_tenant_before_its_time_can_be_undeleted(acme: Plane) -> None:
    """Not one that is alive, and not one that is about to be purged."""
    with pytest.raises(WrongState, match="ACTIVE"):
        await acme.call(tenants_pb2.UndeleteTenantRequest(name=ACME))
    await acme.call(tenants_pb2.DeleteTenantRequest(name=ACME, retention_days=0))

    with pytest.raises(WrongState, match="about to be purged"):
        await acme.call(tenants_pb2.UndeleteTenantRequest(name=ACME))


async def test_the_platform_can_be_neither_deleted_nor_undeleted(plane: Plane) -> None:
    """Its administrators would lock themselves out."""
    for request in (tenants_pb2.DeleteTenantRequest, tenants_pb2.UndeleteTenantRequest):
        with pytest.raises(ResourceInUse):
            await plane.call(request(name="tenants/platform"))


async def test_a_purge_leaves_records_without_people(acme: Plane) -> None:
    """Names, credentials and rights are gone, the data key too; tree and trail stay."""
    await acme.key("acme", "boss", ("tenant-admin", ACME))
    await acme.call(tenants_pb2.DeleteTenantRequest(name=ACME, retention_days=0))
    keys = Keys()

    purged = await TenantPurges(acme.database, keys).purge_due()

    ann = await acme.call(principals_pb2.GetPrincipalRequest(name=f"{ACME}/principals/ann"))
    tenant = await acme.call(tenants_pb2.GetTenantRequest(name=ACME))
    assert (purged, keys.destroyed, tenant.state) == (["acme"], ["acme"], STATE.STATE_PURGED)
    assert (ann.display_name, ann.email, ann.issuer, ann.subject) == ("", "", "", "")
    assert [await counted(acme, table) for table in ("api_key", "role_grant", "department")] == [0, 0, 2]
    async with acme.database.transaction() as session:
        last = (await list_events(session, "acme", size=1000))[-1]
    assert last.after is not None
    assert (last.actor, last.after["state"], last.after["principalsBlanked"]) == ("housekeeper", "STATE_PURGED", 2)
    with pytest.raises(WrongState, match="PURGED"):
        await acme.call(tenants_pb2.UndeleteTenantRequest(name=ACME))


async def test_a_purge_forgets_to_whom_statements_went(acme: Plane) -> None:
    """Addresses are people's; what waits to be sent is not sent any more."""
    async with acme.database.transaction() as session:
        await run_sql(session, _SCHEDULE)
        await run_sql(session, _DELIVERY)
    await acme.call(tenants_pb2.DeleteTenantRequest(name=ACME, retention_days=0))

    await TenantPurges(acme.database, Keys()).purge_due()

    async with acme.database.transaction() as session:
        left = "SELECT recipients, state, fault, refused FROM delivery_schedule JOIN delivery USING (schedule_id)"
        assert list(map(tuple, await run_sql(session, left))) == [([], "FAILED", "", "")]


_SCHEDULE = """
INSERT INTO delivery_schedule (tenant_id, schedule_id, formats, language, day, to_folder, recipients, creator)
VALUES ('acme', 'monthly', '{pdf}', 'en', 0, false, '{cfo@acme.example}', 'ann')
"""
_DELIVERY = """
INSERT INTO delivery (tenant_id, delivery_id, schedule_id, month, sha256, way, fault, refused)
VALUES ('acme', 'dl-1', 'monthly', '2026-10', '', 'MAIL', 'full', 'no mailbox for cfo@acme.example')
"""


async def test_what_is_not_due_is_not_purged(acme: Plane) -> None:
    """Neither a tenant that is alive, nor one that can still come back."""
    await acme.call(tenants_pb2.CreateTenantRequest(tenant_id="other"))
    await acme.call(tenants_pb2.DeleteTenantRequest(name=ACME, retention_days=1))

    assert await TenantPurges(acme.database, Keys()).purge_due() == []
    assert (await acme.call(tenants_pb2.GetTenantRequest(name=ACME))).state == STATE.STATE_DELETED


async def test_a_purge_that_was_interrupted_is_finished_by_the_next(acme: Plane) -> None:
    """Whether Vault was away or the process ended between the key and the rows; done once more it does nothing."""
    await acme.call(tenants_pb2.DeleteTenantRequest(name=ACME, retention_days=0))
    keys = Keys(failures=1)
    purges = TenantPurges(acme.database, keys)

    without_vault = await purges.purge_due()
    # As a process that ends between the two steps leaves it.
    await keys.destroy("acme")
    finished, again = await purges.purge_due(), await purges.purge_due()

    assert (without_vault, finished, again) == ([], ["acme"], [])
    assert keys.destroyed == ["acme", "acme"]


async def test_a_departments_owner_and_cost_centre_are_kept_changed_and_asked_for(acme: Plane) -> None:
    """A mask changes one of them, a list finds both."""
    sales, ann = f"{ACME}/departments/sales", f"{ACME}/principals/ann"
    department = departments_pb2.Department(name=sales, cost_centre="DE-4711", owner=ann)
    await acme.call(departments_pb2.UpdateDepartmentRequest(department=department))
    found = await acme.call(departments_pb2.ListDepartmentsRequest(parent=ACME, cost_centre="DE-4711", owner=ann))
    emptied = departments_pb2.UpdateDepartmentRequest(
        department=departments_pb2.Department(name=sales), update_mask=FieldMask(paths=["owner"])
    )

    changed = await acme.call(emptied)

    assert [one.name for one in found.departments] == [sales]
    assert (changed.cost_centre, changed.owner) == ("DE-4711", "")
    assert not (await acme.call(departments_pb2.ListDepartmentsRequest(parent=ACME, owner=ann))).departments


async def test_an_owner_must_be_active(acme: Plane) -> None:
    """Neither somebody who is disabled nor somebody who is not there."""
    ann = f"{ACME}/principals/ann"
    await acme.call(principals_pb2.DisablePrincipalRequest(name=ann))

    for owner, refusal in ((ann, WrongState), (f"{ACME}/principals/nobody", ResourceNotFound)):
        department = departments_pb2.Department(name=f"{ACME}/departments/sales", owner=owner)
        with pytest.raises(refusal):
            await acme.call(departments_pb2.UpdateDepartmentRequest(department=department))
