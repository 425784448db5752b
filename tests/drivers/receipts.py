"""Receipts without a database and without Vault: records as the ledger keeps them, signed by a key made here."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.json_format import MessageToDict
from tollhouse.v1 import receipts_pb2 as pb
from tollhouse_server.ledger.terms import RecordKind
from tollhouse_server.money import charge_nanos
from tollhouse_server.pricing.usage import Tokens, Usage
from tollhouse_server.reporting.receipts import receipt_document
from tollhouse_server.reporting.records import ChargedLine, UsageRecord
from tollhouse_server.vault.client import Signature
from tollhouse_server.vault.signing import ALGORITHM, Proof, Purpose, SigningKey

KEY = "receipts"
BOOKED = datetime(2026, 11, 3, 10, 20, 30, 4000, tzinfo=UTC)


@dataclass(slots=True)
class KeyInMemory:
    """A transit key: Ed25519, with versions. Signs as Vault does, at once, and counts how often."""

    versions: list[Ed25519PrivateKey] = field(default_factory=lambda: [Ed25519PrivateKey.generate()])
    signatures: int = 0

    def rotate(self) -> None:
        """Add a version; the newest signs."""
        self.versions.append(Ed25519PrivateKey.generate())

    async def sign(self, key: str, payload: bytes) -> Signature:
        """Sign with the newest version."""
        self.signatures += 1
        return Signature(key=key, key_version=len(self.versions), value=self.versions[-1].sign(payload))

    async def public_keys(self, key: str) -> Mapping[int, bytes]:
        """Return the public keys of all versions."""
        assert key == KEY
        return {
            number: version.public_key().public_bytes_raw() for number, version in enumerate(self.versions, start=1)
        }


def line(sku: str = "input_text", quantity: int = 9, rate: int = 4_444_444) -> ChargedLine:
    """Build a line that is rounded as the price book rounds."""
    cost_nanos = charge_nanos(quantity, rate)
    return ChargedLine(sku=sku, quantity=quantity, unit="token", nanos_per_million=rate, cost_nanos=cost_nanos)


def record(number: int = 1, lines: Sequence[ChargedLine] = (line(), line("output_text", 11, 1_818_182))) -> UsageRecord:
    """Build the record of a settled call that cost what its lines say."""
    return UsageRecord(
        tenant_id="acme",
        attempt_id=UUID(int=number),
        settled_at=BOOKED,
        kind=RecordKind.SETTLED,
        request_id=UUID(int=number + 2**64),
        dispatched_at=BOOKED - timedelta(seconds=2),
        department_path=("research", "vision"),
        project_id="labels",
        credential_id="k1",
        method="generateContent",
        tier="flash",
        model="gemini-3.5-flash",
        account_id="main",
        labels={"team": "Suche – ü", "line\n": '"quoted"'},
        price_version=3,
        input_tokens=9,
        output_tokens=11,
        images=0,
        cost_nanos=sum(one.cost_nanos for one in lines),
        usage=Usage(prompt=Tokens(text=9, image=3), candidates=Tokens(text=11), flags=("odd",)),
        lines=tuple(lines),
        outcome="SERVED",
    )


def suspended(number: int = 1, cost_nanos: int = 1000) -> UsageRecord:
    """Build the record of a call of unknown outcome."""
    return replace(record(number, ()), kind=RecordKind.SUSPENSE, cost_nanos=cost_nanos, usage=None, outcome="BROKEN")


def correction(of: UsageRecord, lines: Sequence[ChargedLine]) -> UsageRecord:
    """Build the record that makes a suspended call cost what the lines say."""
    settled = record(of.attempt_id.int, lines)
    return replace(
        settled,
        kind=RecordKind.ADJUSTMENT,
        settled_at=BOOKED + timedelta(days=1),
        cost_nanos=settled.cost_nanos - of.cost_nanos,
    )


def document_of(*records: UsageRecord) -> str:
    """Return the receipt's text; there must be one."""
    text = receipt_document(records)
    assert text is not None
    return text


def message(document: str, proof: Proof) -> pb.CallReceipt:
    """Build what the server answers."""
    signed = proof.signature
    return pb.CallReceipt(
        document=document,
        tree_size=proof.tree_size,
        leaf_index=proof.leaf_index,
        path=proof.path,
        signature=pb.ReceiptSignature(
            algorithm=ALGORITHM, key=signed.key, key_version=signed.key_version, value=signed.value
        ),
    )


async def receipts_of(documents: Sequence[str], key: KeyInMemory) -> list[pb.CallReceipt]:
    """Sign documents together."""
    proofs = await SigningKey(key, KEY, purpose=Purpose.RECEIPTS).sign([text.encode() for text in documents])
    return [message(document, proof) for document, proof in zip(documents, proofs, strict=True)]


def as_line(receipt: pb.CallReceipt) -> str:
    """Return the line that an export writes."""
    document = MessageToDict(receipt, always_print_fields_with_no_presence=True)
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def keys_message(key: KeyInMemory, tenant: str = "tenants/acme") -> pb.ReceiptKeys:
    """Build the key set that the server publishes."""
    return pb.ReceiptKeys(
        tenant=tenant,
        keys=[
            pb.ReceiptKey(
                key=KEY, version=number, algorithm=ALGORITHM, public_key=version.public_key().public_bytes_raw()
            )
            for number, version in enumerate(key.versions, start=1)
        ],
    )


def write_keys(path: Path, key: KeyInMemory, tenant: str = "tenants/acme") -> Path:
    """Write the file that `verify` takes."""
    document = MessageToDict(keys_message(key, tenant), always_print_fields_with_no_presence=True)
    path.write_text(json.dumps(document, indent=2))
    return path
