"""TreeService: a tenant as one document, read and made so."""

from collections.abc import Collection

from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import trees_pb2 as pb

from tollhouse_server.access.authorizer import Authorizer
from tollhouse_server.api.call import Call
from tollhouse_server.api.mutation import Change, Mutations
from tollhouse_server.api.trees.checks import check_entries
from tollhouse_server.api.trees.entries import SECTIONS, WITHIN_DEPARTMENTS, Step, entries_of, key_of, place, plan
from tollhouse_server.api.trees.reading import Current, read_tree
from tollhouse_server.api.trees.writing import Services, TreeWriter
from tollhouse_server.database.engine import Database
from tollhouse_server.errors import FieldViolation, InvalidRequest, PermissionDenied, ResourceNotFound
from tollhouse_server.names import DepartmentName, TenantName, domain_of, invalid
from tollhouse_server.tenancy.move_store import begin_move

_TO_READ = {
    pb.TREE_SECTION_TENANT: "tenants.get",
    pb.TREE_SECTION_PRINCIPALS: "principals.list",
    pb.TREE_SECTION_GROUPS: "groups.list",
    pb.TREE_SECTION_ROLES: "roles.list",
    pb.TREE_SECTION_DEPARTMENTS: "departments.list",
    pb.TREE_SECTION_PROJECTS: "projects.list",
    pb.TREE_SECTION_ROLE_GRANTS: "roleGrants.list",
    pb.TREE_SECTION_LIMITS: "limits.list",
}


class TreeService:
    """Exports and applies trees."""

    def __init__(self, database: Database, mutations: Mutations, authorizer: Authorizer, services: Services) -> None:
        self._database = database
        self._mutations = mutations
        self._authorizer = authorizer
        self._services = services

    async def export_tree(self, request: pb.ExportTreeRequest, call: Call) -> pb.ExportTreeResponse:
        tenant, root = _place(request)
        sections = await self._readable(call, request, root)
        async with self._database.within(call.domain) as session:
            current = await read_tree(session, tenant, root, sections)
        if not current.exists:
            raise ResourceNotFound(name=request.parent)
        if pb.TREE_SECTION_DEPARTMENTS not in sections:
            current.tree.ClearField("departments")
        return pb.ExportTreeResponse(tree=current.tree, sections=sections)

    async def apply_tree(self, request: pb.ApplyTreeRequest, call: Call) -> pb.ApplyTreeResponse:
        tenant, root = _place(request)
        check_entries(request.tree)
        named = [section for section in SECTIONS if entries_of(request.tree, section)]
        pruned = (request.prune_sections or named) if request.prune else []
        _require_inside(root, [*named, *pruned])
        for section in {*named, *pruned}:
            await self._authorizer.authorize(call.principal, _TO_READ[section], request.scope or request.parent)

        async def act(session: AsyncSession) -> Change[pb.ApplyTreeResponse]:
            return await self._apply(session, request, call, tenant=tenant, root=root, pruned=pruned)

        return await self._mutations.run(call, request, pb.ApplyTreeResponse, act)

    async def _apply(
        self,
        session: AsyncSession,
        request: pb.ApplyTreeRequest,
        call: Call,
        *,
        tenant: str,
        root: DepartmentName | None,
        pruned: Collection[int],
    ) -> Change[pb.ApplyTreeResponse]:
        current = await _locked(session, tenant, root)
        if root is not None:
            _require_confined(request.tree, current, root)
            _keep_root(request.tree, current.tree, root)
        found = plan(request.tree, current.tree, exists=current.exists, prune=pruned)
        writer = TreeWriter(session, call, self._authorizer, self._services)
        done = await writer.carry_out(found.steps, tenant, current.grants)
        made = writer.transaction
        for part, _ in made.made:
            part.request_id = request.request_id
        answer = pb.ApplyTreeResponse(
            changes=[_change(step, name) for step, name in done], unchanged_count=found.unchanged_count
        )
        # The parts say what has changed; of the whole only how much it was.
        after = pb.ApplyTreeResponse(unchanged_count=found.unchanged_count)
        return Change(
            resource=request.scope or request.parent,
            before=None,
            after=after,
            answer=answer,
            parts=made.made,
            topics=made.topics,
        )

    async def _readable(
        self, call: Call, request: pb.ExportTreeRequest, root: DepartmentName | None
    ) -> list["pb.TreeSection.ValueType"]:
        """Return the sections that were asked for, or, if none was, those that the caller may read."""
        where = request.scope or request.parent
        if request.sections:
            _require_inside(root, request.sections)
            for section in request.sections:
                await self._authorizer.authorize(call.principal, _TO_READ[section], where)
            return [section for section in SECTIONS if section in request.sections]
        readable = []
        for section in SECTIONS:
            if root is None or section in WITHIN_DEPARTMENTS:
                try:
                    await self._authorizer.authorize(call.principal, _TO_READ[section], where)
                except PermissionDenied:
                    continue
                readable.append(section)
        return readable


