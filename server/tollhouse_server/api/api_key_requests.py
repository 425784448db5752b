"""API keys as messages, and what requests about them ask for."""

import ipaddress
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

from tollhouse.admin.v1 import api_keys_pb2 as pb

from tollhouse_server.api.permissions import ASKED_BY_HANDLERS, rules
from tollhouse_server.api.values import etag, moment_of, timestamp
from tollhouse_server.errors import FieldViolation, InvalidRequest
from tollhouse_server.identity import store
from tollhouse_server.identity.networks import is_part, parse_network
from tollhouse_server.identity.scopes import SETS
from tollhouse_server.identity.tables import ApiKeyRow
from tollhouse_server.names import (
    ApiKeyName,
    PrincipalName,
    ProjectKeyName,
    ProjectName,
    TenantName,
    invalid,
    parse_scope,
)

_OVERLAP = timedelta(hours=24)


def parent_in(text: str) -> TenantName | ProjectName:
    """Return the tenant or the project whose keys a request is about."""
    scope = parse_scope(text, "parent")
    if isinstance(scope, TenantName | ProjectName):
        return scope
    raise invalid("parent", "must be the name of a tenant or a project")


def owner_in(text: str, parent: TenantName | ProjectName) -> PrincipalName:
    """Return the principal that a new key is for."""
    owner = PrincipalName.parse(text, "api_key.principal")
    if owner.tenant != parent.tenant:
        raise invalid("api_key.principal", "must be of the key's own tenant")
    return owner


def department_of(name: ApiKeyName | TenantName | ProjectName) -> str:
    """Return the department in a name, empty for what has no project."""
    return name.department if isinstance(name, ProjectKeyName | ProjectName) else ""


def environment_in(environment: "pb.ApiKey.Environment.ValueType") -> str:
    """Return an environment as rows have it; the default is production."""
    name = pb.ApiKey.Environment.Name(environment).removeprefix("ENVIRONMENT_")
    return "LIVE" if name == "UNSPECIFIED" else name


def environment_message(environment: str) -> "pb.ApiKey.Environment.ValueType":
    """Return a row's environment as messages have it."""
    return pb.ApiKey.Environment.Value(f"ENVIRONMENT_{environment}")


def expiry_in(key: pb.ApiKey) -> datetime | None:
    """Return when a key is to expire; None means never."""
    return moment_of(key.expire_time, "api_key.expire_time") if key.HasField("expire_time") else None


def require_to_come(expires_at: datetime | None, field: str) -> None:
    """Refuse an expiry that has passed; a repeated request is answered before, whatever the time is now.

    Raises:
        InvalidRequest: it has.
    """
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise invalid(field, "has passed; to end a key now, revoke it")


def scopes_in(key: pb.ApiKey) -> list[str]:
    """Return what a key is narrowed to.

    Raises:
        InvalidRequest: there is no such permission or set.
    """
    known = SETS.keys() | _permissions()
    return _checked(key.scopes, "api_key.scopes", lambda scope: scope in known, "is neither a permission nor a set")


def _permissions() -> frozenset[str]:
    return frozenset(rule.permission for rule in rules().values() if rule.permission is not None) | ASKED_BY_HANDLERS


def networks_in(key: pb.ApiKey) -> list[str]:
    """Return the networks that a key is accepted from, as they are written best.

    Raises:
        InvalidRequest: one is no network.
    """
    description = "is not a network such as 10.0.0.0/8 or 2001:db8::/32, with no bits set behind its prefix"
    texts = _checked(key.allowed_networks, "api_key.allowed_networks", _is_network, description)
    return [str(parse_network(text)) for text in texts]


def _is_network(text: str) -> bool:
    try:
        network = parse_network(text)
    except ValueError:
        return False
    # Callers over such a socket are known by their IPv4 address: the network would never hold one.
    return not (isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped)


def _checked(texts: Iterable[str], field: str, is_right: Callable[[str], bool], description: str) -> list[str]:
    found = list(texts)
    violations = tuple(
        FieldViolation(path=f"{field}[{index}]", description=description)
        for index, text in enumerate(found)
        if not is_right(text)
    )
    if violations:
        raise InvalidRequest(violations=violations)
    return found


def overlap_in(request: pb.RotateApiKeyRequest) -> timedelta:
    """Return for how long the old key goes on beside the new one."""
    return request.overlap.ToTimedelta() if request.HasField("overlap") else _OVERLAP


def successor_expiry(request: pb.RotateApiKeyRequest, row: ApiKeyRow, now: datetime) -> datetime | None:
    """Return when a new key expires: when the request says, or after as long as the old one was made for."""
    if request.HasField("expire_time"):
        return moment_of(request.expire_time, "expire_time")
    if row.expires_at is None or row.created_at is None:
        return None
    return now + (row.expires_at - row.created_at)


def is_wider(row: ApiKeyRow, *, expires_at: datetime | None, allowed_networks: Iterable[str]) -> bool:
    """Tell whether a key is accepted for longer, or from more places, than one with this expiry and these networks."""
    if expires_at is not None and (row.expires_at is None or row.expires_at > expires_at):
        return True
    before = [parse_network(network) for network in allowed_networks]
    now = [parse_network(network) for network in row.allowed_networks]
    return bool(before) and not (now and all(any(is_part(one, other) for other in before) for one in now))


def key_state(row: ApiKeyRow) -> "pb.ApiKey.State.ValueType":
    """Return whether a key is accepted."""
    if row.revoked_at is not None:
        return pb.ApiKey.STATE_REVOKED
    expired = row.expires_at is not None and row.expires_at <= datetime.now(UTC)
    return pb.ApiKey.STATE_EXPIRED if expired else pb.ApiKey.STATE_ACTIVE


def key_message(row: ApiKeyRow, department: str) -> pb.ApiKey:
    """Return a key's record; `department` is that of its project."""
    return pb.ApiKey(
        name=_name(row, row.key_id, department),
        display_name=row.display_name,
        principal=str(PrincipalName(row.tenant_id, row.principal_id)),
        environment=environment_message(row.environment),
        state=key_state(row),
        scopes=row.scopes,
        allowed_networks=row.allowed_networks,
        predecessor=_name(row, row.predecessor_id, department),
        successor=_name(row, row.successor_id, department),
        last_use_time=timestamp(row.last_used_at),
        expire_time=timestamp(row.expires_at),
        create_time=timestamp(row.created_at),
        update_time=timestamp(row.updated_at),
        revoke_time=timestamp(row.revoked_at),
        etag=etag(row.version),
    )


def _name(row: ApiKeyRow, key_id: str | None, department: str) -> str:
    return str(store.key_name(row.tenant_id, key_id, row.project_id, department)) if key_id else ""
