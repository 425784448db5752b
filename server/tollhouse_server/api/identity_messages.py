"""Identity providers and client identities as messages, and what requests about them ask for."""

import secrets
from collections.abc import Collection

from google.protobuf.duration_pb2 import Duration
from tollhouse.admin.v1 import identity_providers_pb2 as pb

from tollhouse_server.api.api_key_requests import environment_in, environment_message
from tollhouse_server.api.values import etag, timestamp
from tollhouse_server.identity.tables import ClientIdentityRow, IdentityProviderRow
from tollhouse_server.names import (
    ClientIdentityName,
    GroupName,
    IdentityProviderName,
    PrincipalName,
    ProjectName,
    TenantName,
    invalid,
)

_SKEW_SECONDS = 30
_SUBJECT = "subject:"


def new_provider(request: pb.CreateIdentityProviderRequest, issuers: Collection[str]) -> IdentityProviderRow:
    """Return the row of a new provider.

    Raises:
        InvalidRequest: the deployment does not allow the issuer, or something is missing or of another tenant.
    """
    wanted, tenant = request.identity_provider, TenantName.parse(request.parent, "parent").tenant
    if wanted.issuer not in issuers:
        raise invalid("identity_provider.issuer", "must be one that the deployment allows (TOLLHOUSE_OIDC_ISSUERS)")
    if not wanted.audiences:
        raise invalid("identity_provider.audiences", "must name at least one")
    return IdentityProviderRow(
        tenant_id=tenant,
        provider_id=request.identity_provider_id or _new_id("idp"),
        display_name=wanted.display_name,
        issuer=wanted.issuer,
        audiences=list(wanted.audiences),
        subject_claim=wanted.subject_claim or "sub",
        groups_claim=wanted.groups_claim,
        groups=groups_in(wanted, tenant),
        project_claim=wanted.project_claim,
        admits_groups=wanted.admits_groups,
        clock_skew_seconds=clock_skew_in(wanted),
        environment=environment_in(wanted.environment),
    )


def groups_in(provider: pb.IdentityProvider, tenant: str) -> dict[str, str]:
    """Return the ids of groups by the values of the claim.

    Raises:
        InvalidRequest: a group is another tenant's, or a value stands for two groups.
    """
    groups: dict[str, str] = {}
    for index, mapping in enumerate(provider.group_mappings):
        field = f"identity_provider.group_mappings[{index}]"
        group = GroupName.parse(mapping.group, f"{field}.group")
        if group.tenant != tenant:
            raise invalid(f"{field}.group", "must be of the provider's own tenant")
        if mapping.value in groups:
            raise invalid(f"{field}.value", "is there twice")
        groups[mapping.value] = group.group
    return groups


def clock_skew_in(provider: pb.IdentityProvider) -> int:
    """Return the tolerated difference of clocks in whole seconds."""
    return provider.clock_skew.seconds if provider.HasField("clock_skew") else _SKEW_SECONDS


def provider_message(row: IdentityProviderRow) -> pb.IdentityProvider:
    """Return a provider."""
    return pb.IdentityProvider(
        name=str(IdentityProviderName(row.tenant_id, row.provider_id)),
        display_name=row.display_name,
        issuer=row.issuer,
        audiences=row.audiences,
        subject_claim=row.subject_claim,
        groups_claim=row.groups_claim,
        group_mappings=[
            pb.GroupMapping(value=value, group=str(GroupName(row.tenant_id, group)))
            for value, group in sorted(row.groups.items())
        ],
        project_claim=row.project_claim,
        admits_groups=row.admits_groups,
        clock_skew=Duration(seconds=row.clock_skew_seconds),
        environment=environment_message(row.environment),
        state=pb.IdentityProvider.State.Value(f"STATE_{row.state}"),
        create_time=timestamp(row.created_at),
        update_time=timestamp(row.updated_at),
        etag=etag(row.version),
    )


def new_client(request: pb.CreateClientIdentityRequest) -> tuple[ClientIdentityRow, PrincipalName, ProjectName | None]:
    """Return the row of a new client identity, and the principal and the project that it names.

    Raises:
        InvalidRequest: it names no identity, or something of another tenant.
    """
    wanted, tenant = request.client_identity, TenantName.parse(request.parent, "parent").tenant
    kind = wanted.WhichOneof("identity")
    if kind is None:
        raise invalid("client_identity", "must have a spiffe_id or a subject")
    principal = PrincipalName.parse(wanted.principal, "client_identity.principal")
    project = ProjectName.parse(wanted.project, "client_identity.project") if wanted.project else None
    for field, name in (("principal", principal), ("project", project)):
        if name is not None and name.tenant != tenant:
            raise invalid(f"client_identity.{field}", "must be of the tenant in parent")
    row = ClientIdentityRow(
        tenant_id=tenant,
        client_identity_id=request.client_identity_id or _new_id("client"),
        display_name=wanted.display_name,
        identity=wanted.spiffe_id if kind == "spiffe_id" else _SUBJECT + wanted.subject,
        principal_id=principal.principal,
        project_id=project.project if project else None,
        environment=environment_in(wanted.environment),
    )
    return row, principal, project


def client_message(row: ClientIdentityRow, department: str) -> pb.ClientIdentity:
    """Return a client identity; `department` is that of its project."""
    message = pb.ClientIdentity(
        name=str(ClientIdentityName(row.tenant_id, row.client_identity_id)),
        display_name=row.display_name,
        principal=str(PrincipalName(row.tenant_id, row.principal_id)),
        project=str(ProjectName(row.tenant_id, department, row.project_id)) if row.project_id else "",
        environment=environment_message(row.environment),
        create_time=timestamp(row.created_at),
        etag=etag(row.version),
    )
    if row.identity.startswith(_SUBJECT):
        message.subject = row.identity.removeprefix(_SUBJECT)
    else:
        message.spiffe_id = row.identity
    return message


def _new_id(kind: str) -> str:
    return f"{kind}-{secrets.token_hex(6)}"
