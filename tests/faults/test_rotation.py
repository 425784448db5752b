"""Rotations under load, with a crash at every boundary of every step: none fails a call, none leaves anything behind.

FAULTS_ROTATIONS (20) rotations that succeed, and a quarter as many that are rolled back, are spread over lanes; each is
struck at the next boundary in turn (before and after each call of another process, and before each commit), every third
one a second time. Meanwhile calls go on with whatever key the worker's own chooser picks. Some 2 s for a rotation, most
of it drain.
"""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import EpochWatch, Topic
from tollhouse_server.generation.keys import KeyChooser
from tollhouse_server.names import KeyRotationName
from tollhouse_server.routing.addresses import Addresses
from tollhouse_server.routing.live import LiveCatalogue
from tollhouse_server.simulator.client import running_simulator
from tollhouse_server.upstream.http import open_transport
from tollhouse_server.vault.client import VaultClient
from tollhouse_server.vault.connection import VaultAddress
from tollhouse_server.vault.key_ring import KeyRing, UpstreamKeyRef

from tests.drivers.custody import AT_ONCE, Boundaries, Crash, Rig
from tests.drivers.openbao import TestOpenBao
from tests.drivers.postgres import TestDatabase, TestPostgres

ROTATIONS = int(os.environ.get("FAULTS_ROTATIONS", "20"))
SEED = int(os.environ.get("FAULTS_ROTATION_SEED", "1"))
LANES = 4
# A project at Google has 300 keys at the most, deleted ones of the last 30 days included.
MOST_PER_LANE = 280
CALL_PAUSE_SECONDS = 0.02
LOADED = replace(AT_ONCE, overlap_seconds=0.5)


@dataclass(slots=True)
class Worker:
    """Picks and uses keys as a serving process does, and remembers what it saw."""

    rig: Rig
    chooser: KeyChooser
    watch: EpochWatch
    calls: int = 0
    without_key: int = 0
    refused: list[str] = field(default_factory=list)
    last_use: dict[str, float] = field(default_factory=dict)

    async def run(self) -> None:
        while True:
            chosen = self.chooser.pick(self.rig.account_id)
            if chosen is None:
                self.without_key += 1
            else:
                self.last_use[chosen.meta.key_id] = time.monotonic()
                verdict = await self.rig.probe.check(self.rig.account_id, chosen.secret)
                self.calls += 1
                if verdict != "ACCEPTED":
                    self.refused.append(f"{chosen.meta.key_id}: {verdict}")
            await asyncio.sleep(CALL_PAUSE_SECONDS)


@dataclass(slots=True)
class Strikes:
    """Where rotations of one kind are struck next."""

    plain: list[str]
    rng: random.Random
    turn: int = 0
    struck: Counter[str] = field(default_factory=Counter)

    def next(self) -> Iterator[int | None]:
        """Yield the boundary for each life of a process until one of them is not struck."""
        yield self.turn % len(self.plain)
        self.turn += 1
        if self.turn % 3 == 0:
            yield self.rng.randrange(len(self.plain))
        while True:
            yield None


async def rotate(rig: Rig, strikes: Strikes, outcome: str) -> KeyRotationName:
    """Carry one rotation through all its crashes."""
    name = await rig.start()
    for crash_at in strikes.next():
        boundaries = Boundaries(crash_at=crash_at)
        try:
            await advance_to_end(rig, name, boundaries)
        except Crash as crash:
            strikes.struck[str(crash)] += 1
        if (row := await rig.rotation(name)).ended_at is not None:
            assert row.outcome == outcome, row.error
            return name
    raise AssertionError("a process that was not struck ended before its rotation")


async def advance_to_end(rig: Rig, name: KeyRotationName, boundaries: Boundaries) -> None:
    machine = rig.machine(boundaries)
    while (row := await rig.rotation(name)).ended_at is None:
        # Waiting costs no boundary, so that the same number means the same place.
        assert row.next_at is not None
        await asyncio.sleep(max(0.0, row.next_at.timestamp() - time.time()))
        await machine.advance()


async def plain_boundaries(rig: Rig, outcome: str) -> list[str]:
    """What a rotation passes that nobody strikes."""
    boundaries = Boundaries()
    name = await rig.start()
    await advance_to_end(rig, name, boundaries)
    assert (await rig.rotation(name)).outcome == outcome
    return boundaries.passed


