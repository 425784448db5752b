"""`tollhouse principals`: the users and service accounts of a tenant."""

from enum import StrEnum
from typing import Annotated

import typer
from tollhouse.admin.v1 import principals_pb2 as pb
from tollhouse.admin.v1.principals_pb2_grpc import PrincipalServiceStub

from tollhouse_admin.command import CHANGE, DESTROY, LIST, READ, Session, command, noun
from tollhouse_admin.names import last_id, tenant_of
from tollhouse_admin.output import Layout
from tollhouse_admin.rendering import enum_number
from tollhouse_admin.resource import DisplayName, Etag, Kind, NewId, ShowDeleted, changed, mask
from tollhouse_admin.scopes import Tenant, complete_principals, in_tenant, tenant_name

app = noun("Principals: the users and service accounts of a tenant.")

PrincipalId = Annotated[
    str, typer.Argument(metavar="PRINCIPAL", help="Id or name.", autocompletion=complete_principals)
]


class PrincipalKind(StrEnum):
    """What a principal is."""

    USER = "user"
    SERVICE_ACCOUNT = "service-account"


class PrincipalState(StrEnum):
    """Where a principal is in its life."""

    ACTIVE = "active"
    DISABLED = "disabled"
    DELETED = "deleted"


def _stub(session: Session) -> PrincipalServiceStub:
    return session.connection.stub(PrincipalServiceStub)


def _read(session: Session, name: str) -> pb.Principal:
    return session.connection.call(_stub(session).GetPrincipal, pb.GetPrincipalRequest(name=name))


def _name(session: Session, principal: str, tenant: str | None) -> str:
    return in_tenant(session, principal, "principals", tenant)


PRINCIPAL = Kind(Layout(["name", "display_name", "kind", "email", "state", "create_time"]), _read)

Email = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="E-mail address of a user; an empty text clears it.")
]
Issuer = Annotated[
    str | None, typer.Option(metavar="URL", help="Issuer of its OpenID Connect tokens; goes with --subject.")
]
Subject = Annotated[str | None, typer.Option(metavar="TEXT", help="Its claim `sub` in tokens of that issuer.")]


@command(app, "create", CHANGE)
def create(
    session: Session,
    principal: NewId,
    *,
    kind: Annotated[PrincipalKind, typer.Option(help="What it is.")] = PrincipalKind.SERVICE_ACCOUNT,
    tenant: Tenant = None,
    display_name: DisplayName = None,
    email: Email = None,
    issuer: Issuer = None,
    subject: Subject = None,
) -> None:
    """Create a principal; it may do nothing until a role is granted."""
    name = _name(session, principal, tenant)
    number = pb.Principal.Kind.ValueType(enum_number(pb.Principal.Kind.DESCRIPTOR, kind.value))
    resource = pb.Principal(
        display_name=display_name or "", kind=number, email=email or "", issuer=issuer or "", subject=subject or ""
    )
    request = pb.CreatePrincipalRequest(parent=tenant_of(name), principal_id=last_id(name), principal=resource)
    PRINCIPAL.create(session, name, _stub(session).CreatePrincipal, request)


@command(app, "list", LIST)
def list_principals(
    session: Session,
    *,
    tenant: Tenant = None,
    kind: Annotated[PrincipalKind | None, typer.Option(help="Only principals of this kind.")] = None,
    state: Annotated[PrincipalState | None, typer.Option(help="Only principals in this state.")] = None,
    email: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Only the one with this address.")] = None,
    show_deleted: ShowDeleted = False,
) -> None:
    """List a tenant's principals."""
    kinds, states = pb.Principal.Kind, pb.Principal.State
    request = pb.ListPrincipalsRequest(
        parent=tenant_name(session, tenant),
        show_deleted=show_deleted,
        kind=kinds.ValueType(enum_number(kinds.DESCRIPTOR, kind.value)) if kind else kinds.KIND_UNSPECIFIED,
        state=states.ValueType(enum_number(states.DESCRIPTOR, state.value)) if state else states.STATE_UNSPECIFIED,
        email=email or "",
    )
    PRINCIPAL.show_pages(session, _stub(session).ListPrincipals, request, "principals")


@command(app, "show", READ)
def show(session: Session, principal: PrincipalId, *, tenant: Tenant = None) -> None:
    """Show one principal."""
    PRINCIPAL.show(session, _name(session, principal, tenant))


@command(app, "update", CHANGE)
def update(
    session: Session,
    principal: PrincipalId,
    *,
    tenant: Tenant = None,
    display_name: DisplayName = None,
    email: Email = None,
    issuer: Issuer = None,
    subject: Subject = None,
    etag: Etag = None,
) -> None:
    """Change a principal's display name, e-mail address, or the tokens by which it is known."""
    name = _name(session, principal, tenant)
    fields = changed(display_name=display_name, email=email, issuer=issuer, subject=subject)
    resource = pb.Principal(name=name, etag=etag or "", **fields)
    request = pb.UpdatePrincipalRequest(principal=resource, update_mask=mask(fields))
    PRINCIPAL.change(session, "update", name, _stub(session).UpdatePrincipal, request)


@command(app, "disable", DESTROY)
def disable(session: Session, principal: PrincipalId, *, tenant: Tenant = None, etag: Etag = None) -> None:
    """Refuse a principal's credentials until it is enabled."""
    name = _name(session, principal, tenant)
    request = pb.DisablePrincipalRequest(name=name, etag=etag or "")
    warning = f"Every credential of {name} will be refused until it is enabled."
    PRINCIPAL.change(session, "disable", name, _stub(session).DisablePrincipal, request, warning=warning)


@command(app, "enable", CHANGE)
def enable(session: Session, principal: PrincipalId, *, tenant: Tenant = None, etag: Etag = None) -> None:
    """Accept a disabled principal's credentials again."""
    name = _name(session, principal, tenant)
    request = pb.EnablePrincipalRequest(name=name, etag=etag or "")
    PRINCIPAL.change(session, "enable", name, _stub(session).EnablePrincipal, request)


@command(app, "delete", DESTROY)
def delete(session: Session, principal: PrincipalId, *, tenant: Tenant = None, etag: Etag = None) -> None:
    """Delete a principal: its credentials are refused for good, its records stay."""
    name = _name(session, principal, tenant)
    request = pb.DeletePrincipalRequest(name=name, etag=etag or "")
    warning = f"Every credential of {name} will be refused for good."
    PRINCIPAL.change(session, "delete", name, _stub(session).DeletePrincipal, request, warning=warning)
