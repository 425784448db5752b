"""From a step of a plan to the requests of the single methods that make it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from google.protobuf.field_mask_pb2 import FieldMask
from tollhouse.admin.v1 import (
    departments_pb2,
    groups_pb2,
    limits_pb2,
    principals_pb2,
    projects_pb2,
    roles_pb2,
    tenants_pb2,
)
from tollhouse.admin.v1 import trees_pb2 as pb

from tollhouse_server.api.trees.entries import Entry, Step, place
from tollhouse_server.names import invalid

Request: TypeAlias = Any
"""A message of a single method that changes something."""

_MOST_MEMBERS: Final = 1000


def requests_of(step: Step, tenant: str, grants: Mapping[str, str]) -> list[Request]:
    """Return the requests that make a step, in their order; `grants` has the names of the grants that there are.

    Raises:
        InvalidRequest: the step changes what cannot be changed.
    """
    parent = f"tenants/{tenant}"
    return list(_WRITERS[step.section](step, parent, grants))


def _tenant(step: Step, parent: str, _: Mapping[str, str]) -> Iterator[Request]:
    tenant = tenants_pb2.Tenant(name=parent, **_said(step.wanted, ("display_name", "time_zone")))
    tenant.fiscal_month_start_day = step.wanted.fiscal_month_start_day if step.wanted else 0
    if step.current is None:
        yield tenants_pb2.CreateTenantRequest(tenant_id=parent.removeprefix("tenants/"), tenant=tenant)
    else:
        yield tenants_pb2.UpdateTenantRequest(tenant=tenant, update_mask=_mask(step.fields))


def _principals(step: Step, parent: str, _: Mapping[str, str]) -> Iterator[Request]:
    name = f"{parent}/principals/{step.key}"
    if step.wanted is None:
        yield principals_pb2.DeletePrincipalRequest(name=name)
        return
    _refuse(step, ("kind",))
    said = _said(step.wanted, ("display_name", "email", "issuer", "subject"))
    principal = principals_pb2.Principal(name=name, kind=step.wanted.kind, **said)
    if step.current is None:
        yield principals_pb2.CreatePrincipalRequest(parent=parent, principal_id=step.key, principal=principal)
    else:
        yield principals_pb2.UpdatePrincipalRequest(principal=principal, update_mask=_mask(step.fields))


def _groups(step: Step, parent: str, _: Mapping[str, str]) -> Iterator[Request]:
    name = f"{parent}/groups/{step.key}"
    if step.wanted is None:
        yield groups_pb2.DeleteGroupRequest(name=name)
        return
    group = groups_pb2.Group(name=name, display_name=step.wanted.display_name)
    if step.current is None:
        yield groups_pb2.CreateGroupRequest(parent=parent, group_id=step.key, group=group)
    elif "display_name" in step.fields:
        yield groups_pb2.UpdateGroupRequest(group=group, update_mask=_mask(["display_name"]))
    if "members" in step.fields:
        wanted = set(step.wanted.members.ids)
        there = set(step.current.members.ids) if step.current else set()
        for people in _portions(parent, there - wanted):
            yield groups_pb2.RemoveGroupMembersRequest(name=name, principals=people)
        for people in _portions(parent, wanted - there):
            yield groups_pb2.AddGroupMembersRequest(name=name, principals=people)


def _portions(parent: str, ids: Iterable[str]) -> Iterator[Sequence[str]]:
    names = [f"{parent}/principals/{one}" for one in sorted(ids)]
    for start in range(0, len(names), _MOST_MEMBERS):
        yield names[start : start + _MOST_MEMBERS]


def _roles(step: Step, parent: str, _: Mapping[str, str]) -> Iterator[Request]:
    name = f"{parent}/roles/{step.key}"
    if step.wanted is None:
        yield roles_pb2.DeleteRoleRequest(name=name)
        return
    role = roles_pb2.Role(
        name=name, description=step.wanted.description, permissions=sorted(step.wanted.permissions.ids)
    )
    if step.current is None:
        yield roles_pb2.CreateRoleRequest(parent=parent, role_id=step.key, role=role)
    else:
        yield roles_pb2.UpdateRoleRequest(role=role, update_mask=_mask(step.fields))


def _departments(step: Step, parent: str, _: Mapping[str, str]) -> Iterator[Request]:
    name = f"{parent}/departments/{step.key}"
    if step.wanted is None:
        yield departments_pb2.DeleteDepartmentRequest(name=name)
        return
    above = f"{parent}/departments/{step.wanted.parent}" if step.wanted.parent else ""
    department = departments_pb2.Department(name=name, **_owned(step.wanted, parent))
    if step.current is None:
        department.parent_department = above
        yield departments_pb2.CreateDepartmentRequest(parent=parent, department_id=step.key, department=department)
        return
    if "parent" in step.fields:
        yield departments_pb2.MoveDepartmentRequest(name=name, parent_department=above)
    if fields := step.fields - {"parent"}:
        yield departments_pb2.UpdateDepartmentRequest(department=department, update_mask=_mask(fields))


def _projects(step: Step, parent: str, _: Mapping[str, str]) -> Iterator[Request]:
    name = f"{parent}/departments/{step.current.department}/projects/{step.key}" if step.current else ""
    if step.wanted is None:
        yield projects_pb2.DeleteProjectRequest(name=name)
        return
    _refuse(step, ("department",))
    above = f"{parent}/departments/{step.wanted.department}"
    project = projects_pb2.Project(name=name, **_owned(step.wanted, parent))
    if step.current is None:
        if not step.wanted.department:
            raise invalid(f"{place(step.section, step.key)}.department", "is required")
        yield projects_pb2.CreateProjectRequest(parent=above, project_id=step.key, project=project)
    else:
        yield projects_pb2.UpdateProjectRequest(project=project, update_mask=_mask(step.fields))


def _role_grants(step: Step, parent: str, grants: Mapping[str, str]) -> Iterator[Request]:
    if step.wanted is None:
        yield roles_pb2.DeleteRoleGrantRequest(name=grants[step.key])
        return
    entry = step.wanted
    grant = roles_pb2.RoleGrant(
        principal=f"{parent}/principals/{entry.principal}" if entry.principal else "",
        group=f"{parent}/groups/{entry.group}" if entry.group else "",
        role=entry.role,
        scope=entry.scope,
    )
    yield roles_pb2.CreateRoleGrantRequest(parent=parent, role_grant=grant)


def _limits(step: Step, parent: str, _: Mapping[str, str]) -> Iterator[Request]:
    name = f"{parent}/limits/{step.key}"
    if step.wanted is None:
        yield limits_pb2.DeleteLimitRequest(name=name)
        return
    _refuse(step, ("scope", "metric", "window", "selector"))
    entry = step.wanted
    limit = limits_pb2.Limit(
        name=name,
        scope=entry.scope,
        metric=entry.metric,
        window=entry.window,
        selector=entry.selector,
        mode=entry.mode,
        amount=entry.amount if entry.HasField("amount") else None,
        overshoot=entry.overshoot if entry.HasField("overshoot") else None,
        thresholds=sorted(entry.thresholds.percents),
    )
    if step.current is None:
        if not entry.scope:
            raise invalid(f"{place(step.section, step.key)}.scope", "is required")
        yield limits_pb2.CreateLimitRequest(parent=parent, limit_id=step.key, limit=limit)
    else:
        yield limits_pb2.UpdateLimitRequest(limit=limit, update_mask=_mask(step.fields))


_Writer: TypeAlias = Callable[[Step, str, Mapping[str, str]], Iterator[Request]]

_WRITERS: Final[Mapping[int, _Writer]] = {
    pb.TREE_SECTION_TENANT: _tenant,
    pb.TREE_SECTION_PRINCIPALS: _principals,
    pb.TREE_SECTION_GROUPS: _groups,
    pb.TREE_SECTION_ROLES: _roles,
    pb.TREE_SECTION_DEPARTMENTS: _departments,
    pb.TREE_SECTION_PROJECTS: _projects,
    pb.TREE_SECTION_ROLE_GRANTS: _role_grants,
    pb.TREE_SECTION_LIMITS: _limits,
}


def _refuse(step: Step, fields: Sequence[str]) -> None:
    """Refuse a change of what a single method cannot change either."""
    for field in fields if step.current is not None else ():
        if field in step.fields:
            raise invalid(f"{place(step.section, step.key)}.{field}", "cannot be changed of one that exists")


def _said(entry: Entry, fields: Iterable[str]) -> dict[str, Any]:
    return {field: getattr(entry, field) for field in fields}


def _owned(entry: Entry, parent: str) -> dict[str, Any]:
    owner = f"{parent}/principals/{entry.owner}" if entry.owner else ""
    return {**_said(entry, ("display_name", "cost_centre")), "owner": owner}


def _mask(fields: Iterable[str]) -> FieldMask:
    return FieldMask(paths=sorted(fields))
