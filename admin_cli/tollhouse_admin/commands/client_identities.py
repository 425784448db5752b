"""`tollhouse client-identities`: whose certificates are accepted, and as whom."""

from collections.abc import Iterable
from typing import Annotated

import typer
from tollhouse.admin.v1 import api_keys_pb2
from tollhouse.admin.v1 import identity_providers_pb2 as pb
from tollhouse.admin.v1.identity_providers_pb2_grpc import IdentityProviderServiceStub

from tollhouse_admin.command import CHANGE, DESTROY, LIST, READ, Session, command, noun
from tollhouse_admin.commands.keys import Environment
from tollhouse_admin.connection import Connection
from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.names import full_name, named
from tollhouse_admin.output import Layout
from tollhouse_admin.rendering import enum_number
from tollhouse_admin.resource import DisplayName, Etag, Kind, NewId
from tollhouse_admin.scopes import (
    OFFERED,
    Department,
    Project,
    Tenant,
    complete_in_tenant,
    complete_principals,
    in_tenant,
    project_name,
    tenant_name,
)

app = noun("Client identities: whose certificates are accepted, and as whom.")


def _clients(connection: Connection, tenant: str) -> Iterable[pb.ClientIdentity]:
    stub = connection.stub(IdentityProviderServiceStub)
    request = pb.ListClientIdentitiesRequest(parent=tenant)
    return connection.pages(stub.ListClientIdentities, request, "client_identities", limit=OFFERED)


ClientId = Annotated[
    str, typer.Argument(metavar="CLIENT", help="Id or name.", autocompletion=complete_in_tenant(_clients))
]


def _stub(session: Session) -> IdentityProviderServiceStub:
    return session.connection.stub(IdentityProviderServiceStub)


def _read(session: Session, name: str) -> pb.ClientIdentity:
    return session.connection.call(_stub(session).GetClientIdentity, pb.GetClientIdentityRequest(name=name))


KIND = Kind(
    Layout(["name", "display_name", "spiffe_id", "subject", "principal", "project", "environment", "create_time"]),
    _read,
)


@command(app, "create", CHANGE)
def create(
    session: Session,
    client_id: NewId,
    *,
    principal: Annotated[
        str,
        typer.Option(
            metavar="PRINCIPAL",
            callback=named,
            help="Who acts when the certificate is used.",
            autocompletion=complete_principals,
        ),
    ],
    spiffe_id: Annotated[str | None, typer.Option(metavar="URI", help="SPIFFE id in the certificate.")] = None,
    subject: Annotated[
        str | None, typer.Option(metavar="NAME", help="Common name, where there is no SPIFFE id.")
    ] = None,
    tenant: Tenant = None,
    department: Department = None,
    project: Project = None,
    display_name: DisplayName = None,
    environment: Annotated[Environment, typer.Option(help="What it is meant for.")] = Environment.LIVE,
) -> None:
    """Let the holder of a certificate act as a principal. Only the platform's administrators may."""
    if (spiffe_id is None) == (subject is None):
        raise wrong_usage("What the certificate says is not clear", "Give --spiffe-id or --subject, one of them.")
    if department is not None and not project:
        raise wrong_usage("--department needs --project", "Without a project the holder calls for the tenant.")
    parent = tenant_name(session, tenant)
    kind = api_keys_pb2.ApiKey.Environment
    resource = pb.ClientIdentity(
        display_name=display_name or "",
        principal=full_name(principal, "principals", parent),
        project=project_name(session, project, department, tenant) if project else "",
        environment=kind.ValueType(enum_number(kind.DESCRIPTOR, environment.value)),
    )
    if spiffe_id is not None:
        resource.spiffe_id = spiffe_id
    else:
        resource.subject = subject or ""
    request = pb.CreateClientIdentityRequest(parent=parent, client_identity_id=client_id, client_identity=resource)
    KIND.create(session, f"{parent}/clientIdentities/{client_id}", _stub(session).CreateClientIdentity, request)


@command(app, "list", LIST)
def list_clients(session: Session, *, tenant: Tenant = None) -> None:
    """List the client identities of a tenant."""
    request = pb.ListClientIdentitiesRequest(parent=tenant_name(session, tenant))
    KIND.show_pages(session, _stub(session).ListClientIdentities, request, "client_identities")


@command(app, "show", READ)
def show(session: Session, client: ClientId, *, tenant: Tenant = None) -> None:
    """Show one client identity."""
    KIND.show(session, in_tenant(session, client, "clientIdentities", tenant))


@command(app, "delete", DESTROY)
def delete(session: Session, client: ClientId, *, tenant: Tenant = None, etag: Etag = None) -> None:
    """Refuse a certificate for good, within two seconds on every server."""
    name = in_tenant(session, client, "clientIdentities", tenant)
    request = pb.DeleteClientIdentityRequest(name=name, etag=etag or "")
    warning = f"Whoever {name} stands for will be refused."
    KIND.change(session, "delete", name, _stub(session).DeleteClientIdentity, request, warning=warning)
