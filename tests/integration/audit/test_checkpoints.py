"""Checkpoints, their anchor, retention, and the verification of what is stored; keys in memory, PostgreSQL real."""

import json
import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
from prometheus_client import CollectorRegistry
from tollhouse_admin.audit_proofs import Report, verified_checkpoints, verify_trail
from tollhouse_server.audit import store
from tollhouse_server.audit.anchor import Anchor, AnchorContradicted
from tollhouse_server.audit.chores import AuditChores, Cadence
from tollhouse_server.audit.personal import exported
from tollhouse_server.audit.retention import Retention
from tollhouse_server.audit.store import Question
from tollhouse_server.audit.verification import Step, Verification
from tollhouse_server.database.engine import Database
from tollhouse_server.database.roles import OF_ALL_TENANTS
from tollhouse_server.errors import VaultUnavailable
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.vault.client import Signature
from tollhouse_server.vault.signing import Purpose, SigningKey

from tests.drivers.audit import key_set
from tests.drivers.postgres import TestDatabase
from tests.drivers.receipts import KeyInMemory
from tests.drivers.stored_tampers import CHECKPOINT_CHANGES, TAMPERS, StoredTrail
from tests.integration.audit.conftest import event, links_of, write


class AuditKey(KeyInMemory):
    """A key under the name of audit; Vault is away while `away` is set."""

    away = False

    async def sign(self, key: str, payload: bytes) -> Signature:
        if self.away:
            raise VaultUnavailable
        return await super().sign(key, payload)

    async def public_keys(self, key: str) -> Mapping[int, bytes]:
        return await super().public_keys(key.replace("audit", "receipts"))


@dataclass(frozen=True, slots=True)
class Desk:
    """A housekeeper's desk, and the owner of the database at his own."""

    database: Database
    chores: AuditChores
    key: AuditKey
    directory: Path
    owner: "asyncpg.Connection[asyncpg.Record]"
    registry: CollectorRegistry

    async def round(self) -> None:
        """Sign and anchor."""
        await self.chores.sign_due()
        await self.chores.anchor_new()

    async def verified(self, tenant: str = "acme") -> Step:
        """Verify what is stored; return the last step, with all breaks."""
        signer = SigningKey(self.key, "audit", purpose=Purpose.AUDIT)
        verification = Verification(self.database, signer, Anchor(self.directory), domain=tenant)
        steps = [step async for step in verification.run(tenant)]
        breaks = [one for step in steps for one in step.breaks]
        last = steps[-1]
        return Step(
            sequence=last.sequence,
            breaks=breaks,
            finished=last.finished,
            first_sequence=last.first_sequence,
            checkpoints=last.checkpoints,
            signed_sequence=last.signed_sequence,
            anchored=last.anchored,
        )

    async def offline(self, tenant: str = "acme") -> Report:
        """Verify an export of now against the anchor, as `tollhouse audit verify` does."""
        report = Report()
        anchor = (self.directory / f"{tenant}.jsonl").read_bytes().splitlines(keepends=True)
        known = verified_checkpoints(anchor, key_set(self.key), report)
        lines = [f"{exported(link, None)}\n".encode() for link in await links_of(self.database, tenant)]
        for _ in verify_trail(lines, known, report):
            pass
        return report


def chores(desk_database: Database, key: AuditKey, directory: Path, registry: CollectorRegistry) -> AuditChores:
    return AuditChores(
        desk_database,
        key=SigningKey(key, "audit", purpose=Purpose.AUDIT),
        anchor=Anchor(directory),
        cadence=Cadence(events=1, seconds=0.0),
        months=1,
        metrics=Metrics(registry),
    )


@pytest.fixture
async def desk(database: Database, fresh_database: TestDatabase, tmp_path: Path) -> AsyncIterator[Desk]:
    key, registry = AuditKey(), CollectorRegistry()
    owner = await asyncpg.connect(fresh_database.root_dsn, server_settings=dict(OF_ALL_TENANTS))
    yield Desk(database, chores(database, key, tmp_path, registry), key, tmp_path, owner, registry)
    await owner.close()


