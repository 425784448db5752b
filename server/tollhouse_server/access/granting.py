"""What must hold when a right is given, in whichever way: nobody gives more than he has, and duties stay apart.

A right is given by a grant, by putting someone into a group, by adding a permission to a role that others hold, by a
credential that acts as someone else, and by a move of a department, which then inherits from other people.
"""

from collections.abc import Collection, Iterable, Sequence

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.access import group_store, store
from tollhouse_server.access.authorizer import Authorizer
from tollhouse_server.access.duties import conflicts_between
from tollhouse_server.access.role_store import role_called
from tollhouse_server.access.roles import LET_READ_CONTENT, READ_CONTENT, Role
from tollhouse_server.access.tables import RoleGrantRow
from tollhouse_server.database.rows import run_sql
from tollhouse_server.errors import DutiesConflict, PermissionDenied
from tollhouse_server.identity.principal import Principal
from tollhouse_server.names import DepartmentName, GroupName, PrincipalName, RoleName, TenantName


class Granting:
    """Judges acts that give rights, each inside the transaction that makes it.

    Whoever calls this has locked the rows that the act is about; the tenant's rights are locked here, last, so that of
    two acts that are allowed alone, but not together, the second sees the first.
    """

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def require_grantable(self, giver: Principal, permissions: Iterable[str], scope: str) -> None:
        """Return if `giver` has every one of `permissions` on `scope`, and may use his credential for them.

        Reading of kept content is given by who may let others read it, and has it not.

        Raises:
            PermissionDenied: the first, in alphabetical order, that he has not.
        """
        wanted = {LET_READ_CONTENT if one in READ_CONTENT else one for one in permissions}
        await self._authorizer.require_all(giver, wanted, scope)

    async def check_grant(self, session: AsyncSession, giver: Principal, grant: RoleGrantRow) -> None:
        """Return if `giver` may make `grant`, to a principal or a group.

        Raises:
            ResourceNotFound: the tenant has no such role.
            PermissionDenied: the role has a permission that he has not on its scope.
            DutiesConflict: someone who gets it has a duty that must be apart.
        """
        await lock_rights(session, grant.tenant_id)
        role = await role_called(session, grant.role)
        await self.require_grantable(giver, role.permissions, grant.scope)
        if grant.group_id is None:
            subjects: Sequence[str] = [grant.principal_id or ""]
        else:
            group = GroupName(grant.tenant_id, grant.group_id)
            subjects = await group_store.members_of(session, group)
            for other in await store.grants_of_group(session, grant.tenant_id, grant.group_id):
                _require_apart(str(group), await role_called(session, other.role), role)
        await self._keep_apart(session, grant.tenant_id, subjects, [role])

    async def check_join(
        self, session: AsyncSession, giver: Principal, group: GroupName, principals: Collection[str]
    ) -> None:
        """Return if `giver` may put `principals` into `group`: he gives them all that it has.

        Raises:
            PermissionDenied: a grant of the group has a permission that he has not on its scope.
            DutiesConflict: one of them has a duty that must be apart from one of the group's.
        """
        await lock_rights(session, group.tenant)
        grants = await store.grants_of_group(session, group.tenant, group.group)
        roles = await self._require_each(session, giver, grants)
        await self._keep_apart(session, group.tenant, principals, roles)

    async def check_role(
        self, session: AsyncSession, giver: Principal, role: Role, tenant: TenantName, *, added: Collection[str]
    ) -> None:
        """Return if `giver` may give a role of `tenant` the permissions `added`, and whoever holds it may have them.

        Raises:
            PermissionDenied: he has not one of them on the whole tenant.
            DutiesConflict: the role, a group or someone who holds it, would have two duties that must be apart.
        """
        await lock_rights(session, tenant.tenant)
        await self.require_grantable(giver, added, str(tenant))
        _require_apart(role.name, role, role)
        # Also of a group that nobody is in: whoever joins it is held against what he has, not against itself.
        for group, beside in await store.roles_beside(session, tenant.tenant, role.name):
            _require_apart(str(GroupName(tenant.tenant, group)), await role_called(session, beside), role)
        held_by = await store.holders(session, tenant.tenant, role.name)
        await self._keep_apart(session, tenant.tenant, held_by, [role], except_role=role.name)

    async def check_credential(
        self, session: AsyncSession, giver: Principal, owner: PrincipalName, narrowed: frozenset[str] | None
    ) -> None:
        """Return if `giver` may have a credential made with which one acts as `owner`, for `narrowed` only if given.

        One who uses a narrowed credential makes none that is good for more, not even for himself.

        Raises:
            PermissionDenied: with it he could do what he cannot do now.
        """
        if giver.name == str(owner):
            beyond = _beyond(giver.permissions, narrowed)
            if beyond is not None:
                raise PermissionDenied(permission=beyond, scope=str(TenantName(owner.tenant)))
            return
        for grant in await store.grants_reaching(session, owner):
            permissions = (await role_called(session, grant.role)).permissions
            given = permissions if narrowed is None else permissions & narrowed
            await self.require_grantable(giver, given, grant.scope)

    async def check_move(
        self, session: AsyncSession, giver: Principal, department: DepartmentName, before: str, after: str
    ) -> None:
        """Return if `giver` may move a department from the path `before` to `after`, ids joined by dots.

        Whoever holds a role on a department that comes above it holds it on the moved one too then.

        Raises:
            PermissionDenied: a grant on such a department has a permission that he has not on the moved one.
        """
        await lock_rights(session, department.tenant)
        old, new = set(before.split(".")), after.split(".")
        joined = [str(DepartmentName(department.tenant, one)) for one in new if one not in old]
        if joined:
            grants = await store.grants_on(session, department.tenant, joined)
            await self._require_each(session, giver, grants, on=str(department))

    async def _require_each(
        self, session: AsyncSession, giver: Principal, grants: Iterable[RoleGrantRow], *, on: str | None = None
    ) -> list[Role]:
        """Return the roles of `grants`, each of which `giver` may give, where it holds or on the scope `on`."""
        roles: dict[str, Role] = {}
        for grant in grants:
            role = roles.get(grant.role) or await role_called(session, grant.role)
            roles[grant.role] = role
            await self.require_grantable(giver, role.permissions, on or grant.scope)
        return list(roles.values())

    async def _keep_apart(
        self,
        session: AsyncSession,
        tenant: str,
        principals: Collection[str],
        wanted: Sequence[Role],
        *,
        except_role: str = "",
    ) -> None:
        """Return if none of `principals` holds a role, but `except_role`, that one of `wanted` conflicts with."""
        known: dict[str, Role] = {}
        for principal, name in await store.roles_held(session, tenant, principals) if wanted else ():
            held = known.get(name) or await role_called(session, name)
            known[name] = held
            for role in wanted if name != except_role else ():
                _require_apart(str(PrincipalName(tenant, principal)), held, role)


