"""Tenants, departments, projects and principals on a real PostgreSQL."""

import asyncio

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from tollhouse.admin.v1 import departments_pb2, principals_pb2, projects_pb2, tenants_pb2
from tollhouse_server.errors import (
    EtagMismatch,
    InvalidRequest,
    ResourceExists,
    ResourceInUse,
    ResourceNotFound,
)

from tests.integration.admin.plane import Plane


async def test_a_tenant_is_created_read_changed_and_listed(plane: Plane) -> None:
    """What was written is read back; a change counts the version up and no other field moves."""
    created = await plane.call(
        tenants_pb2.CreateTenantRequest(
            tenant_id="acme", tenant=tenants_pb2.Tenant(display_name="Acme", time_zone="Europe/Berlin")
        )
    )

    changed = await plane.call(
        tenants_pb2.UpdateTenantRequest(
            tenant=tenants_pb2.Tenant(name=created.name, display_name="Acme Ltd", etag=created.etag),
            update_mask=FieldMask(paths=["display_name"]),
        )
    )

    read = await plane.call(tenants_pb2.GetTenantRequest(name="tenants/acme"))
    assert read == changed
    assert (read.display_name, read.time_zone, read.state) == (
        "Acme Ltd",
        "Europe/Berlin",
        tenants_pb2.Tenant.STATE_ACTIVE,
    )
    assert read.etag != created.etag
    listed = await plane.call(tenants_pb2.ListTenantsRequest())
    assert [tenant.name for tenant in listed.tenants] == ["tenants/acme", "tenants/platform"]


async def test_a_stale_etag_is_refused(plane: Plane) -> None:
    """Two who read the same version cannot both write."""
    created = await plane.call(tenants_pb2.CreateTenantRequest(tenant_id="acme"))
    first = tenants_pb2.Tenant(name=created.name, display_name="first", etag=created.etag)
    second = tenants_pb2.Tenant(name=created.name, display_name="second", etag=created.etag)
    await plane.call(tenants_pb2.UpdateTenantRequest(tenant=first))

    with pytest.raises(EtagMismatch):
        await plane.call(tenants_pb2.UpdateTenantRequest(tenant=second))

    read = await plane.call(tenants_pb2.GetTenantRequest(name="tenants/acme"))
    assert read.display_name == "first"


async def test_of_a_hundred_who_create_the_same_tenant_one_wins(plane: Plane) -> None:
    """Concurrent creations of one id end in one tenant and ninety-nine clear refusals."""
    request = tenants_pb2.CreateTenantRequest(tenant_id="acme")

    outcomes = await asyncio.gather(*(plane.call(request) for _ in range(100)), return_exceptions=True)

    assert sum(isinstance(outcome, tenants_pb2.Tenant) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, ResourceExists) for outcome in outcomes) == 99


async def test_the_id_of_a_project_is_taken_in_the_whole_tenant(plane: Plane) -> None:
    """The refusal names no project of the department that was asked for, where there is none of this id."""
    await plane.tenant("acme")

    with pytest.raises(ResourceExists, match=r"^A project crm of tenants/acme exists already"):
        await plane.call(projects_pb2.CreateProjectRequest(parent="tenants/acme/departments/sales", project_id="crm"))


async def test_a_moved_department_takes_everything_below_it_along(plane: Plane) -> None:
    """The paths of the whole subtree follow a move, and names do not change."""
    await plane.tenant("acme")
    await plane.call(departments_pb2.CreateDepartmentRequest(parent="tenants/acme", department_id="group"))

    await plane.call(
        departments_pb2.MoveDepartmentRequest(
            name="tenants/acme/departments/sales", parent_department="tenants/acme/departments/group"
        )
    )

    moved = await plane.call(departments_pb2.GetDepartmentRequest(name="tenants/acme/departments/emea"))
    assert [name.rsplit("/", 1)[1] for name in moved.path] == ["group", "sales", "emea"]


async def test_a_department_cannot_move_below_itself(plane: Plane) -> None:
    """The tree stays a tree."""
    await plane.tenant("acme")

    with pytest.raises(ResourceInUse):
        await plane.call(
            departments_pb2.MoveDepartmentRequest(
                name="tenants/acme/departments/sales", parent_department="tenants/acme/departments/emea"
            )
        )