async def test_one_signature_stands_for_all_trails_of_a_round(desk: Desk) -> None:
    """Each trail's file has its own checkpoint, and nothing of the others."""
    await write(desk.database, event("acme"), event("bolt"), event("bolt"), event("platform"))

    await desk.round()

    assert desk.key.signatures == 1
    assert {path.name for path in desk.directory.iterdir()} == {
        *("acme.jsonl", "bolt.jsonl", "platform.jsonl"),
        "keys.json",
    }
    assert "bolt" not in (desk.directory / "acme.jsonl").read_text()
    assert (await desk.offline()).findings == []
    assert (await desk.offline("bolt")).signed_sequence == 2


async def test_a_trail_that_has_not_moved_is_not_signed_again(desk: Desk) -> None:
    """Rounds cost nothing while nothing happens."""
    await write(desk.database, event("acme"))
    await desk.round()

    await desk.round()

    assert desk.key.signatures == 1
    assert (await desk.verified()).checkpoints == 1


async def test_checkpoints_follow_on_each_other_whoever_makes_them(desk: Desk) -> None:
    """Another housekeeper with a directory of its own copies what it lacks, and goes on."""
    await write(desk.database, event("acme"))
    await desk.round()
    await write(desk.database, event("acme", 1))
    other = chores(desk.database, desk.key, desk.directory / "other", CollectorRegistry())
    await other.sign_due()
    await other.anchor_new()

    await desk.round()

    mine, others = (path.read_text() for path in (desk.directory / "acme.jsonl", desk.directory / "other/acme.jsonl"))
    assert mine == others
    assert (await desk.offline()).checkpoints == 2


async def test_an_anchor_that_was_not_written_to_its_end_is_completed(desk: Desk) -> None:
    """A crash in the midst of a line: it is written anew."""
    await write(desk.database, event("acme"))
    await desk.round()
    file = desk.directory / "acme.jsonl"
    whole = file.read_text()
    file.write_text(whole[:100])

    anew = chores(desk.database, desk.key, desk.directory, CollectorRegistry())
    await anew.anchor_new()

    assert file.read_text() == whole


async def test_without_vault_events_wait_to_be_signed(desk: Desk) -> None:
    """Their age is told; when Vault is back all is signed."""
    await write(desk.database, event("acme"))
    desk.key.away = True

    with pytest.raises(VaultUnavailable):
        await desk.chores.sign_due()

    unsigned = desk.registry.get_sample_value("tollhouse_audit_unsigned_seconds")
    assert unsigned is not None and unsigned > 0
    desk.key.away = False
    await desk.round()
    assert (await desk.offline()).signed_sequence == 1


async def test_a_broken_trail_is_not_signed(desk: Desk) -> None:
    """Somebody has changed an event before its first checkpoint, or cut a trail off after one."""
    await write(desk.database, event("acme"), event("acme", 1), event("bolt"))
    await desk.owner.execute("UPDATE audit_event SET actor = 'x' WHERE tenant_id = 'acme' AND sequence = 1")
    await desk.round()

    assert not (desk.directory / "acme.jsonl").exists()
    assert (desk.directory / "bolt.jsonl").exists()
    assert desk.registry.get_sample_value("tollhouse_audit_failures_total", {"cause": "broken"}) == 1
    await desk.owner.execute("DELETE FROM audit_event WHERE tenant_id = 'bolt'")
    await desk.owner.execute("DELETE FROM audit_head WHERE tenant_id = 'bolt'")
    await write(desk.database, event("bolt", 2))
    await desk.round()
    assert desk.registry.get_sample_value("tollhouse_audit_failures_total", {"cause": "broken"}) == 3
    assert [one.sequence for one in (await desk.verified("bolt")).breaks]