@asynccontextmanager
async def serving(rig: Rig, vault: VaultClient) -> AsyncIterator[Worker]:
    """A worker's part of keys over its own look at PostgreSQL and Vault."""
    catalogue = LiveCatalogue(rig.database, Addresses(base_urls={"gemini_api": rig.simulator.url}))
    ring = KeyRing(vault, refresh_seconds=5.0, retry_seconds=0.5)
    watch = EpochWatch(rig.database, interval_seconds=0.05)

    async def expect() -> None:
        keys = catalogue.current.keys_of(rig.account_id)
        ring.expect_soon(
            [UpstreamKeyRef(account_id=k.account_id, key_id=k.key_id, version=k.vault_version) for k in keys]
        )

    watch.on_change(Topic.ACCOUNTS, catalogue.reload)
    watch.on_change(Topic.ACCOUNTS, expect)
    await watch.refresh()
    await ring.refresh()
    worker = Worker(rig, KeyChooser(lambda: catalogue.current, ring, lambda _a, _k: False), watch)
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(run()) for run in (watch.run, ring.run, worker.run)]
        yield worker
        for task in running:
            task.cancel()


async def lane(number: int, rig: Rig, gateway: VaultClient, rotations: int) -> tuple[Worker, list[Strikes]]:
    """Rotate one account's key again and again, and look at what is left after each time."""
    await rig.add_account()
    rng = random.Random(SEED * 1000 + number)
    refused = replace(rig, refuses=True)
    async with serving(rig, gateway) as worker:
        await rotate(rig, Strikes(["nothing"], rng), "SUCCEEDED")
        good = Strikes(await plain_boundaries(rig, "SUCCEEDED"), rng, turn=number * rotations)
        bad = Strikes(await plain_boundaries(refused, "FAILED"), rng, turn=number * rotations)
        for turn in range(rotations):
            await rotate(rig, good, "SUCCEEDED")
            await rig.assert_in_order()
            if turn % 4 == 0:
                await rotate(refused, bad, "FAILED")
                await rig.assert_in_order()
        assert_old_keys_unused(worker, await rig.keys_in("RETIRED"))
    return worker, [good, bad]


def assert_old_keys_unused(worker: Worker, retired: list[str]) -> None:
    """A key that is retired was picked before the drain was over; a pick after it would have been refused as well."""
    newest = max(worker.last_use, key=lambda key: worker.last_use[key])
    assert newest not in retired
    assert worker.without_key == 0
    assert worker.refused == []
    assert worker.calls > 0


@pytest.fixture
async def vaults(openbao: TestOpenBao) -> AsyncIterator[tuple[VaultClient, VaultClient]]:
    address = VaultAddress(url=openbao.endpoint.address)
    both = VaultClient(address, openbao.endpoint.key_custodian), VaultClient(address, openbao.endpoint.gateway)
    yield both
    for vault in both:
        await vault.close()


@pytest.fixture
def lane_databases(postgres_server: TestPostgres) -> Iterator[list[TestDatabase]]:
    """One for each lane: who claims a rotation takes whichever is due, and a lane strikes its own."""
    lanes = max(LANES, -(-ROTATIONS // MOST_PER_LANE))
    databases = [postgres_server.create_database() for _ in range(lanes)]
    yield databases
    for database in databases:
        postgres_server.drop_database(database)


async def test_rotations_under_load_survive_a_crash_at_every_boundary(
    lane_databases: list[TestDatabase], vaults: tuple[VaultClient, VaultClient]
) -> None:
    """0 calls fail, one key lives at the provider and in Vault after each, and none is used after its drain."""
    lanes = len(lane_databases)
    custodian, gateway = vaults
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(running_simulator(only_known_keys=True))
        transport = await stack.enter_async_context(open_transport())
        rigs = []
        for made in lane_databases:
            database = Database(made.app_dsn)
            stack.push_async_callback(database.close)
            parts: dict[str, Any] = {"vault": custodian, "simulator": simulator, "transport": transport}
            rigs.append(Rig(database=database, pace=LOADED, drain_seconds=1, **parts))
        each = -(-ROTATIONS // lanes)
        done = await asyncio.gather(*(lane(number, rig, gateway, each) for number, rig in enumerate(rigs)))

    report(done, each * lanes)


def report(done: list[tuple[Worker, list[Strikes]]], rotations: int) -> None:
    struck: Counter[str] = Counter()
    for _, strikes in done:
        for one in strikes:
            struck.update(one.struck)
    calls = sum(worker.calls for worker, _ in done)
    print(f"{rotations} rotations, {sum(struck.values())} crashes, {calls} calls, 0 failed: {dict(struck)}")  # noqa: T201
    assert sum(struck.values()) >= rotations