def _place(request: pb.ExportTreeRequest | pb.ApplyTreeRequest) -> tuple[str, DepartmentName | None]:
    """Return the tenant, and the department to which the document is confined, if it is."""
    tenant = TenantName.parse(request.parent, "parent").tenant
    if not request.scope or request.scope == request.parent:
        return tenant, None
    if domain_of(request.scope) != tenant:
        raise invalid("scope", "must be of the tenant that the request names")
    return tenant, DepartmentName.parse(request.scope, "scope")


async def _locked(session: AsyncSession, tenant: str, root: DepartmentName | None) -> Current:
    """Return a tenant as it is; its tree stays so until the transaction ends."""
    try:
        await begin_move(session, tenant)
    except ResourceNotFound:
        return Current(exists=False)
    return await read_tree(session, tenant, root)


def _require_inside(root: DepartmentName | None, sections: Collection[int]) -> None:
    if root is None:
        return
    outside = [SECTIONS[section] for section in SECTIONS if section in sections and section not in WITHIN_DEPARTMENTS]
    if outside:
        raise invalid("scope", f"has no {', '.join(outside)}: these belong to the tenant as a whole")


def _require_confined(tree: pb.Tree, current: Current, root: DepartmentName) -> None:
    """Refuse entries that are, or would be, outside of the department that the request is confined to."""
    inside = set(current.paths)
    outside: list[str] = []
    waiting = [one for one in tree.departments if one.id not in inside]
    while added := [one for one in waiting if one.parent in inside]:
        inside |= {one.id for one in added}
        waiting = [one for one in waiting if one.id not in inside]
    outside += [place(pb.TREE_SECTION_DEPARTMENTS, one.id) for one in waiting]
    outside += [place(pb.TREE_SECTION_PROJECTS, one.id) for one in tree.projects if one.department not in inside]
    names = {str(DepartmentName(root.tenant, one)) for one in inside}
    for section in (pb.TREE_SECTION_ROLE_GRANTS, pb.TREE_SECTION_LIMITS):
        outside += [
            place(section, key_of(one))
            for one in entries_of(tree, section)
            if "/".join(one.scope.split("/")[:4]) not in names
        ]
    if outside:
        description = f"is outside of {root}, to which the request is confined"
        raise InvalidRequest(violations=tuple(FieldViolation(path=one, description=description) for one in outside))


def _keep_root(tree: pb.Tree, current: pb.Tree, root: DepartmentName) -> None:
    """Take the department to which the request is confined out of what is compared, unless it is named."""
    if all(one.id != root.department for one in tree.departments):
        rest = [one for one in current.departments if one.id != root.department]
        current.ClearField("departments")
        current.departments.extend(rest)


def _change(step: Step, name: str) -> pb.TreeChange:
    action = pb.TreeChange.ACTION_CHANGED
    if step.current is None:
        action = pb.TreeChange.ACTION_CREATED
    elif step.wanted is None:
        action = pb.TreeChange.ACTION_DELETED
    return pb.TreeChange(
        action=action,
        section=step.section,
        resource=name,
        fields=[pb.TreeFieldChange(field=one.field, before=one.before, after=one.after) for one in step.differences],
    )
