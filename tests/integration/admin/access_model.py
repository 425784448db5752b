"""Who may do what, as plainly as it can be said, and acts that are tried on the services and on it alike."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from hypothesis import strategies as st
from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import departments_pb2, groups_pb2, roles_pb2
from tollhouse_server.access.roles import ROLES
from tollhouse_server.api.methods import snake_case
from tollhouse_server.api.permissions import permission_for
from tollhouse_server.database.rows import run_sql
from tollhouse_server.errors import PermissionDenied, TollhouseError
from tollhouse_server.identity.principal import Principal

from tests.integration.admin.plane import Plane, call_of, rpc_of
from tests.unit.access.build import principal

PEOPLE: Final = ("ann", "bob", "eve")
GROUPS: Final = ("staff", "leads")
DEPARTMENTS: Final = ("d0", "d1", "d2")
PALETTE: Final = (
    "roleGrants.create",
    "roleGrants.delete",
    "groupMembers.add",
    "groupMembers.remove",
    "roles.create",
    "roles.update",
    "departments.move",
    "projects.create",
    "limits.get",
)
STARTER: Final = frozenset(PALETTE[:7])
_TENANT_WIDE: Final = ""

Right = tuple[str, str]
"""A permission on a node: a department, or the whole tenant, which is the empty text."""


@dataclass(slots=True)
class Model:
    """A tenant's rights in plain sets. Subjects are people and groups; `parents` is the tree."""

    parents: dict[str, str] = field(default_factory=lambda: dict.fromkeys(DEPARTMENTS, _TENANT_WIDE))
    grants: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    members: set[tuple[str, str]] = field(default_factory=set)
    roles: dict[str, frozenset[str]] = field(default_factory=dict)

    def above(self, node: str) -> set[str]:
        """Return a node and everything above it."""
        return {node} | (self.above(self.parents[node]) if node else set())

    def given(self, role: str, scope: str) -> set[Right]:
        """Return what a grant of a role on a scope gives."""
        permissions = self.roles[role] if role in self.roles else ROLES[role].permissions
        return {(one, node) for one in permissions for node in ("", *DEPARTMENTS) if scope in self.above(node)}

    def rights(self, who: str, claimed: tuple[str, ...] = ()) -> set[Right]:
        """Return everything that somebody may do."""
        subjects = {who, *claimed, *(group for group, member in self.members if member == who)}
        held = [self.given(role, scope) for subject, role, scope in self.grants.values() if subject in subjects]
        return set[Right]().union(*held)

    def of_group(self, group: str) -> set[Right]:
        """Return everything that a group gives."""
        return set[Right]().union(*(self.given(role, at) for who, role, at in self.grants.values() if who == group))


