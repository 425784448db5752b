"""`tollhouse keys`: the API keys with which services and administrators call Tollhouse."""

from collections.abc import Iterable
from contextlib import nullcontext
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from tollhouse.admin.v1 import api_keys_pb2 as pb
from tollhouse.admin.v1.api_keys_pb2_grpc import ApiKeyServiceStub

from tollhouse_admin.amounts import parse_duration, parse_moment
from tollhouse_admin.command import CHANGE, DESTROY, LIST, READ, Session, command, noun
from tollhouse_admin.connection import Connection
from tollhouse_admin.dry_run import Change, perform
from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.names import full_name, is_full, named, tenant_of
from tollhouse_admin.output import Layout, note, show_one
from tollhouse_admin.rendering import enum_number
from tollhouse_admin.resource import DisplayName, Etag, Kind, changed, mask
from tollhouse_admin.scopes import (
    OFFERED,
    Department,
    Project,
    Tenant,
    complete_in_tenant,
    complete_principals,
    project_name,
    tenant_name,
)
from tollhouse_admin.secret_source import new_key_file

app = noun("API keys: with them services and administrators call Tollhouse.")


def _keys(connection: Connection, tenant: str) -> Iterable[pb.ApiKey]:
    """Yield keys that an id alone names: those of the tenant itself."""
    stub = connection.stub(ApiKeyServiceStub)
    found = connection.pages(stub.ListApiKeys, pb.ListApiKeysRequest(parent=tenant), "api_keys", limit=OFFERED)
    return (key for key in found if key.name.startswith(f"{tenant}/apiKeys/"))


KeyId = Annotated[
    str,
    typer.Argument(
        metavar="KEY",
        help="Id or name; an id needs the project's options.",
        autocompletion=complete_in_tenant(_keys),
    ),
]
Expires = Annotated[str | None, typer.Option(metavar="WHEN", help="90d, 2026-12-31 or 2026-12-31T12:00Z.")]
Networks = Annotated[
    list[str] | None,
    typer.Option("--allow-network", metavar="CIDR", help="Only accept it from here, such as 10.0.0.0/8; repeatable."),
]
KeyOut = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write the key to a new file (0600) instead of showing it.")
]


_FIELDS = {"expires": "expire_time", "allow_network": "allowed_networks"}


class Environment(StrEnum):
    """What a key is meant for."""

    LIVE = "live"
    TEST = "test"
    DEVELOPMENT = "development"
    STAGING = "staging"


def _stub(session: Session) -> ApiKeyServiceStub:
    return session.connection.stub(ApiKeyServiceStub)


def _read(session: Session, name: str) -> pb.ApiKey:
    return session.connection.call(_stub(session).GetApiKey, pb.GetApiKeyRequest(name=name))


COLUMNS = [
    *("name", "display_name", "principal", "environment", "state", "scopes", "allowed_networks"),
    *("expire_time", "last_use_time", "create_time"),
]
KEY = Kind(Layout(COLUMNS), _read)
CREATED = Layout(["secret", *(f"api_key.{column}" for column in COLUMNS)])
ROTATED = Layout([*CREATED.columns, "predecessor.name", "predecessor.state", "predecessor.expire_time"])


def _parent(session: Session, project: str | None, department: str | None, tenant: str | None) -> str:
    if project:
        return project_name(session, project, department, tenant)
    if department is not None:
        raise wrong_usage("--department needs --project", "A key belongs to a project, or else to the tenant.")
    return tenant_name(session, tenant)


def _name(session: Session, key: str, project: str | None, department: str | None, tenant: str | None) -> str:
    if is_full(key):
        return full_name(key, "apiKeys")
    return full_name(key, "apiKeys", _parent(session, project, department, tenant))


@command(app, "create", CHANGE)
def create(
    session: Session,
    principal: Annotated[
        str,
        typer.Option(
            metavar="PRINCIPAL",
            callback=named,
            help="Who acts when the key is used.",
            autocompletion=complete_principals,
        ),
    ],
    *,
    project: Project = None,
    department: Department = None,
    tenant: Tenant = None,
    display_name: DisplayName = None,
    environment: Annotated[Environment, typer.Option(help="What it is meant for.")] = Environment.LIVE,
    scopes: Annotated[
        list[str] | None,
        typer.Option("--scope", metavar="SCOPE", help="All it may be used for: a permission, generation or usage."),
    ] = None,
    allow_network: Networks = None,
    expires: Expires = None,
    key_out: KeyOut = None,
) -> None:
    """Make a key for a project, or for administration only; the key itself is shown this once."""
    parent = _parent(session, project, department, tenant)
    kind = pb.ApiKey.Environment
    resource = pb.ApiKey(
        display_name=display_name or "",
        principal=full_name(principal, "principals", tenant_of(parent)),
        environment=kind.ValueType(enum_number(kind.DESCRIPTOR, environment.value)),
        expire_time=parse_moment(expires, now=datetime.now(UTC), past=False) if expires else None,
        scopes=scopes or (),
        allowed_networks=allow_network or (),
    )
    change = Change(
        verb="create",
        subject=f"an API key of {parent}",
        method=_stub(session).CreateApiKey,
        request=pb.CreateApiKeyRequest(parent=parent, api_key=resource),
        layout=CREATED,
    )
    _hand_over(session, change, key_out)


