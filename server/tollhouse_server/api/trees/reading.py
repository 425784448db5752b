"""A tenant as it is, as a document."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final

from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import limits_pb2, principals_pb2
from tollhouse.admin.v1 import trees_pb2 as pb

from tollhouse_server.access import group_store, role_store
from tollhouse_server.access import store as access
from tollhouse_server.access.granting import role_name
from tollhouse_server.api.limit_requests import quantity
from tollhouse_server.api.trees.entries import SECTIONS, key_of
from tollhouse_server.errors import ResourceNotFound
from tollhouse_server.ledger import limit_store
from tollhouse_server.ledger.tables import LimitRow
from tollhouse_server.ledger.terms import Metric, Mode
from tollhouse_server.names import DepartmentName, RoleGrantName, TenantName
from tollhouse_server.tenancy import store
from tollhouse_server.tenancy.tables import DepartmentRow, PrincipalRow, ProjectRow, TenantRow

_ALL: Final = 1_000_000
"""As many as there are: more than a tree may have entries."""


@dataclass(frozen=True, slots=True)
class Current:
    """A tenant, or a part of it, as it is.

    `paths` has for each department the ids from the top of the tree down to it, `grants` the name of each grant.
    """

    tree: pb.Tree = field(default_factory=pb.Tree)
    exists: bool = True
    paths: dict[str, tuple[str, ...]] = field(default_factory=dict)
    grants: dict[str, str] = field(default_factory=dict)


async def read_tree(
    session: AsyncSession, tenant: str, root: DepartmentName | None, sections: Collection[int] = tuple(SECTIONS)
) -> Current:
    """Return a tenant as it is; with `root` only what is in and on that department and those below it.

    The departments are read in any case. A tenant that does not exist is an empty one.

    Raises:
        ResourceNotFound: the root does not exist, or the tenant is deleted.
    """
    try:
        row = await store.get_tenant(session, TenantName(tenant))
    except ResourceNotFound:
        return Current(exists=False)
    if row.deleted_at is not None:
        raise ResourceNotFound(name=str(TenantName(tenant)))
    current = Current()
    if root is None and pb.TREE_SECTION_TENANT in sections:
        current.tree.tenant.CopyFrom(_tenant(row))
    await _read_departments(session, current, tenant, root)
    if pb.TREE_SECTION_PROJECTS in sections:
        rows = await store.list_projects(session, tenant, department=None, after="", size=_ALL, to=store.Narrowing())
        current.tree.projects.extend(_project(one) for one in rows if one.department_id in current.paths)
    inside = _inside(current, tenant, whole=root is None)
    if pb.TREE_SECTION_ROLE_GRANTS in sections:
        await _read_grants(session, current, tenant, inside)
    if pb.TREE_SECTION_LIMITS in sections:
        views = await limit_store.list_limits(session, tenant, scopes=(), after="", size=_ALL)
        current.tree.limits.extend(_limit(view.row) for view in views if inside(view.row.scope))
    if root is None:
        await _read_people(session, current.tree, tenant, sections)
    return current


async def _read_departments(session: AsyncSession, current: Current, tenant: str, root: DepartmentName | None) -> None:
    found = await store.list_departments(session, tenant, root=root, after="", size=_ALL, to=store.Narrowing())
    for row in sorted(found, key=lambda one: one.path.split(".")):
        current.tree.departments.append(_department(row))
        current.paths[row.department_id] = tuple(row.path.split("."))


def _inside(current: Current, tenant: str, *, whole: bool) -> Callable[[str], bool]:
    if whole:
        return lambda _: True
    names = {str(DepartmentName(tenant, one)) for one in current.paths}
    return lambda scope: "/".join(scope.split("/")[:4]) in names


async def _read_grants(session: AsyncSession, current: Current, tenant: str, inside: Callable[[str], bool]) -> None:
    for row in await access.list_grants(session, tenant, after="", size=_ALL):
        if inside(row.scope):
            entry = pb.TreeRoleGrant(
                principal=row.principal_id or "",
                group=row.group_id or "",
                role=role_name(row.role),
                scope=row.scope,
            )
            current.grants[key_of(entry)] = str(RoleGrantName(tenant, row.grant_id))
            current.tree.role_grants.append(entry)
    current.tree.role_grants.sort(key=key_of)


async def _read_people(session: AsyncSession, tree: pb.Tree, tenant: str, sections: Collection[int]) -> None:
    if pb.TREE_SECTION_PRINCIPALS in sections:
        people = await store.list_principals(session, tenant, after="", size=_ALL, to=store.Narrowing())
        tree.principals.extend(map(_principal, people))
    if pb.TREE_SECTION_GROUPS in sections:
        members = await group_store.members_by_group(session, tenant)
        for group in await group_store.list_groups(session, tenant, after="", size=_ALL):
            ids = pb.TreeIds(ids=members.get(group.group_id, ()))
            tree.groups.append(pb.TreeGroup(id=group.group_id, display_name=group.display_name, members=ids))
    if pb.TREE_SECTION_ROLES in sections:
        for role in await role_store.list_roles(session, tenant, after="", size=_ALL):
            ids = pb.TreeIds(ids=sorted(role.permissions))
            tree.roles.append(pb.TreeRole(id=role.role_id, description=role.description, permissions=ids))


def _tenant(row: TenantRow) -> pb.TreeTenant:
    return pb.TreeTenant(
        display_name=row.display_name,
        time_zone=row.time_zone,
        fiscal_month_start_day=row.fiscal_month_start_day,
    )


def _principal(row: PrincipalRow) -> pb.TreePrincipal:
    return pb.TreePrincipal(
        id=row.principal_id,
        kind=principals_pb2.Principal.Kind.Value(f"KIND_{row.kind}"),
        display_name=row.display_name,
        email=row.email,
        issuer=row.issuer,
        subject=row.subject,
    )


def _department(row: DepartmentRow) -> pb.TreeDepartment:
    return pb.TreeDepartment(
        id=row.department_id,
        parent=row.parent_id or "",
        display_name=row.display_name,
        cost_centre=row.cost_centre,
        owner=row.owner_id or "",
    )


def _project(row: ProjectRow) -> pb.TreeProject:
    return pb.TreeProject(
        id=row.project_id,
        department=row.department_id,
        display_name=row.display_name,
        cost_centre=row.cost_centre,
        owner=row.owner_id or "",
    )


def _limit(row: LimitRow) -> pb.TreeLimit:
    metric = Metric(row.metric)
    return pb.TreeLimit(
        id=row.name,
        scope=row.scope,
        metric=limits_pb2.LimitMetric.Value(f"LIMIT_METRIC_{row.metric}"),
        window=limits_pb2.LimitWindow.Value(f"LIMIT_WINDOW_{row.window}"),
        selector=row.selector,
        mode=limits_pb2.LimitMode.Value(f"LIMIT_MODE_{row.mode}"),
        amount=quantity(row.amount, metric),
        overshoot=quantity(row.overshoot, metric) if row.mode == Mode.ELASTIC else None,
        thresholds=pb.TreeThresholds(percents=row.thresholds),
    )
