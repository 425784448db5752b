"""`tollhouse identity-providers`: whose tokens are accepted, and what their groups mean."""

from collections.abc import Iterable
from typing import Annotated

import typer
from tollhouse.admin.v1 import api_keys_pb2
from tollhouse.admin.v1 import identity_providers_pb2 as pb
from tollhouse.admin.v1.identity_providers_pb2_grpc import IdentityProviderServiceStub

from tollhouse_admin.amounts import parse_duration
from tollhouse_admin.command import CHANGE, DESTROY, LIST, READ, Session, command, noun
from tollhouse_admin.commands.keys import Environment
from tollhouse_admin.connection import Connection
from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.names import full_name, tenant_of
from tollhouse_admin.output import Layout
from tollhouse_admin.rendering import enum_number
from tollhouse_admin.resource import DisplayName, Etag, Kind, NewId, changed, mask
from tollhouse_admin.scopes import OFFERED, Tenant, complete_in_tenant, in_tenant, tenant_name

app = noun("Identity providers: whose tokens are accepted, and what their groups mean.")

SubjectClaim = Annotated[
    str | None, typer.Option(metavar="CLAIM", help="Where a token says whose it is; absent: sub. Never one to choose.")
]
GroupsClaim = Annotated[str | None, typer.Option(metavar="CLAIM", help="Where a token names groups.")]
Groups = Annotated[
    list[str] | None,
    typer.Option("--group", metavar="VALUE=GROUP", help="What a value of the groups' claim stands for; repeatable."),
]
ProjectClaim = Annotated[str | None, typer.Option(metavar="CLAIM", help="Where a token names the project that pays.")]
AdmitsGroups = Annotated[
    bool | None,
    typer.Option(
        "--admit-groups/--registered-only", help="Whether a mapped group alone admits whom nobody registered."
    ),
]
ClockSkew = Annotated[str | None, typer.Option(metavar="SPAN", help="How far clocks may differ, up to 60s.")]


def _providers(connection: Connection, tenant: str) -> Iterable[pb.IdentityProvider]:
    stub = connection.stub(IdentityProviderServiceStub)
    request = pb.ListIdentityProvidersRequest(parent=tenant)
    return connection.pages(stub.ListIdentityProviders, request, "identity_providers", limit=OFFERED)


ProviderId = Annotated[
    str,
    typer.Argument(metavar="PROVIDER", help="Id or name.", autocompletion=complete_in_tenant(_providers)),
]


def _stub(session: Session) -> IdentityProviderServiceStub:
    return session.connection.stub(IdentityProviderServiceStub)


def _read(session: Session, name: str) -> pb.IdentityProvider:
    return session.connection.call(_stub(session).GetIdentityProvider, pb.GetIdentityProviderRequest(name=name))


KIND = Kind(
    Layout(["name", "display_name", "issuer", "audiences", "subject_claim", "groups_claim", "environment", "state"]),
    _read,
)


@command(app, "create", CHANGE)
def create(
    session: Session,
    provider_id: NewId,
    *,
    tenant: Tenant = None,
    issuer: Annotated[str, typer.Option(metavar="URL", help="As its tokens name it; the deployment must allow it.")],
    audience: Annotated[list[str], typer.Option(metavar="TEXT", help="For whom its tokens are; repeatable.")],
    display_name: DisplayName = None,
    subject_claim: SubjectClaim = None,
    groups_claim: GroupsClaim = None,
    group: Groups = None,
    project_claim: ProjectClaim = None,
    admit_groups: AdmitsGroups = None,
    clock_skew: ClockSkew = None,
    environment: Annotated[Environment, typer.Option(help="What its tokens are meant for.")] = Environment.LIVE,
) -> None:
    """Let a tenant's people call with the tokens of an issuer. Only the platform's administrators may."""
    parent = tenant_name(session, tenant)
    kind = api_keys_pb2.ApiKey.Environment
    provider = pb.IdentityProvider(
        issuer=issuer,
        audiences=audience,
        display_name=display_name or "",
        subject_claim=subject_claim or "",
        groups_claim=groups_claim or "",
        group_mappings=_mappings(group or [], parent),
        project_claim=project_claim or "",
        admits_groups=bool(admit_groups),
        environment=kind.ValueType(enum_number(kind.DESCRIPTOR, environment.value)),
    )
    if clock_skew is not None:
        provider.clock_skew.FromTimedelta(parse_duration(clock_skew))
    request = pb.CreateIdentityProviderRequest(
        parent=parent, identity_provider_id=provider_id, identity_provider=provider
    )
    KIND.create(session, f"{parent}/identityProviders/{provider_id}", _stub(session).CreateIdentityProvider, request)