async def lock_rights(session: AsyncSession, tenant: str) -> None:
    """Wait until no other transaction changes the rights of a tenant, and keep others waiting until this one ends.

    Last of all locks but the epochs': whoever changes what rights depend on comes here after it. Grants, memberships
    and roles are written only after it: the trigger that notes a change wants it too, and has what was changed locked.
    """
    await run_sql(
        session,
        "INSERT INTO access_version AS known (tenant_id, value) VALUES (:tenant, 0)"
        " ON CONFLICT (tenant_id) DO UPDATE SET value = known.value",
        {"tenant": tenant},
    )


def role_name(role: str) -> str:
    """Return the resource name of a role as grants and policies call it."""
    return role if "/" in role else str(RoleName(role))


def _require_apart(subject: str, held: Role, wanted: Role) -> None:
    for conflict, one, other in conflicts_between(held, wanted):
        raise DutiesConflict(
            conflict=conflict,
            subject=subject,
            held=role_name(held.name),
            held_duty=one.verb,
            wanted=role_name(wanted.name),
            wanted_duty=other.verb,
        )


def _beyond(own: frozenset[str] | None, wanted: frozenset[str] | None) -> str | None:
    """Return a permission that a credential narrowed to `own` would give away by making one narrowed to `wanted`."""
    if own is None:
        return None
    if wanted is None:
        return "*"
    return min(wanted - own, default=None)
