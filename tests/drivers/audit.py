"""Trails without a database and without Vault: lines as PostgreSQL writes them, signed by a key made here."""

import asyncio
import hashlib
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from tollhouse_admin.receipt_proofs import KeySet
from tollhouse_server.audit.anchor import anchor_line
from tollhouse_server.audit.chain import BEGINNING, hash_of
from tollhouse_server.audit.checkpoints import Draft, hash_of_document, row_of
from tollhouse_server.audit.personal import Opened, exported
from tollhouse_server.audit.store import Link
from tollhouse_server.vault.signing import Purpose, SigningKey

from tests.drivers.receipts import KeyInMemory

KEY = "audit"
_BEGAN = datetime(2026, 11, 3, 10, 20, 30, 4000, tzinfo=UTC)
_SALT = bytes(range(16))
_MEMBERS = '"http_request":{"user_agent":"tollhouse-cli grpc-python/1.85"},"src_endpoint":{"ip":"ipv4:10.1.2.3:50412"}'


def event_line(tenant: str, sequence: int, previous: bytes, *, actor: str = "jo", content: int = 0) -> str:
    """Return the line of an event with personal data, as `audit_line` in PostgreSQL writes it; `content` is its own."""
    content = content or sequence
    micros = 1_793_000_000_000_000 + content * 1000
    commitment = hashlib.sha256(_SALT + _MEMBERS.encode()).hexdigest()
    name = f"tenants/{tenant}/departments/rnd/projects/p-{content % 97}"
    return (
        f'{{"metadata":{{"tenant_uid":"{tenant}","sequence":{sequence},"uid":"{tenant}/{sequence}","version":"1.6.0"'
        f',"log_name":"audit","log_version":"1","event_code":"ACT","correlation_uid":"{content:032x}"'
        ',"product":{"name":"Tollhouse","vendor_name":"Tollhouse"}},"category_uid":6,"class_uid":6003,"activity_id":3'
        ',"activity_name":"UpdateProject","type_uid":600303,"severity_id":1,"status_id":1,"status_code":""'
        f',"time":{micros // 1000},"start_time":{micros // 1000},"count":1'
        f',"actor":{{"user":{{"uid":"tenants/{tenant}/principals/{actor}","credential_uid":"abcdefghijkl"}}}}'
        ',"api":{"operation":"tollhouse.admin.v1.ProjectService.UpdateProject"'
        f',"request":{{"uid":"{content:032x}"}}}},"resources":[{{"uid":"{name}"}}]'
        f',"unmapped":{{"time_micros":{micros},"permission":"projects.update","personal":"SEALED","sealed_by":"{tenant}"'
        f',"sealed":"{"ab" * 130}","commitment":"{commitment}"'
        f',"before":{{"name": "{name}", "displayName": "vor dem \\"Umzug\\"", "etag": "{sequence}"}}'
        f',"after":{{"name": "{name}", "displayName": "nach", "etag": "{sequence + 1}"}}'
        f',"prev":"{previous.hex()}"}}}}'
    )


def links(
    tenant: str, count: int, *, actor: str = "jo", after: Link | None = None, left_out: int = 0
) -> Iterator[Link]:
    """Yield the events of a trail, or those that follow on one with some left out between."""
    sequence, previous = (after.sequence, after.hash) if after else (0, BEGINNING)
    for _ in range(count):
        sequence += 1
        line = event_line(tenant, sequence, previous, actor=actor, content=sequence + left_out)
        digest = hash_of(line)
        yield Link(
            sequence=sequence, line=line, previous=previous, hash=digest, sealed_by="", sealed=b"", commitment=b""
        )
        previous = digest


def export_line(link: Link, *, opened: bool = True) -> bytes:
    """Return the line of an export."""
    return exported(link, Opened(salt=_SALT, members=_MEMBERS) if opened else None).encode() + b"\n"


def anchor_of(
    tenant: str, trail: Sequence[Link], at: Sequence[int], key: KeyInMemory, *, first_sequence: int = 1
) -> list[bytes]:
    """Return an anchor with a checkpoint after each of the sequences; the last one begins at `first_sequence`."""
    by_sequence = {link.sequence: link for link in trail}
    signer = SigningKey(key, KEY, purpose=Purpose.AUDIT)
    found, previous = [], BEGINNING.hex()
    for number, sequence in enumerate(at, start=1):
        draft = Draft(
            tenant_id=tenant,
            number=number,
            sequence=sequence,
            hash=by_sequence[sequence].hash,
            first_sequence=first_sequence if number == len(at) else 1,
            created_at=_BEGAN + timedelta(minutes=number),
            previous=previous,
        )
        others = [json.dumps({"tenant": f"other-{other}"}).encode() for other in range(number % 5)]
        *_, proof = asyncio.run(signer.sign([*others, draft.document.encode()]))
        found.append(anchor_line(row_of(draft, proof)).encode() + b"\n")
        previous = hash_of_document(draft.document)
    return found


def key_set(key: KeyInMemory) -> KeySet:
    """Return the public keys as the verifier takes them."""
    keys: dict[tuple[str, int], Ed25519PublicKey] = {
        (KEY, number): version.public_key() for number, version in enumerate(key.versions, start=1)
    }
    return KeySet(tenant="", keys=keys)