async def test_an_anchor_is_never_written_over(desk: Desk) -> None:
    """Checkpoints that the database has lost or made anew are told of, and the file stays."""
    await write(desk.database, event("acme"))
    await desk.round()
    before = (desk.directory / "acme.jsonl").read_bytes()
    await desk.owner.execute("TRUNCATE audit_checkpoint, audit_event, audit_head")
    await write(desk.database, event("acme", 5), event("acme", 6))
    await desk.chores.sign_due()
    await write(desk.database, event("acme", 7))
    await desk.chores.sign_due()

    with pytest.raises(AnchorContradicted):
        await desk.chores.anchor_new()

    assert (desk.directory / "acme.jsonl").read_bytes() == before
    assert (await desk.offline()).findings
    assert (await desk.verified()).breaks


async def test_a_trail_that_has_vanished_from_the_database_is_told_of(desk: Desk) -> None:
    """Nothing of it moves any more, so only its anchor knows that it was there; the others are anchored on."""
    await write(desk.database, event("acme"), event("bolt"))
    await desk.round()
    for table in ("audit_event", "audit_head", "audit_checkpoint"):
        await desk.owner.execute(f"DELETE FROM {table} WHERE tenant_id = 'acme'")  # noqa: S608
    await write(desk.database, event("bolt", 1))
    await desk.chores.sign_due()

    with pytest.raises(AnchorContradicted, match="acme"):
        await desk.chores.anchor_new()

    assert (await desk.offline("bolt")).signed_sequence == 2


async def test_an_anchor_that_gets_shorter_is_told_of_and_left_so(desk: Desk) -> None:
    """Somebody has cut it or carried it away while the housekeeper runs: it does not write on behind a gap."""
    await write(desk.database, event("acme"), event("bolt"))
    await desk.round()
    file = desk.directory / "acme.jsonl"
    file.write_bytes(b"")
    await write(desk.database, event("acme", 1), event("bolt", 1))
    await desk.chores.sign_due()

    with pytest.raises(AnchorContradicted, match="shorter"):
        await desk.chores.anchor_new()

    assert file.read_bytes() == b""
    assert (await desk.offline("bolt")).signed_sequence == 2


@pytest.mark.parametrize("rubbish", [b"\x00\x00\n", b"{}\n", b'{"document": "7"}\n'])
async def test_an_anchor_with_something_else_in_it_is_told_of_and_ends_nothing(desk: Desk, rubbish: bytes) -> None:
    """The other trails are anchored on, and who verifies this one hears of it."""
    await write(desk.database, event("acme"), event("bolt"))
    await desk.chores.sign_due()
    (desk.directory / "acme.jsonl").write_bytes(rubbish)

    await desk.chores._tried(desk.chores.anchor_new)

    assert desk.registry.get_sample_value("tollhouse_audit_failures_total", {"cause": "anchor"}) == 1
    assert (await desk.offline("bolt")).signed_sequence == 1
    assert ["the anchor cannot be read" in one.problem for one in (await desk.verified()).breaks] == [True]


async def test_what_is_changed_in_the_database_is_found_there(desk: Desk) -> None:
    """Events, checkpoints, heads: each way once. A thousand are in `make faults ARGS=audit`."""
    trail = await signed_trail(desk)
    sound = await desk.verified()

    missed = []
    for number, tamper in enumerate(TAMPERS):
        statements = tamper(random.Random(number), trail)
        await trail.tamper(statements)
        if not (await desk.verified()).breaks:
            missed.append(statements)
        await trail.restore()

    assert (sound.breaks, sound.anchored, sound.checkpoints, sound.signed_sequence) == ([], True, 3, 12)
    assert missed == []
    assert (await desk.verified()).breaks == []


async def test_whatever_is_made_of_a_checkpoint_is_found(desk: Desk) -> None:
    """Also what can no longer be read as one."""
    trail = await signed_trail(desk)

    missed = []
    for change in CHECKPOINT_CHANGES:
        await trail.tamper([f"UPDATE audit_checkpoint SET {change} WHERE tenant_id = 'acme' AND number = 2"])  # noqa: S608
        if not (await desk.verified()).breaks:
            missed.append(change)
        await trail.restore()

    assert missed == []


