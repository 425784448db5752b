"""A stored trail, compared with its links, its checkpoints, their signatures, and the anchor outside the database."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tollhouse_server.audit import checkpoint_store, store
from tollhouse_server.audit.anchor import Anchor, AnchorUnusable
from tollhouse_server.audit.chain import BEGINNING, Break, Walk
from tollhouse_server.audit.checkpoints import content_of, hash_of_document
from tollhouse_server.audit.store import Head, Question
from tollhouse_server.audit.tables import AuditCheckpointRow
from tollhouse_server.database.engine import Database
from tollhouse_server.errors import VaultUnavailable
from tollhouse_server.vault.merkle import leaf_hash, root_of
from tollhouse_server.vault.signing import Purpose, SigningKey, signed_message

_PAGE: Final = 1000
_MOST_BREAKS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """How far a verification is, and what it has found since the step before."""

    sequence: int
    breaks: Sequence[Break] = ()
    finished: bool = False
    first_sequence: int = 0
    checkpoints: int = 0
    signed_sequence: int = 0
    anchored: bool = False


@dataclass(slots=True)
class _Known:
    """What vouches for a trail: the newest checkpoint, all hashes by sequence, and what is wrong with them."""

    newest: AuditCheckpointRow | None
    signed: dict[int, bytes]
    count: int
    breaks: list[Break]
    anchored: bool = False


class Verification:
    """Verifies one trail, in short transactions about `domain`."""

    def __init__(self, database: Database, key: SigningKey, anchor: Anchor, *, domain: str) -> None:
        self._database = database
        self._key = key
        self._anchor = anchor
        self._domain = domain

    async def run(self, tenant: str) -> AsyncIterator[Step]:
        """Yield a step for each thousand events, and the last one, which is finished.

        Raises:
            StoreUnavailable: PostgreSQL is gone.
        """
        # The anchor first and the head last: meanwhile events are appended, then signed, then anchored.
        known = await self._known(tenant)
        async with self._database.within(self._domain) as session:
            head = await store.find_head(session, tenant)
        first = known.newest.first_sequence if known.newest else 1
        start = known.signed.get(first - 1, BEGINNING)
        walk = Walk(sequence=first - 1, hash=start, signed=known.signed, breaks=known.breaks)
        told = 0
        while walk.sequence < head.sequence and len(walk.breaks) < _MOST_BREAKS:
            question = Question(after=walk.sequence, until_sequence=head.sequence)
            async with self._database.within(self._domain) as session:
                links = await store.read_links(session, tenant, question, size=_PAGE)
            if not links:
                break
            walk.take(links)
            fresh, told = walk.breaks[told:_MOST_BREAKS], len(walk.breaks)
            yield Step(sequence=walk.sequence, breaks=fresh)
        _check_end(walk, head, known)
        yield Step(
            sequence=walk.sequence,
            breaks=walk.breaks[told:_MOST_BREAKS],
            finished=True,
            first_sequence=first,
            checkpoints=known.count,
            signed_sequence=known.newest.sequence if known.newest else 0,
            anchored=known.anchored,
        )

    async def _known(self, tenant: str) -> _Known:
        keys = await self._public_keys()
        known = _Known(newest=None, signed={}, count=0, breaks=[])
        anchored = await self._anchored(tenant, known)
        while True:
            async with self._database.within(self._domain) as session:
                rows = await checkpoint_store.list_checkpoints(session, tenant, after=known.count, size=_PAGE)
            if not rows:
                break
            for row in rows:
                _take_checkpoint(known, row, keys)
        for sequence, digest in anchored.items():
            if known.signed.get(sequence) != digest:
                known.breaks.append(Break(sequence=sequence, problem="the anchor has another checkpoint"))
        # What lies outside the database counts for more than what lies in it.
        known.signed |= anchored
        return known

    async def _public_keys(self) -> Mapping[int, Ed25519PublicKey]:
        try:
            versions = await self._key.public_keys()
        except VaultUnavailable:
            # The links and the anchor are compared all the same.
            return {}
        return {version: Ed25519PublicKey.from_public_bytes(raw) for version, raw in versions.items()}

    async def _anchored(self, tenant: str, known: _Known) -> Mapping[int, bytes]:
        try:
            anchored = await asyncio.to_thread(self._anchor.hashes, tenant)
        except AnchorUnusable as error:
            known.breaks.append(Break(sequence=0, problem=f"the anchor cannot be read: {error}"))
            return {}
        known.anchored = bool(anchored)
        return anchored


def _take_checkpoint(known: _Known, row: AuditCheckpointRow, keys: Mapping[int, Ed25519PublicKey]) -> None:
    document = content_of(row.document)
    previous = hash_of_document(known.newest.document) if known.newest else BEGINNING.hex()
    known.count += 1
    said = [document.get(name) for name in ("tenant", "number", "sequence", "hash", "first_sequence")]
    if said != [row.tenant_id, row.number, row.sequence, row.hash.hex(), row.first_sequence]:
        known.breaks.append(Break(sequence=row.sequence, problem="a checkpoint's columns contradict what was signed"))
    if row.number != known.count or document.get("previous") != previous:
        known.breaks.append(Break(sequence=row.sequence, problem="a checkpoint does not follow on the one before it"))
        known.count = row.number
    if keys and not _is_signed(row, keys):
        known.breaks.append(Break(sequence=row.sequence, problem="a checkpoint's signature is not genuine"))
    if row.sequence:
        known.signed[row.sequence] = row.hash
    known.newest = row


def _is_signed(row: AuditCheckpointRow, keys: Mapping[int, Ed25519PublicKey]) -> bool:
    public_key = keys.get(row.key_version)
    root = root_of(leaf_hash(row.document.encode()), row.leaf_index, row.tree_size, [one or b"" for one in row.path])
    if public_key is None or root is None:
        return False
    try:
        public_key.verify(row.signature, signed_message(Purpose.AUDIT, row.tree_size, root))
    except InvalidSignature:
        return False
    return True


def _check_end(walk: Walk, head: Head, known: _Known) -> None:
    if (walk.sequence, walk.hash) != (head.sequence, head.hash):
        walk.breaks.append(Break(sequence=walk.sequence, problem=f"the trail should end with event {head.sequence}"))
    last_signed = max(known.signed, default=0)
    if last_signed > walk.sequence:
        walk.breaks.append(
            Break(sequence=last_signed, problem=f"events after {walk.sequence} are missing: checkpoints know them")
        )