def _hand_over(session: Session, change: Change, key_out: Path | None) -> None:
    """Make the key and hand it over, in the file or with the record."""
    # The file comes first: a key that could not be written would be lost.
    with nullcontext() if key_out is None or session.options.dry_run else new_key_file(key_out) as write:
        made = perform(session, change)
        if not isinstance(made, pb.CreateApiKeyResponse | pb.RotateApiKeyResponse):
            return
        if write is not None:
            write(made.secret)
            made.ClearField("secret")
    if not made.secret:
        note(f"the key is in {key_out}" if write else "the key was shown when it was made, and cannot be shown again")
    show_one(session.options.output, change.layout, made)


@command(app, "list", LIST)
def list_keys(
    session: Session,
    *,
    project: Project = None,
    department: Department = None,
    tenant: Tenant = None,
    show_revoked: Annotated[bool, typer.Option("--show-revoked", help="Revoked ones too.")] = False,
) -> None:
    """List the keys of a project, or all of a tenant."""
    parent = _parent(session, project, department, tenant)
    request = pb.ListApiKeysRequest(parent=parent, show_revoked=show_revoked)
    KEY.show_pages(session, _stub(session).ListApiKeys, request, "api_keys", within=parent)


@command(app, "show", READ)
def show(
    session: Session, key: KeyId, *, project: Project = None, department: Department = None, tenant: Tenant = None
) -> None:
    """Show the record of one key, never the key."""
    KEY.show(session, _name(session, key, project, department, tenant))


@command(app, "update", CHANGE)
def update(
    session: Session,
    key: KeyId,
    *,
    project: Project = None,
    department: Department = None,
    tenant: Tenant = None,
    display_name: DisplayName = None,
    expires: Expires = None,
    allow_network: Networks = None,
    any_network: Annotated[bool, typer.Option("--any-network", help="Accept it from anywhere.")] = False,
    etag: Etag = None,
) -> None:
    """Change a key's display name, expiry, or the networks that it is accepted from."""
    if any_network and allow_network:
        raise wrong_usage("--any-network and --allow-network exclude each other")
    name = _name(session, key, project, department, tenant)
    moment = parse_moment(expires, now=datetime.now(UTC), past=False) if expires else None
    networks = [] if any_network else allow_network
    fields = changed(display_name=display_name, expires=moment, allow_network=networks)
    paths = [_FIELDS.get(field, field) for field in fields]
    resource = pb.ApiKey(
        name=name,
        display_name=display_name or "",
        expire_time=moment,
        allowed_networks=networks or (),
        etag=etag or "",
    )
    request = pb.UpdateApiKeyRequest(api_key=resource, update_mask=mask(paths))
    KEY.change(session, "update", name, _stub(session).UpdateApiKey, request)


@command(app, "rotate", CHANGE)
def rotate(
    session: Session,
    key: KeyId,
    *,
    project: Project = None,
    department: Department = None,
    tenant: Tenant = None,
    overlap: Annotated[
        str | None, typer.Option(metavar="SPAN", help="How long the old one goes on; absent: 24h, 0s: not at all.")
    ] = None,
    expires: Expires = None,
    key_out: KeyOut = None,
    etag: Etag = None,
) -> None:
    """Make a key that takes another one's place, and let the old one go on for a while; it is shown this once."""
    name = _name(session, key, project, department, tenant)
    request = pb.RotateApiKeyRequest(
        name=name,
        expire_time=parse_moment(expires, now=datetime.now(UTC), past=False) if expires else None,
        etag=etag or "",
    )
    if overlap is not None:
        request.overlap.FromTimedelta(parse_duration(overlap))
    change = Change(verb="rotate", subject=name, method=_stub(session).RotateApiKey, request=request, layout=ROTATED)
    _hand_over(session, change, key_out)


@command(app, "revoke", DESTROY)
def revoke(
    session: Session,
    key: KeyId,
    *,
    project: Project = None,
    department: Department = None,
    tenant: Tenant = None,
    etag: Etag = None,
) -> None:
    """Refuse a key for good, within two seconds on every server."""
    name = _name(session, key, project, department, tenant)
    warning = f"{name} will be refused for good."
    KEY.change(
        session,
        "revoke",
        name,
        _stub(session).RevokeApiKey,
        pb.RevokeApiKeyRequest(name=name, etag=etag or ""),
        warning=warning,
    )
