"""Policies from a few lines."""

from collections.abc import Iterable, Mapping

from tollhouse_server.access.policy import Policy
from tollhouse_server.access.rights import GROUPS, PRINCIPALS, TenantRights
from tollhouse_server.identity.principal import Principal


def principal(
    tenant: str, name: str, *, groups: tuple[str, ...] = (), permissions: frozenset[str] | None = None
) -> Principal:
    """Return a principal as his credential shows him."""
    return Principal(
        tenant_id=tenant,
        principal_id=name,
        credential_id="k",
        credential_name=f"tenants/{tenant}/apiKeys/k",
        project_id=None,
        department_ids=(),
        environment="live",
        groups=groups,
        permissions=permissions,
    )


def policy_of(
    grants: Iterable[tuple[str, str, str, str]],
    tree: Mapping[tuple[str, str], tuple[str, ...]],
    *,
    members: Iterable[tuple[str, str, str]] = (),
    roles: Mapping[tuple[str, str], frozenset[str]] | None = None,
    barred: Iterable[tuple[str, str]] = (),
) -> Policy:
    """Return the policy of grants (tenant, principal or groups/..., role, scope) and members (tenant, group, who)."""
    tenants: dict[str, TenantRights] = {}

    def of(tenant: str) -> TenantRights:
        return tenants.setdefault(tenant, TenantRights())

    for tenant, subject, role, scope in grants:
        kind, _, name = subject.rpartition("/")
        of(tenant).grant(GROUPS if kind else PRINCIPALS, name, role, scope)
    for tenant, group, who in members:
        of(tenant).join(group, who)
    for (tenant, role), permissions in (roles or {}).items():
        of(tenant).roles[role] = permissions
    for tenant, who in barred:
        of(tenant).barred.add(who)
    for (tenant, department), path in tree.items():
        of(tenant).add_department(department, path)
    return Policy(tenants)