def _mappings(typed: list[str], parent: str) -> list[pb.GroupMapping]:
    """Return what values of a claim stand for; the last equals sign parts them, for values may have some."""
    mappings = []
    for one in typed:
        value, equals, group = one.rpartition("=")
        if not equals or not value or not group:
            raise wrong_usage(f"{one!r} is not of the form VALUE=GROUP")
        mappings.append(pb.GroupMapping(value=value, group=full_name(group, "groups", parent)))
    return mappings


@command(app, "list", LIST)
def list_providers(session: Session, *, tenant: Tenant = None) -> None:
    """List the identity providers of a tenant."""
    request = pb.ListIdentityProvidersRequest(parent=tenant_name(session, tenant))
    KIND.show_pages(session, _stub(session).ListIdentityProviders, request, "identity_providers")


@command(app, "show", READ)
def show(session: Session, provider: ProviderId, *, tenant: Tenant = None) -> None:
    """Show one identity provider."""
    KIND.show(session, in_tenant(session, provider, "identityProviders", tenant))


@command(app, "update", CHANGE)
def update(
    session: Session,
    provider: ProviderId,
    *,
    tenant: Tenant = None,
    display_name: DisplayName = None,
    groups_claim: GroupsClaim = None,
    group: Groups = None,
    no_groups: Annotated[bool, typer.Option("--no-groups", help="No value stands for a group any more.")] = False,
    project_claim: ProjectClaim = None,
    admit_groups: AdmitsGroups = None,
    clock_skew: ClockSkew = None,
    etag: Etag = None,
) -> None:
    """Change what tokens of a provider mean; --group names all groups anew."""
    if no_groups and group:
        raise wrong_usage("--no-groups and --group exclude each other")
    name = in_tenant(session, provider, "identityProviders", tenant)
    fields = changed(
        display_name=display_name,
        groups_claim=groups_claim,
        group=[] if no_groups else group or None,
        project_claim=project_claim,
        admit_groups=admit_groups,
        clock_skew=clock_skew,
    )
    resource = pb.IdentityProvider(
        name=name,
        display_name=display_name or "",
        groups_claim=groups_claim or "",
        group_mappings=_mappings(group or [], tenant_of(name)),
        project_claim=project_claim or "",
        admits_groups=bool(admit_groups),
        etag=etag or "",
    )
    if clock_skew is not None:
        resource.clock_skew.FromTimedelta(parse_duration(clock_skew))
    paths = [{"group": "group_mappings", "admit_groups": "admits_groups"}.get(field, field) for field in fields]
    request = pb.UpdateIdentityProviderRequest(identity_provider=resource, update_mask=mask(paths))
    KIND.change(session, "update", name, _stub(session).UpdateIdentityProvider, request)


@command(app, "disable", DESTROY)
def disable(session: Session, provider: ProviderId, *, tenant: Tenant = None, etag: Etag = None) -> None:
    """Refuse the tokens of a provider, within two seconds on every server."""
    name = in_tenant(session, provider, "identityProviders", tenant)
    request = pb.DisableIdentityProviderRequest(name=name, etag=etag or "")
    warning = f"The tokens of {name} will be refused."
    KIND.change(session, "disable", name, _stub(session).DisableIdentityProvider, request, warning=warning)


@command(app, "enable", CHANGE)
def enable(session: Session, provider: ProviderId, *, tenant: Tenant = None, etag: Etag = None) -> None:
    """Accept the tokens of a provider again."""
    name = in_tenant(session, provider, "identityProviders", tenant)
    request = pb.EnableIdentityProviderRequest(name=name, etag=etag or "")
    KIND.change(session, "enable", name, _stub(session).EnableIdentityProvider, request)


@command(app, "delete", DESTROY)
def delete(session: Session, provider: ProviderId, *, tenant: Tenant = None, etag: Etag = None) -> None:
    """Forget a provider for good."""
    name = in_tenant(session, provider, "identityProviders", tenant)
    request = pb.DeleteIdentityProviderRequest(name=name, etag=etag or "")
    warning = f"{name} will be forgotten, and its tokens refused."
    KIND.change(session, "delete", name, _stub(session).DeleteIdentityProvider, request, warning=warning)
