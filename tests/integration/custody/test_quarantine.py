"""A key that the upstream refuses is out of use here at once, everywhere soon, and never more than it should be."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from prometheus_client import CollectorRegistry
from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse_server.custody.quarantine import Quarantine
from tollhouse_server.database.engine import Database
from tollhouse_server.database.rows import insert, run_sql
from tollhouse_server.errors import StoreUnavailable
from tollhouse_server.routing.tables import AccountRow, UpstreamKeyRow
from tollhouse_server.telemetry.metrics import Metrics

FINGERPRINT = "0123456789abcdef"


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class LostDatabase(Database):
    """Away until `back` is set."""

    def __init__(self, inner: Database) -> None:
        self._inner = inner
        self.back = False
        self.asked = asyncio.Event()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        self.asked.set()
        if not self.back:
            raise StoreUnavailable(detail="for a test")
        async with self._inner.transaction() as session:
            yield session


@dataclass
class Scene:
    """One key and a process that hears of it."""

    database: Database
    clock: Clock = field(default_factory=Clock)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self.quarantine = Quarantine(self.database, Metrics(self.registry), clock=self.clock)

    async def state(self) -> str:
        async with self.database.transaction() as session:
            return str((await run_sql(session, "SELECT state FROM upstream_key")).one().state)

    async def epoch(self) -> int:
        async with self.database.transaction() as session:
            return int((await run_sql(session, "SELECT value FROM epoch WHERE topic = 'accounts'")).one().value)


@pytest.fixture
async def scene(database: Database) -> Scene:
    async with database.transaction() as session:
        await insert(session, AccountRow(account_id="main", kind="gemini_api", base_url_key="gemini_api"))
        await insert(
            session, UpstreamKeyRow(account_id="main", key_id="first", vault_version=1, fingerprint=FINGERPRINT)
        )
    return Scene(database)


async def test_a_refused_key_is_out_before_anything_is_written(scene: Scene) -> None:
    """No call waits for a database to keep off it."""
    before = scene.quarantine.is_out("main", "first")

    scene.quarantine.report("main", "first", FINGERPRINT, 403)

    assert not before
    assert scene.quarantine.is_out("main", "first")
    assert not scene.quarantine.is_out("main", "second")
    assert await scene.state() == "ACTIVE"


async def test_the_refusal_is_written_once_with_its_audit_row_and_everybody_is_told(scene: Scene) -> None:
    """However many calls hear it."""
    epoch = await scene.epoch()
    for _ in range(100):
        scene.quarantine.report("main", "first", FINGERPRINT, 403)

    await scene.quarantine.write()
    await scene.quarantine.write()

    async with scene.database.transaction() as session:
        events = (await run_sql(session, "SELECT resource, after FROM audit_event")).all()
    assert await scene.state() == "QUARANTINED"
    assert await scene.epoch() == epoch + 1
    assert [event.resource for event in events] == ["accounts/main/upstreamKeys/first"]
    assert (events[0].after["state"], events[0].after["httpStatus"]) == ("STATE_QUARANTINED", 403)
    name, labels = "tollhouse_upstream_key_refusals_total", {"account": "main"}
    assert scene.registry.get_sample_value(name, labels) == 1.0


@pytest.mark.parametrize(
    "change", ["fingerprint = 'fedcba9876543210'", "state = 'DISABLED'", "state = 'DRAINING'", "state = 'REVOKED'"]
)
async def test_only_the_key_that_was_refused_is_quarantined(scene: Scene, change: str) -> None:
    """A newer secret of the same id was not refused, and what is out of use already stays as it is."""
    async with scene.database.transaction() as session:
        await run_sql(session, f"UPDATE upstream_key SET {change}")  # noqa: S608 - the test's own words
    before = await scene.state()

    scene.quarantine.report("main", "first", FINGERPRINT, 401)
    await scene.quarantine.write()

    assert await scene.state() == before


async def test_a_key_that_is_enabled_again_is_used_again(scene: Scene) -> None:
    """This process keeps off it until everyone has read the quarantine, then the catalogue decides."""
    scene.quarantine.report("main", "first", FINGERPRINT, 403)
    await scene.quarantine.write()
    just_after = scene.quarantine.is_out("main", "first")
    scene.clock.now = 6.0

    later = scene.quarantine.is_out("main", "first")
    scene.quarantine.report("main", "first", FINGERPRINT, 403)

    assert (just_after, later) == (True, False)
    assert scene.quarantine.is_out("main", "first")


async def test_without_the_database_the_key_stays_out_and_is_written_when_it_is_back(scene: Scene) -> None:
    """For as long as it takes."""
    lost = LostDatabase(scene.database)
    quarantine = Quarantine(lost, Metrics(CollectorRegistry()), clock=scene.clock)
    running = asyncio.create_task(quarantine.run())
    quarantine.report("main", "first", FINGERPRINT, 403)
    await lost.asked.wait()
    scene.clock.now = 3600.0
    meanwhile = quarantine.is_out("main", "first")

    lost.back = True
    async with asyncio.timeout(10):
        while await scene.state() != "QUARANTINED":  # noqa: ASYNC110 - it is written by a task of its own
            await asyncio.sleep(0.02)

    running.cancel()
    assert meanwhile
