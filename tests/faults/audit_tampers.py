"""A thousand random tampers with exports and their anchors, and a thousand with a stored trail: all must be found."""

import random
import shutil
import tempfile
import time
from pathlib import Path

import asyncpg
from prometheus_client import CollectorRegistry
from tollhouse_server.audit import store
from tollhouse_server.audit.anchor import Anchor
from tollhouse_server.audit.chores import AuditChores, Cadence
from tollhouse_server.audit.tables import AuditEventRow
from tollhouse_server.audit.verification import Verification
from tollhouse_server.database.engine import Database
from tollhouse_server.database.roles import OF_ALL_TENANTS
from tollhouse_server.embedded.postgres import EmbeddedPostgres, PostgresConfig
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.vault.signing import Purpose, SigningKey

from tests.drivers.audit import KEY
from tests.drivers.audit_tampers import unfound
from tests.drivers.postgres import TestDatabase, complete, with_template
from tests.drivers.receipts import KeyInMemory
from tests.drivers.referee import Finding
from tests.drivers.stored_tampers import TAMPERS, StoredTrail
from tests.faults.journal import Journal
from tests.faults.report import say

CAMPAIGN = "audit"
_ROUNDS = 5
_EVENTS_A_ROUND = 8


class _AuditKey(KeyInMemory):
    async def public_keys(self, key: str) -> dict[int, bytes]:
        return dict(await super().public_keys("receipts" if key == KEY else key))


def run(journal: Journal, *, tampers: int, seed: int) -> None:
    """Tamper with exports, then with what is stored."""
    started_at = time.monotonic()
    missed = unfound(tampers, seed=seed)
    _note(journal, "exports", missed, tampers=tampers, seed=seed, started_at=started_at)
    started_at = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="tollhouse-faults-"))
    directory.chmod(0o711)
    server = EmbeddedPostgres(
        PostgresConfig(
            directory=directory / "postgres",
            secrets_directory=directory / "secrets",
            log_path=directory / "postgres.log",
            durable=False,
        )
    )
    try:
        with with_template(complete(server.start())) as running:
            missed = complete(_stored(running.create_database(), directory / "anchor", tampers=tampers, seed=seed))
    finally:
        complete(server.stop())
        shutil.rmtree(directory, ignore_errors=True)
    _note(journal, "stored", missed, tampers=tampers, seed=seed, started_at=started_at)


def _note(journal: Journal, case: str, missed: list[str], *, tampers: int, seed: int, started_at: float) -> None:
    seconds = round(time.monotonic() - started_at, 1)
    findings = [Finding("tampering that was not found", one) for one in missed]
    journal.add(CAMPAIGN, f"audit tampers {case}", findings, tampers=tampers, seed=seed, seconds=seconds)
    say(f"  {case}: {tampers - len(missed)} of {tampers} found in {seconds} s")
    for finding in findings[:10]:
        say(f"      {finding}")


async def _stored(test_database: TestDatabase, directory: Path, *, tampers: int, seed: int) -> list[str]:
    database = Database(test_database.app_dsn)
    owner = await asyncpg.connect(test_database.root_dsn, server_settings=dict(OF_ALL_TENANTS))
    signer = SigningKey(_AuditKey(), KEY, purpose=Purpose.AUDIT)
    trail = await _signed(database, owner, signer, directory)
    missed = []
    for number in range(tampers):
        tamper = TAMPERS[number % len(TAMPERS)]
        await trail.tamper(tamper(random.Random(f"{seed}/{number}"), trail))
        if not await _is_found(database, signer, directory):
            missed.append(f"{tamper.__name__} seed={seed} number={number}")
        await trail.restore()
    if await _is_found(database, signer, directory):
        missed.append("the genuine trail was called broken")
    await owner.close()
    await database.close()
    return missed


async def _is_found(database: Database, signer: SigningKey, directory: Path) -> bool:
    verification = Verification(database, signer, Anchor(directory), domain="acme")
    return any([step.breaks async for step in verification.run("acme")])


async def _signed(
    database: Database, owner: "asyncpg.Connection[asyncpg.Record]", signer: SigningKey, directory: Path
) -> StoredTrail:
    chores = AuditChores(
        database,
        key=signer,
        anchor=Anchor(directory),
        cadence=Cadence(events=1, seconds=0.0),
        months=0,
        metrics=Metrics(CollectorRegistry()),
    )
    for _ in range(_ROUNDS):
        for tenant in ("acme", "bolt"):
            for number in range(_EVENTS_A_ROUND):
                async with database.within(tenant) as session:
                    await store.record(session, _event(tenant, number))
        await chores.sign_due()
        await chores.anchor_new()
    trail = StoredTrail(owner, events=_ROUNDS * _EVENTS_A_ROUND, checkpoints=_ROUNDS)
    await trail.keep()
    return trail


def _event(tenant: str, number: int) -> AuditEventRow:
    return AuditEventRow(
        tenant_id=tenant,
        actor=f"tenants/{tenant}/principals/jo",
        credential_id="abcdefghijkl",
        method="tollhouse.admin.v1.ProjectService.UpdateProject",
        permission="projects.update",
        resource=f"tenants/{tenant}/departments/rnd/projects/p-{number}",
        before={"n": number},
        after={"n": number + 1},
        request_id="",
        correlation_id=f"c-{number}",
    )
