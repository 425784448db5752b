"""`tollhouse groups`: principals who have the same rights."""

from collections.abc import Iterable
from typing import Annotated

import typer
from tollhouse.admin.v1 import groups_pb2 as pb
from tollhouse.admin.v1.groups_pb2_grpc import GroupServiceStub

from tollhouse_admin.command import CHANGE, DESTROY, LIST, READ, Session, command, noun
from tollhouse_admin.connection import Connection
from tollhouse_admin.dry_run import Change, carry_out
from tollhouse_admin.names import full_name, last_id, tenant_of
from tollhouse_admin.output import Layout
from tollhouse_admin.resource import DisplayName, Etag, Kind, NewId, changed, mask
from tollhouse_admin.scopes import OFFERED, Tenant, complete_in_tenant, complete_principals, in_tenant, tenant_name

app = noun("Groups: principals who have the same rights.")


def _groups(connection: Connection, tenant: str) -> Iterable[pb.Group]:
    stub = connection.stub(GroupServiceStub)
    return connection.pages(stub.ListGroups, pb.ListGroupsRequest(parent=tenant), "groups", limit=OFFERED)


GroupId = Annotated[
    str,
    typer.Argument(metavar="GROUP", help="Id or name of the group.", autocompletion=complete_in_tenant(_groups)),
]
Members = Annotated[
    list[str],
    typer.Argument(metavar="PRINCIPAL...", help="Ids or names of principals.", autocompletion=complete_principals),
]


def _stub(session: Session) -> GroupServiceStub:
    return session.connection.stub(GroupServiceStub)


def _read(session: Session, name: str) -> pb.Group:
    return session.connection.call(_stub(session).GetGroup, pb.GetGroupRequest(name=name))


def _name(session: Session, group: str, tenant: str | None) -> str:
    return in_tenant(session, group, "groups", tenant)


GROUP = Kind(Layout(["name", "display_name", "member_count", "create_time"]), _read)
GROUPS = Kind(Layout(["name", "display_name", "create_time"]), _read)
MEMBER = Kind(Layout(["principal", "create_time", "creator"]), _read)
CHANGED = Layout(["group.name", "group.member_count", "principals"])


@command(app, "create", CHANGE)
def create(session: Session, group: NewId, *, tenant: Tenant = None, display_name: DisplayName = None) -> None:
    """Create a group; its members have what 'tollhouse roles grant groups/ID ROLE' gives it."""
    name = _name(session, group, tenant)
    resource = pb.Group(display_name=display_name or "")
    request = pb.CreateGroupRequest(parent=tenant_of(name), group_id=last_id(name), group=resource)
    GROUP.create(session, name, _stub(session).CreateGroup, request)


@command(app, "list", LIST)
def list_groups(session: Session, *, tenant: Tenant = None) -> None:
    """List a tenant's groups."""
    request = pb.ListGroupsRequest(parent=tenant_name(session, tenant))
    GROUPS.show_pages(session, _stub(session).ListGroups, request, "groups")


@command(app, "show", READ)
def show(session: Session, group: GroupId, *, tenant: Tenant = None) -> None:
    """Show one group."""
    GROUP.show(session, _name(session, group, tenant))


@command(app, "members", LIST)
def members(session: Session, group: GroupId, *, tenant: Tenant = None) -> None:
    """List who is in a group."""
    request = pb.ListGroupMembersRequest(name=_name(session, group, tenant))
    MEMBER.show_pages(session, _stub(session).ListGroupMembers, request, "members")


@command(app, "update", CHANGE)
def update(
    session: Session, group: GroupId, *, tenant: Tenant = None, display_name: DisplayName = None, etag: Etag = None
) -> None:
    """Change a group's display name."""
    name = _name(session, group, tenant)
    fields = changed(display_name=display_name)
    resource = pb.Group(name=name, etag=etag or "", **fields)
    request = pb.UpdateGroupRequest(group=resource, update_mask=mask(fields))
    GROUP.change(session, "update", name, _stub(session).UpdateGroup, request)


@command(app, "add", CHANGE)
def add(session: Session, group: GroupId, principals: Members, *, tenant: Tenant = None) -> None:
    """Put principals into a group; needs every permission that the group has."""
    name = _name(session, group, tenant)
    request = pb.AddGroupMembersRequest(name=name, principals=_principals(name, principals))
    subject = f"{len(principals)} members to {name}"
    carry_out(
        session,
        Change(verb="add", subject=subject, method=_stub(session).AddGroupMembers, request=request, layout=CHANGED),
    )


@command(app, "remove", DESTROY)
def remove(session: Session, group: GroupId, principals: Members, *, tenant: Tenant = None) -> None:
    """Take principals out of a group, within two seconds on every server."""
    name = _name(session, group, tenant)
    request = pb.RemoveGroupMembersRequest(name=name, principals=_principals(name, principals))
    warning = f"{len(principals)} principals will lose what {name} gives them."
    subject = f"{len(principals)} members from {name}"
    method = _stub(session).RemoveGroupMembers
    carry_out(
        session, Change(verb="remove", subject=subject, method=method, request=request, layout=CHANGED, warning=warning)
    )


@command(app, "delete", DESTROY)
def delete(session: Session, group: GroupId, *, tenant: Tenant = None, etag: Etag = None) -> None:
    """Delete a group with its grants; its members lose what it gave within two seconds."""
    name = _name(session, group, tenant)
    warning = f"{name} and all of its grants will be deleted."
    GROUP.change(
        session,
        "delete",
        name,
        _stub(session).DeleteGroup,
        pb.DeleteGroupRequest(name=name, etag=etag or ""),
        warning=warning,
    )


def _principals(group: str, typed: list[str]) -> list[str]:
    return [full_name(one, "principals", tenant_of(group)) for one in typed]