@dataclass(frozen=True, slots=True)
class Act:
    """What somebody tries: with the message for the services, what it takes, and what it does to the model."""

    message: Any
    needs: set[Right]
    apply: Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who tries; `narrowed` is what his credential may be used for, `claimed` the groups that it names."""

    name: str
    narrowed: frozenset[str] | None = None
    claimed: tuple[str, ...] = ()


actors = st.builds(
    Actor,
    st.sampled_from(PEOPLE),
    st.none() | st.frozensets(st.sampled_from(PALETTE), min_size=4),
    st.sampled_from([(), (), ("staff",)]),
)
_nodes = st.sampled_from(("", *DEPARTMENTS))
_permissions = st.frozensets(st.sampled_from(PALETTE), min_size=1, max_size=4)
steps = st.lists(
    st.tuples(
        actors,
        st.one_of(
            st.tuples(st.just("grant"), st.sampled_from((*PEOPLE, *GROUPS)), st.integers(0, 9), _nodes),
            st.tuples(st.just("revoke"), st.integers(0, 9)),
            st.tuples(st.just("join"), st.sampled_from(GROUPS), st.sampled_from(PEOPLE)),
            st.tuples(st.just("leave"), st.sampled_from(GROUPS), st.sampled_from(PEOPLE)),
            st.tuples(st.just("role"), _permissions),
            st.tuples(st.just("grow"), st.integers(0, 9), _permissions),
            st.tuples(st.just("move"), st.sampled_from(DEPARTMENTS), _nodes),
        ),
    ),
    min_size=4,
    max_size=12,
)


class Company:
    """One tenant, on the services and in the model."""

    _numbers = count()

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self.tenant = f"model-{next(self._numbers)}"
        self.model = Model()
        self._made = count()

    @property
    def name(self) -> str:
        """Resource name of the tenant."""
        return f"tenants/{self.tenant}"

    def scope(self, node: str) -> str:
        """Resource name of a node."""
        return f"{self.name}/departments/{node}" if node else self.name

    async def found(self) -> None:
        """Make the tenant: ann may do all that is tried, bob may try it and has little, groups have more than he."""
        starter = f"{self.name}/roles/starter"
        self.model.roles[starter] = STARTER
        held = (
            ("ann", "tenant-admin", ""),
            ("bob", starter, ""),
            ("eve", "read-only", "d2"),
            ("leads", "tenant-admin", "d0"),
            ("staff", "caller", "d1"),
        )
        async with self.plane.database.transaction() as session:
            for sql, values in _foundation(self.tenant):
                await run_sql(session, sql, values)
            for who, role, node in held:
                await self._give(session, who, role, node)
            await run_sql(session, "UPDATE epoch SET value = value + 1 WHERE topic = 'access'")
        await self.plane.watch.refresh()

    async def _give(self, session: AsyncSession, who: str, role: str, node: str) -> None:
        grant = f"g-{next(self._made)}"
        self.model.grants[grant] = (who, role, node)
        column = "group_id" if who in GROUPS else "principal_id"
        columns = f"tenant_id, grant_id, {column}, role, scope"
        sql = f"INSERT INTO role_grant ({columns}) VALUES (:t, :g, :p, :r, :s)"  # noqa: S608 - columns of ours
        await run_sql(session, sql, {"t": self.tenant, "g": grant, "p": who, "r": role, "s": self.scope(node)})

    async def attempt(self, actor: Actor, step: tuple[Any, ...]) -> None:
        """Try a step; hold that it is allowed exactly where the model says so, and raises nobody above the actor."""
        act = self._act(step)
        if act is None:
            return
        before = {who: self.model.rights(who) for who in PEOPLE}
        may = self._usable(actor)
        try:
            await self._send(act.message, self._principal(actor))
        except PermissionDenied as refusal:
            assert not act.needs <= may, (actor, step, refusal)
            return
        except TollhouseError:
            return
        assert act.needs <= may, (actor, step, sorted(act.needs - may))
        act.apply(self.model)
        await self.plane.watch.refresh()
        own = before[actor.name] | self.model.rights(actor.name, actor.claimed) & may
        for who in PEOPLE:
            beyond = self.model.rights(who) - before[who] - may
            assert not beyond, (actor, step, who, beyond)
        assert self.model.rights(actor.name) <= own, (actor, step)

    def check(self) -> None:
        """Hold that everybody may do what the model says, with each credential, and nothing else."""
        for who in PEOPLE:
            for actor in (Actor(who), Actor(who, claimed=GROUPS[:1]), Actor(who, narrowed=frozenset(PALETTE[4:]))):
                may = self._usable(actor)
                for permission in PALETTE:
                    for node in ("", *DEPARTMENTS):
                        allowed = self.plane.authorizer.allows(self._principal(actor), permission, self.scope(node))
                        assert allowed is ((permission, node) in may), (actor, permission, node)

    def _usable(self, actor: Actor) -> set[Right]:
        rights = self.model.rights(actor.name, actor.claimed)
        return rights if actor.narrowed is None else {one for one in rights if one[0] in actor.narrowed}

    def _principal(self, actor: Actor) -> Principal:
        return principal(self.tenant, actor.name, groups=actor.claimed, permissions=actor.narrowed)

    async def _send(self, message: Any, who: Principal) -> Any:
        rpc = rpc_of(message)
        rule = permission_for(rpc)
        assert rule.permission is not None
        await self.plane.authorizer.authorize(who, rule.permission, rule.scope(message, who))
        _, service, method = rpc.rsplit(".", 2)
        return await getattr(self.plane.handlers[service], snake_case(method))(message, call_of(who, rpc))

    def _act(self, step: tuple[Any, ...]) -> Act | None:
        kind, *rest = step
        makers: Mapping[str, Callable[..., Act | None]] = {
            "grant": self._to_grant,
            "revoke": self._to_revoke,
            "join": self._to_join,
            "leave": self._to_leave,
            "role": self._to_make_role,
            "grow": self._to_grow_role,
            "move": self._to_move,
        }
        return makers[kind](*rest)

    def _to_grant(self, subject: str, number: int, node: str) -> Act:
        known = (*sorted(self.model.roles), "caller", "read-only", "tenant-admin")
        role, grant_id = known[number % len(known)], f"g-{next(self._made)}"
        grant = roles_pb2.RoleGrant(role=role if "/" in role else f"roles/{role}", scope=self.scope(node))
        field_name, collection = ("group", "groups") if subject in GROUPS else ("principal", "principals")
        setattr(grant, field_name, f"{self.name}/{collection}/{subject}")
        message = roles_pb2.CreateRoleGrantRequest(parent=self.name, role_grant_id=grant_id, role_grant=grant)

        def apply(model: Model) -> None:
            model.grants[grant_id] = (subject, role, node)

        return Act(message, {("roleGrants.create", node)} | self.model.given(role, node), apply)

    def _to_revoke(self, number: int) -> Act | None:
        if not self.model.grants:
            return None
        grant_id = sorted(self.model.grants)[number % len(self.model.grants)]
        message = roles_pb2.DeleteRoleGrantRequest(name=f"{self.name}/roleGrants/{grant_id}")
        return Act(message, {("roleGrants.delete", "")}, lambda model: model.grants.pop(grant_id))

    def _to_join(self, group: str, who: str) -> Act:
        names = [f"{self.name}/principals/{who}"]
        message = groups_pb2.AddGroupMembersRequest(name=f"{self.name}/groups/{group}", principals=names)
        needs = {("groupMembers.add", "")} | self.model.of_group(group)
        return Act(message, needs, lambda model: model.members.add((group, who)))

    def _to_leave(self, group: str, who: str) -> Act:
        names = [f"{self.name}/principals/{who}"]
        message = groups_pb2.RemoveGroupMembersRequest(name=f"{self.name}/groups/{group}", principals=names)
        return Act(message, {("groupMembers.remove", "")}, lambda model: model.members.discard((group, who)))

    def _to_make_role(self, permissions: frozenset[str]) -> Act:
        role_id = f"r-{next(self._made)}"
        role = roles_pb2.Role(permissions=sorted(permissions))
        message = roles_pb2.CreateRoleRequest(parent=self.name, role_id=role_id, role=role)

        def apply(model: Model) -> None:
            model.roles[f"{self.name}/roles/{role_id}"] = permissions

        return Act(message, {("roles.create", "")} | {(one, "") for one in permissions}, apply)

    def _to_grow_role(self, number: int, permissions: frozenset[str]) -> Act:
        name = sorted(self.model.roles)[number % len(self.model.roles)]
        message = roles_pb2.UpdateRoleRequest(role=roles_pb2.Role(name=name, permissions=sorted(permissions)))

        def apply(model: Model) -> None:
            model.roles[name] = permissions

        added = permissions - self.model.roles[name]
        return Act(message, {("roles.update", "")} | {(one, "") for one in added}, apply)

    def _to_move(self, department: str, parent: str) -> Act | None:
        if department in self.model.above(parent):
            return None
        above = self.scope(parent) if parent else ""
        message = departments_pb2.MoveDepartmentRequest(name=self.scope(department), parent_department=above)
        joined = self.model.above(parent) - self.model.above(department) - {""}
        grants = [(role, at) for _, role, at in self.model.grants.values() if at in joined]
        needs = {(one, department) for role, at in grants for one, _ in self.model.given(role, at)}

        def apply(model: Model) -> None:
            model.parents[department] = parent

        return Act(message, {("departments.move", "")} | needs, apply)


def _foundation(tenant: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "INSERT INTO tenant (tenant_id) VALUES (:t)", {"t": tenant}
    for one in DEPARTMENTS:
        sql = "INSERT INTO department (tenant_id, department_id, path) VALUES (:t, :d, text2ltree(:d))"
        yield sql, {"t": tenant, "d": one}
    for one in PEOPLE:
        yield (
            "INSERT INTO principal (tenant_id, principal_id, kind) VALUES (:t, :p, 'SERVICE_ACCOUNT')",
            {"t": tenant, "p": one},
        )
    for one in GROUPS:
        yield "INSERT INTO principal_group (tenant_id, group_id) VALUES (:t, :g)", {"t": tenant, "g": one}
    starter = {"t": tenant, "r": sorted(STARTER)}
    yield "INSERT INTO tenant_role (tenant_id, role_id, permissions) VALUES (:t, 'starter', :r)", starter
