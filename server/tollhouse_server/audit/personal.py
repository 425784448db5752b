"""Personal data of events: sealed under the tenant's data key, held by a commitment that the chain has.

What the chain hashes is the sealed bytes and the commitment, so a destroyed key makes the data unreadable for ever and
breaks nothing; and who exports while the key lives can prove what he read.
"""

import asyncio
import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog
from sqlalchemy.exc import DBAPIError

from tollhouse_server.audit.store import Link
from tollhouse_server.audit.tables import AuditEventRow
from tollhouse_server.errors import KeyDestroyed, TollhouseError
from tollhouse_server.vault.sealing import DataKey

_log = structlog.get_logger(__name__)

_CONTEXT: Final = b"tollhouse.audit/1"
_SALT_BYTES: Final = 16
_PATIENCE_SECONDS: Final = 2.0
_MOST_CHARACTERS: Final = 256

_ALWAYS_PERSONAL: Final = frozenset({"email", "recipients", "subject"})
_PERSONAL: Final = frozenset({"displayName"})
"""Members that say who somebody is: everywhere, and where the resource is a principal or what one person has. Ids are
the tenant's own words for people, and stay: without them nobody could tell who has done what."""

_OF_PEOPLE: Final = frozenset({"principals", "clientIdentities", "devices", "apiKeys"})


class Keys(Protocol):
    """Tenants' data keys, as `vault.tenant_keys` has them."""

    async def sealing_key(self, tenant_id: str) -> DataKey: ...

    async def open(self, tenant_id: str, sealed: bytes, *, context: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a call came from, in the words of the transport; empty where it is not known."""

    address: str = ""
    user_agent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What could be read of an event's personal data: the JSON members as they were committed to, and the salt."""

    salt: bytes
    members: str

    def values(self) -> Mapping[str, Any]:
        """Return the members."""
        found: dict[str, Any] = json.loads(f"{{{self.members}}}")
        return found


class Erased(Exception):
    """The key is destroyed: nobody can ever read it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealer:
    """Seals for one transaction under the key of `tenant`; without a key it leaves out, and the event says so.

    It waits for nothing: what an act has locked others wait for. A key that is destroyed meanwhile erases this too.
    """

    tenant: str
    key: DataKey | None

    def protect(self, event: AuditEventRow, source: Source) -> None:
        """Take personal data out of an event that is not written yet, and seal it, or leave it out."""
        event.before, before = _without_people(event.resource, event.before)
        event.after, after = _without_people(event.resource, event.after)
        members = _members(source, before, after)
        if not members:
            return
        if self.key is None:
            event.personal = "LEFT_OUT"
            return
        plaintext = secrets.token_bytes(_SALT_BYTES) + members
        event.personal, event.sealed_by = "SEALED", self.tenant
        event.sealed = self.key.seal(plaintext, context=_CONTEXT)
        event.commitment = hashlib.sha256(plaintext).digest()


class PersonalData:
    """Seals and opens; never in the way of an act: what cannot be sealed is left out, and the event says so.

    A revocation must not wait for Vault, and an act without an address is still an act on record; one that is refused
    because an address could not be sealed would be the worse failure.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def sealer(self, tenant: str) -> Sealer:
        """Return what seals under the tenant's key; to be asked for before a transaction is open, as Vault may be."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return Sealer(tenant=tenant, key=await self._keys.sealing_key(tenant))
        except (TollhouseError, DBAPIError, TimeoutError) as error:
            _log.warning("personal_data_left_out", tenant=tenant, reason=type(error).__name__)
            return Sealer(tenant=tenant, key=None)

    async def open(self, link: Link) -> Opened | None:
        """Return an event's personal data, None where it has none.

        Raises:
            Erased: nobody can read it any more.
            TollhouseError: it cannot be read now.
        """
        if link.sealed is None:
            return None
        try:
            plaintext = await self._keys.open(link.sealed_by, link.sealed, context=_CONTEXT)
        except KeyDestroyed as error:
            raise Erased from error
        return Opened(salt=plaintext[:_SALT_BYTES], members=plaintext[_SALT_BYTES:].decode())


def exported(link: Link, opened: Opened | None) -> str:
    """Return an event as it leaves: its line, its hash, and what was opened of it."""
    tail = f',"hash":"{link.hash.hex()}"'
    if opened is None:
        return f"{link.line[:-2]}{tail}}}}}"
    return f'{link.line[:-2]}{tail},"salt":"{opened.salt.hex()}"}},{opened.members}}}'


def printable(text: str) -> str:
    """Return what may stand in a trail of what a caller says of himself."""
    return "".join(one if one.isprintable() else "?" for one in text[:_MOST_CHARACTERS])


def _members(source: Source, before: Mapping[str, Any], after: Mapping[str, Any]) -> bytes:
    """Return the personal data as members of a JSON object, without its braces; empty where there is none."""
    found: dict[str, Any] = {}
    if source.address:
        found["src_endpoint"] = {"ip": printable(source.address)}
    if source.user_agent:
        found["http_request"] = {"user_agent": printable(source.user_agent)}
    if before or after:
        found["personal"] = {"before": before, "after": after}
    return json.dumps(found, ensure_ascii=False, separators=(",", ":"), sort_keys=True)[1:-1].encode()


def _without_people(
    resource: str, message: Mapping[str, Any] | None
) -> tuple[dict[str, Any] | None, Mapping[str, Any]]:
    """Part what a resource says into what may stay for ever, and what says who somebody is, by its path."""
    if message is None:
        return None, {}
    taken: dict[str, Any] = {}
    return _parted(message, "", _is_person(resource), taken), taken


def _parted(node: Any, path: str, is_person: bool, taken: dict[str, Any]) -> Any:  # noqa: FBT001 - a walk's state
    if isinstance(node, list):
        return [_parted(entry, f"{path}{place}/", is_person, taken) for place, entry in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    is_person = is_person or _is_person(str(node.get("name", "")))
    left = {}
    for name, value in node.items():
        if value and (name in _ALWAYS_PERSONAL or (is_person and name in _PERSONAL)):
            taken[f"{path}{name}"] = value
        else:
            left[name] = _parted(value, f"{path}{name}/", is_person, taken)
    return left


def _is_person(name: str) -> bool:
    parts = name.split("/")
    return len(parts) > 1 and parts[-2] in _OF_PEOPLE


def with_people(message: Mapping[str, Any] | None, taken: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a resource said, with what was taken out of it."""
    if message is None:
        return None
    whole: dict[str, Any] = json.loads(json.dumps(message))
    for path, value in taken.items():
        *way, name = path.split("/")
        node: Any = whole
        for step in way:
            node = node[int(step)] if isinstance(node, list) else node[step]
        node[name] = value
    return whole
