"""Checkpoints: what is signed of each trail, after it was verified as far as it has gone since the last one.

One signature stands for all trails of a round: their documents are the leaves of one tree, and who audits a tenant gets
his own and learns nothing of the others.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import structlog
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.audit import checkpoint_store, store
from tollhouse_server.audit.chain import BEGINNING, Break, Walk
from tollhouse_server.audit.checkpoint_store import Moved
from tollhouse_server.audit.store import Question
from tollhouse_server.audit.tables import AuditCheckpointRow
from tollhouse_server.database.engine import Database
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.vault.signing import Proof

_log = structlog.get_logger(__name__)

VERSION: Final = "tollhouse.audit-checkpoint/1"
_PAGE: Final = 2000


class Signer(Protocol):
    """What signs documents together, as `vault.signing.SigningKey` does."""

    async def sign(self, documents: Sequence[bytes]) -> Sequence[Proof]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A checkpoint that is not signed yet."""

    tenant_id: str
    number: int
    sequence: int
    hash: bytes
    first_sequence: int
    created_at: datetime
    previous: str

    @property
    def document(self) -> str:
        """Return what is signed."""
        members = {
            "version": VERSION,
            "tenant": self.tenant_id,
            "number": self.number,
            "sequence": self.sequence,
            "hash": self.hash.hex(),
            "first_sequence": self.first_sequence,
            "time": self.created_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "previous": self.previous,
        }
        return json.dumps(members, sort_keys=True, separators=(",", ":"))


class Checkpoints:
    """Signs what has moved. Several processes may: one at a time does, the others find nothing left to do."""

    def __init__(self, database: Database, signer: Signer, metrics: Metrics) -> None:
        self._database = database
        self._signer = signer
        self._metrics = metrics

    async def sign_moved(self) -> int:
        """Sign every trail that has gone on since its last checkpoint; return how many were signed.

        A trail that is broken is not signed: its breaks are logged and counted, until somebody has looked into them.

        Raises:
            StoreUnavailable: PostgreSQL is gone.
            VaultUnavailable, VaultDenied, SecretMissing: it cannot be signed now.
        """
        async with self._database.transaction() as session:
            moved = await checkpoint_store.moved_trails(session) if await checkpoint_store.lead(session) else ()
            now = await checkpoint_store.read_now(session)
        drafts = [draft for one in moved if (draft := await self._drafted(one, now)) is not None]
        return await self._sign(drafts)

    async def begin_later(self, session: AsyncSession, tenant: str, *, through: int) -> AuditCheckpointRow | None:
        """Sign that a trail begins behind `through` from now on, in `session`; None where it is never signed before."""
        newest = await checkpoint_store.find_newest(session, tenant)
        if newest is None:
            return None
        draft = Draft(
            tenant_id=tenant,
            number=newest.number + 1,
            sequence=newest.sequence,
            hash=newest.hash,
            first_sequence=through + 1,
            created_at=await checkpoint_store.read_now(session),
            previous=hash_of_document(newest.document),
        )
        (proof,) = await self._signer.sign([draft.document.encode()])
        row = row_of(draft, proof)
        session.add(row)
        await session.flush()
        return row

    async def _drafted(self, moved: Moved, now: datetime) -> Draft | None:
        walk = await self._walked(moved)
        if walk.breaks or (walk.sequence, walk.hash) != (moved.sequence, moved.hash):
            _report(moved.tenant_id, walk)
            self._metrics.audit_failed(cause="broken")
            return None
        return Draft(
            tenant_id=moved.tenant_id,
            number=(moved.number or 0) + 1,
            sequence=walk.sequence,
            hash=walk.hash,
            first_sequence=moved.first_sequence or 1,
            created_at=now,
            previous=hash_of_document(moved.document) if moved.document else BEGINNING.hex(),
        )

    async def _walked(self, moved: Moved) -> Walk:
        """Walk from the last checkpoint to the head, or to where the trail is seen to be broken."""
        signed = moved.signed_sequence or 0
        known = {signed: moved.signed_hash, moved.sequence: moved.hash}
        walk = Walk(
            sequence=signed,
            hash=moved.signed_hash or BEGINNING,
            signed={sequence: one for sequence, one in known.items() if one is not None},
        )
        while walk.sequence < moved.sequence and not walk.breaks:
            question = Question(after=walk.sequence, until_sequence=moved.sequence)
            async with self._database.transaction() as session:
                links = await store.read_links(session, moved.tenant_id, question, size=_PAGE)
            if not links:
                break
            walk.take(links)
        return walk

    async def _sign(self, drafts: Sequence[Draft]) -> int:
        if not drafts:
            return 0
        started_at = time.perf_counter()
        proofs = await self._signer.sign([draft.document.encode() for draft in drafts])
        async with self._database.transaction() as session:
            if not await checkpoint_store.lead(session):
                return 0
            numbers = await checkpoint_store.newest_numbers(session)
            # Whoever led meanwhile may have signed some of them.
            rows = [
                row_of(draft, proof)
                for draft, proof in zip(drafts, proofs, strict=True)
                if numbers.get(draft.tenant_id, 0) == draft.number - 1
            ]
            session.add_all(rows)
        _log.info("audit_signed", trails=len(rows), seconds=round(time.perf_counter() - started_at, 3))
        return len(rows)


def hash_of_document(document: str) -> str:
    """Return what the next checkpoint names as the one before it."""
    return hashlib.sha256(document.encode()).hexdigest()


def content_of(document: str) -> Mapping[str, Any]:
    """Return what a checkpoint's document says, nothing where somebody has made something else of it."""
    try:
        content = json.loads(document)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _report(tenant: str, walk: Walk) -> None:
    missing = Break(sequence=walk.sequence + 1, problem="is missing, or the head is not what was linked last")
    for one in walk.breaks[:10] or [missing]:
        _log.error("audit_broken", tenant=tenant, sequence=one.sequence, problem=one.problem)


def row_of(draft: Draft, proof: Proof) -> AuditCheckpointRow:
    """Return a checkpoint with its proof."""
    return AuditCheckpointRow(
        tenant_id=draft.tenant_id,
        number=draft.number,
        sequence=draft.sequence,
        hash=draft.hash,
        first_sequence=draft.first_sequence,
        document=draft.document,
        tree_size=proof.tree_size,
        leaf_index=proof.leaf_index,
        path=list(proof.path),
        key=proof.signature.key,
        key_version=proof.signature.key_version,
        signature=proof.signature.value,
        created_at=draft.created_at,
    )