async def test_moves_that_cross_leave_a_tree(plane: Plane) -> None:
    """Of two departments moved below a child of the other at once, one moves, and the other is refused, every time."""
    await plane.call(tenants_pb2.CreateTenantRequest(tenant_id="acme"))
    for number in range(8):
        for name, parent in ((f"a-{number}", ""), (f"b-{number}", ""), (f"ac-{number}", "a"), (f"bc-{number}", "b")):
            above = f"tenants/acme/departments/{parent}-{number}" if parent else ""
            department = departments_pb2.Department(parent_department=above)
            await plane.call(
                departments_pb2.CreateDepartmentRequest(
                    parent="tenants/acme", department_id=name, department=department
                )
            )

    for number in range(8):
        outcomes = await asyncio.gather(
            plane.call(_move(f"a-{number}", f"bc-{number}")),
            plane.call(_move(f"b-{number}", f"ac-{number}")),
            return_exceptions=True,
        )
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Department", "DepartmentRing"]


def _move(department: str, below: str) -> departments_pb2.MoveDepartmentRequest:
    return departments_pb2.MoveDepartmentRequest(
        name=f"tenants/acme/departments/{department}", parent_department=f"tenants/acme/departments/{below}"
    )


async def test_moves_and_creations_do_not_deadlock(plane: Plane) -> None:
    """Departments are created below one that is being moved to and fro: everyone gets through."""
    await plane.tenant("acme")
    sales, emea = "tenants/acme/departments/sales", "tenants/acme/departments/emea"
    moves = [
        departments_pb2.MoveDepartmentRequest(name=emea, parent_department=sales if number % 2 else "")
        for number in range(20)
    ]
    creations = [
        departments_pb2.CreateDepartmentRequest(
            parent="tenants/acme",
            department_id=f"d-{number}",
            department=departments_pb2.Department(parent_department=emea),
        )
        for number in range(20)
    ]

    await asyncio.gather(*(plane.call(request) for pair in zip(moves, creations, strict=True) for request in pair))

    listed = await plane.call(departments_pb2.ListDepartmentsRequest(parent="tenants/acme", root=emea))
    assert len(listed.departments) == 21


async def test_a_department_with_projects_is_not_deleted(plane: Plane) -> None:
    """Delete from the leaves: what is in use stays, and the error names its user."""
    await plane.tenant("acme")
    emea = "tenants/acme/departments/emea"

    with pytest.raises(ResourceInUse, match="projects/crm"):
        await plane.call(departments_pb2.DeleteDepartmentRequest(name=emea))

    await plane.call(projects_pb2.DeleteProjectRequest(name=f"{emea}/projects/crm"))
    deleted = await plane.call(departments_pb2.DeleteDepartmentRequest(name=emea))
    assert deleted.state == departments_pb2.Department.STATE_DELETED


async def test_a_project_is_found_under_its_own_department_only(plane: Plane) -> None:
    """A permission on one department does not reach a project of another by writing its name there."""
    await plane.tenant("acme")

    with pytest.raises(ResourceNotFound):
        await plane.call(projects_pb2.GetProjectRequest(name="tenants/acme/departments/sales/projects/crm"))


async def test_a_child_of_nothing_is_refused_by_the_parents_name(plane: Plane) -> None:
    """Creation under a missing parent says which parent is missing."""
    await plane.tenant("acme")

    with pytest.raises(ResourceNotFound, match="tenants/acme/departments/none does not exist"):
        await plane.call(projects_pb2.CreateProjectRequest(parent="tenants/acme/departments/none", project_id="pp"))


async def test_lists_are_paged_without_gaps_or_repetitions(plane: Plane) -> None:
    """Pages put together are the whole list in order, and a token of another question is refused."""
    await plane.call(tenants_pb2.CreateTenantRequest(tenant_id="acme"))
    kind = principals_pb2.Principal.KIND_USER
    for number in range(7):
        await plane.call(
            principals_pb2.CreatePrincipalRequest(
                parent="tenants/acme", principal_id=f"user-{number}", principal=principals_pb2.Principal(kind=kind)
            )
        )

    names, token = [], ""
    while True:
        page = await plane.call(
            principals_pb2.ListPrincipalsRequest(parent="tenants/acme", page_size=3, page_token=token)
        )
        names += [principal.name.rsplit("/", 1)[1] for principal in page.principals]
        token = page.next_page_token or token
        if not page.next_page_token:
            break

    assert names == [f"user-{number}" for number in range(7)]
    with pytest.raises(InvalidRequest, match="page_token"):
        await plane.call(principals_pb2.ListPrincipalsRequest(parent="tenants/platform", page_token=token))


async def test_the_platforms_own_tenant_cannot_be_suspended(plane: Plane) -> None:
    """An administrator cannot lock everyone out with one word."""
    with pytest.raises(ResourceInUse):
        await plane.call(tenants_pb2.SuspendTenantRequest(name="tenants/platform"))
