"""Roles and grants, from rows to what callers see and back."""

from collections.abc import Iterable

from tollhouse.admin.v1 import roles_pb2 as pb

from tollhouse_server.access.granting import role_name
from tollhouse_server.access.roles import ROLES, TENANT_PERMISSIONS, Role
from tollhouse_server.access.tables import RoleGrantRow, TenantRoleRow
from tollhouse_server.api.values import etag, timestamp
from tollhouse_server.errors import FieldViolation, InvalidRequest
from tollhouse_server.names import (
    GroupName,
    PrincipalName,
    RoleGrantName,
    RoleName,
    TenantRoleName,
    domain_of,
    invalid,
)


def permissions_of(role: pb.Role) -> list[str]:
    """Return what a tenant's role is to permit, sorted.

    Raises:
        InvalidRequest: nothing, or something that there is not, or that is not about a tenant.
    """
    if not role.permissions:
        raise invalid("role.permissions", "must have at least one")
    violations = tuple(
        FieldViolation(path=f"role.permissions[{index}]", description=f"{permission!r} {_trouble(permission)}")
        for index, permission in enumerate(role.permissions)
        if permission not in TENANT_PERMISSIONS
    )
    if violations:
        raise InvalidRequest(violations=violations)
    return sorted(role.permissions)


def _trouble(permission: str) -> str:
    is_known = any(permission in role.permissions for role in ROLES.values())
    return "is about the platform, not about a tenant" if is_known else "is no permission; roles list shows them"


def granted_role(text: str, tenant: str) -> str:
    """Return a grant's role as its row has it: the id of a built-in one, the whole name of one of `tenant`.

    Raises:
        InvalidRequest: there is no such built-in role, or it is another tenant's.
    """
    field = "role_grant.role"
    if text.startswith("tenants/"):
        if TenantRoleName.parse(text, field).tenant != tenant:
            raise invalid(field, "must be a role of the grant's own tenant")
        return text
    role = RoleName.parse(text, field).role
    if role not in ROLES:
        raise invalid(field, f"must be one of {', '.join(sorted(ROLES))}, or tenants/{tenant}/roles/... of its own")
    return role


def grant_row(name: RoleGrantName, grant: pb.RoleGrant, *, creator: str) -> RoleGrantRow:
    """Return the row of a grant.

    Raises:
        InvalidRequest: it is not to exactly one principal or group of its tenant, or reaches out of it.
    """
    if bool(grant.principal) == bool(grant.group):
        raise invalid("role_grant.principal", "must be set, or else role_grant.group, and not both")
    principal = PrincipalName.parse(grant.principal, "role_grant.principal") if grant.principal else None
    group = GroupName.parse(grant.group, "role_grant.group") if grant.group else None
    for field, one in (("principal", principal), ("group", group)):
        if one is not None and one.tenant != name.tenant:
            raise invalid(f"role_grant.{field}", "must be of the grant's own tenant")
    # The platform is for its own people.
    if domain_of(grant.scope) != name.tenant:
        raise invalid("role_grant.scope", "must be inside the grant's own tenant")
    return RoleGrantRow(
        tenant_id=name.tenant,
        grant_id=name.role_grant,
        principal_id=principal.principal if principal else None,
        group_id=group.group if group else None,
        role=granted_role(grant.role, name.tenant),
        scope=grant.scope,
        creator=creator,
    )


def grant_message(row: RoleGrantRow) -> pb.RoleGrant:
    """Return a grant as callers see it."""
    return pb.RoleGrant(
        name=str(RoleGrantName(row.tenant_id, row.grant_id)),
        principal=str(PrincipalName(row.tenant_id, row.principal_id)) if row.principal_id else "",
        group=str(GroupName(row.tenant_id, row.group_id)) if row.group_id else "",
        role=role_name(row.role),
        scope=row.scope,
        create_time=timestamp(row.created_at),
        creator=row.creator,
    )


def built_in_roles() -> Iterable[pb.Role]:
    """Return the roles that every tenant has, in the order of their ids."""
    return [
        pb.Role(name=str(RoleName(role.name)), description=role.description, permissions=sorted(role.permissions))
        for role in (ROLES[name] for name in sorted(ROLES))
    ]


def role_message(row: TenantRoleRow) -> pb.Role:
    """Return a tenant's role as callers see it."""
    return pb.Role(
        name=str(TenantRoleName(row.tenant_id, row.role_id)),
        description=row.description,
        permissions=sorted(row.permissions),
        create_time=timestamp(row.created_at),
        update_time=timestamp(row.updated_at),
        creator=row.creator,
        etag=etag(row.version),
    )


def role_of(row: TenantRoleRow, permissions: Iterable[str]) -> Role:
    """Return a tenant's role as it would be with other permissions."""
    return Role(str(TenantRoleName(row.tenant_id, row.role_id)), row.description, frozenset(permissions))
