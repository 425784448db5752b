"""GroupService: groups of principals, who is in them."""

from collections.abc import Iterable

from google.protobuf.empty_pb2 import Empty
from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import groups_pb2 as pb

from tollhouse_server.access import group_store as store
from tollhouse_server.access.authorizer import Authorizer
from tollhouse_server.access.granting import Granting, lock_rights
from tollhouse_server.access.tables import GroupMemberRow, GroupRow
from tollhouse_server.api.call import Call
from tollhouse_server.api.masks import changed_fields
from tollhouse_server.api.mutation import Change, Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.values import etag, timestamp, version_of
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import Topic
from tollhouse_server.database.rows import change, check_version
from tollhouse_server.names import GroupName, PrincipalName, TenantName, invalid
from tollhouse_server.tenancy import store as tenancy


class GroupService:
    """Creates, reads, renames, fills, empties and deletes groups."""

    def __init__(self, database: Database, mutations: Mutations, pages: PageTokens, authorizer: Authorizer) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages
        self._granting = Granting(authorizer)

    async def create_group(self, request: pb.CreateGroupRequest, call: Call) -> pb.Group:
        name = GroupName.parse(f"{request.parent}/groups/{request.group_id}", "group_id")

        async def act(session: AsyncSession) -> Change[pb.Group]:
            await tenancy.active_tenant(session, TenantName(name.tenant))
            row = GroupRow(tenant_id=name.tenant, group_id=name.group, display_name=request.group.display_name)
            after = _message(await store.create_group(session, row), 0)
            return Change(resource=after.name, before=None, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Group, act)

    async def get_group(self, request: pb.GetGroupRequest, call: Call) -> pb.Group:
        name = GroupName.parse(request.name)
        async with self._database.within(call.domain) as session:
            return _message(await store.get_group(session, name), await store.member_count(session, name))

    async def list_groups(self, request: pb.ListGroupsRequest, call: Call) -> pb.ListGroupsResponse:
        tenant = TenantName.parse(request.parent, "parent").tenant
        async with self._database.within(call.domain) as session:
            rows = await store.list_groups(
                session, tenant, after=self._pages.after(request), size=self._pages.size(request) + 1
            )
        page, last = self._pages.split(request, rows)
        token = self._pages.next(request, last.group_id) if last else ""
        return pb.ListGroupsResponse(groups=[_message(row, 0) for row in page], next_page_token=token)

    async def update_group(self, request: pb.UpdateGroupRequest, call: Call) -> pb.Group:
        name = GroupName.parse(request.group.name, "group.name")
        fields = changed_fields(request.group, request.update_mask, ("display_name",))
        values = {field: getattr(request.group, field) for field in fields}

        async def act(session: AsyncSession) -> Change[pb.Group]:
            row = await _locked(session, name, request.group.etag)
            members = await store.member_count(session, name)
            before = _message(row, members)
            after = _message(await change(session, row, **values), members)
            return Change(resource=str(name), before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Group, act)

    async def delete_group(self, request: pb.DeleteGroupRequest, call: Call) -> Empty:
        name = GroupName.parse(request.name)

        async def act(session: AsyncSession) -> Change[Empty]:
            row = await _locked(session, name, request.etag)
            before = _message(row, await store.member_count(session, name))
            await lock_rights(session, name.tenant)
            await store.delete_group(session, row)
            return Change(resource=str(name), before=before, after=None, answer=Empty())

        return await self._mutations.run(call, request, Empty, act, Topic.ACCESS)

    async def add_group_members(self, request: pb.AddGroupMembersRequest, call: Call) -> pb.GroupMembersChange:
        name = GroupName.parse(request.name)
        principals = _principals(request.principals, name)

        async def act(session: AsyncSession) -> Change[pb.GroupMembersChange]:
            # In one order: two requests for the same people must not wait for one another.
            for principal in principals:
                await tenancy.active_principal(session, PrincipalName(name.tenant, principal))
            row = await store.get_group(session, name, lock=True)
            await self._granting.check_join(session, call.principal, name, principals)
            before = _message(row, await store.member_count(session, name))
            added = await store.add_members(session, name, principals, creator=call.principal.name)
            return await _changed(session, row, before, added)

        return await self._mutations.run(call, request, pb.GroupMembersChange, act, Topic.ACCESS)

    async def remove_group_members(self, request: pb.RemoveGroupMembersRequest, call: Call) -> pb.GroupMembersChange:
        name = GroupName.parse(request.name)
        principals = _principals(request.principals, name)

        async def act(session: AsyncSession) -> Change[pb.GroupMembersChange]:
            row = await store.get_group(session, name, lock=True)
            before = _message(row, await store.member_count(session, name))
            await lock_rights(session, name.tenant)
            removed = await store.remove_members(session, name, principals)
            return await _changed(session, row, before, removed)

        return await self._mutations.run(call, request, pb.GroupMembersChange, act, Topic.ACCESS)

    async def list_group_members(self, request: pb.ListGroupMembersRequest, call: Call) -> pb.ListGroupMembersResponse:
        name = GroupName.parse(request.name)
        async with self._database.within(call.domain) as session:
            await store.get_group(session, name)
            rows = await store.list_members(
                session, name, after=self._pages.after(request), size=self._pages.size(request) + 1
            )
        page, last = self._pages.split(request, rows)
        token = self._pages.next(request, last.principal_id) if last else ""
        return pb.ListGroupMembersResponse(members=map(_member, page), next_page_token=token)


async def _locked(session: AsyncSession, name: GroupName, tag: str) -> GroupRow:
    row = await store.get_group(session, name, lock=True)
    check_version(row, version_of(tag, str(name)), str(name))
    return row


async def _changed(
    session: AsyncSession, row: GroupRow, before: pb.Group, principals: list[str]
) -> Change[pb.GroupMembersChange]:
    """Return what a change of members did; the trail has who they were."""
    members = await store.member_count(session, GroupName(row.tenant_id, row.group_id))
    names = [str(PrincipalName(row.tenant_id, one)) for one in principals]
    after = pb.GroupMembersChange(group=_message(row, members), principals=names)
    return Change(resource=before.name, before=before, after=after, answer=after)


def _principals(texts: Iterable[str], group: GroupName) -> list[str]:
    names = [PrincipalName.parse(text, f"principals[{index}]") for index, text in enumerate(texts)]
    for index, name in enumerate(names):
        if name.tenant != group.tenant:
            raise invalid(f"principals[{index}]", "must be of the group's own tenant")
    return sorted(name.principal for name in names)


def _member(row: GroupMemberRow) -> pb.GroupMember:
    return pb.GroupMember(
        principal=str(PrincipalName(row.tenant_id, row.principal_id)),
        create_time=timestamp(row.created_at),
        creator=row.creator,
    )


def _message(row: GroupRow, members: int) -> pb.Group:
    return pb.Group(
        name=str(GroupName(row.tenant_id, row.group_id)),
        display_name=row.display_name,
        member_count=members,
        create_time=timestamp(row.created_at),
        update_time=timestamp(row.updated_at),
        etag=etag(row.version),
    )