async def signed_trail(desk: Desk) -> StoredTrail:
    """Write a trail with three checkpoints, the last at its end, and another tenant's beside it."""
    for _ in range(3):
        await write(desk.database, *(event("acme", number) for number in range(4)))
        await write(desk.database, *(event("bolt", number) for number in range(4)))
        await desk.round()
    trail = StoredTrail(desk.owner, events=12, checkpoints=3)
    await trail.keep()
    return trail


async def test_a_trail_rewritten_as_a_whole_is_found_by_its_anchor(desk: Desk) -> None:
    """With all links and checkpoints made anew by the server's own functions, in the database alone."""
    await write(desk.database, event("acme"), event("acme", 1))
    await desk.round()
    await desk.owner.execute("TRUNCATE audit_checkpoint, audit_event, audit_head")
    await write(desk.database, event("acme", actor="al"), event("acme", 1))
    await desk.chores.sign_due()

    found = await desk.verified()

    assert {one.problem for one in found.breaks} >= {"the anchor has another checkpoint"}
    assert (await desk.offline()).findings


async def test_retention_cuts_a_trail_at_a_checkpoint_and_the_rest_still_verifies(desk: Desk) -> None:
    """First the new beginning is signed and anchored, then the old events go; the cut itself is in the trail."""
    await write(desk.database, *(event("acme", number) for number in range(4)))
    await desk.round()
    await write(desk.database, *(event("acme", number) for number in range(3)))
    await desk.round()
    # As if they had been written, linked and signed long ago.
    await _age(desk, through=5)

    retention = Retention(desk.database, desk.chores._checkpoints, months=1)
    assert await retention.drop() == 0
    assert await retention.cut() == {"acme": 4}
    assert await retention.cut() == {}
    await desk.round()
    assert await retention.drop() == 4

    links = await links_of(desk.database, "acme")
    assert [link.sequence for link in links] == [5, 6, 7, 8]
    last = json.loads(links[-1].line)
    assert (last["activity_name"], last["unmapped"]["after"]["droppedThroughSequence"]) == ("DropAuditEvents", "4")
    assert (await desk.offline()).findings == []
    found = await desk.verified()
    assert (found.breaks, found.first_sequence) == ([], 5)


async def test_the_application_can_drop_only_what_is_old_and_behind_a_checkpoint(desk: Desk) -> None:
    """The one function that it has for it looks for itself."""
    await write(desk.database, *(event("acme", number) for number in range(4)))
    await desk.round()
    retention = Retention(desk.database, desk.chores._checkpoints, months=1)

    assert await retention.cut() == {}
    assert await retention.drop() == 0

    assert len(await links_of(desk.database, "acme")) == 4


async def _age(desk: Desk, *, through: int) -> None:
    """Set the clock of events back and link and sign everything anew, as if it had been so at its time."""
    await desk.owner.execute(
        "UPDATE audit_event SET occurred_at = occurred_at - interval '3 months' WHERE sequence <= $1", through
    )
    signed = [
        row["sequence"] for row in await desk.owner.fetch("SELECT sequence FROM audit_checkpoint ORDER BY number")
    ]
    await desk.owner.execute("TRUNCATE audit_checkpoint, audit_head")
    await desk.owner.execute("UPDATE audit_event SET sequence = NULL")
    (desk.directory / "acme.jsonl").unlink()
    desk.chores._anchor = Anchor(desk.directory)
    event_ids = [
        row["event_id"] for row in await desk.owner.fetch("SELECT event_id FROM audit_event ORDER BY event_id")
    ]
    for number, event_id in enumerate(event_ids, start=1):
        sql = "SELECT audit_link(e, e.occurred_at) FROM audit_event e WHERE event_id = $1"
        await desk.owner.execute(sql, event_id)
        if number in signed:
            await desk.round()


async def test_unlinked_events_are_never_read(desk: Desk) -> None:
    """Inside its transaction an event has no place yet."""
    async with desk.database.within("acme") as session:
        await store.record(session, event("acme"))

        assert await store.read_links(session, "acme", Question(), size=10) == []
