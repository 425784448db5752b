"""Tenants' data keys on a real OpenBao and PostgreSQL: made once, kept in memory, and gone for good when destroyed."""

import asyncio
from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import EpochWatch
from tollhouse_server.errors import KeyDestroyed, StoreUnavailable, Unreadable, VaultDenied, VaultUnavailable
from tollhouse_server.vault.client import VaultClient
from tollhouse_server.vault.connection import VaultAddress
from tollhouse_server.vault.tenant_keys import TenantKeys

from tests.drivers.openbao import TestOpenBao
from tests.drivers.postgres import TestDatabase

TENANT = "acme"
SECRET = b"a prompt that nobody else may read"


class Process:
    """What one process of a server has of tenants' keys."""

    def __init__(self, database: TestDatabase, openbao: TestOpenBao) -> None:
        address = VaultAddress(url=openbao.endpoint.address, timeout_seconds=2)
        self.gateway = VaultClient(address, openbao.endpoint.gateway)
        self.custodian = VaultClient(address, openbao.endpoint.key_custodian)
        self.database = Database(database.app_dsn)
        self.watch = EpochWatch(self.database)
        self.keys = TenantKeys(self.database, self.watch, gateway=self.gateway, custodian=self.custodian)

    async def close(self) -> None:
        await self.gateway.close()
        await self.custodian.close()
        await self.database.close()


@pytest.fixture
async def start(fresh_database: TestDatabase, openbao: TestOpenBao) -> AsyncIterator[Callable[[], Process]]:
    """Start another process of the server."""
    started: list[Process] = []

    def process() -> Process:
        started.append(Process(fresh_database, openbao))
        return started[-1]

    yield process
    for each in started:
        await each.keys.destroy(TENANT)
        await each.close()


@pytest.fixture
def process(start: Callable[[], Process]) -> Process:
    return start()


async def rows(database: TestDatabase, sql: str, *arguments: object) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(database.root_dsn)
    try:
        return await connection.fetch(sql, *arguments)
    finally:
        await connection.close()


async def test_what_is_sealed_opens_in_every_process(start: Callable[[], Process]) -> None:
    """The key lies wrapped in the database, and Vault unwraps it for each."""
    first, second = start(), start()

    sealed = await first.keys.seal(TENANT, SECRET, context=b"call-1")

    assert SECRET not in sealed
    assert await second.keys.open(TENANT, sealed, context=b"call-1") == SECRET


@pytest.mark.parametrize("wrong", ["tenant", "context", "bit", "cut", "version"])
async def test_what_was_moved_or_changed_does_not_open(process: Process, wrong: str) -> None:
    """Nobody can put one call's content in another's place, or another tenant's."""
    sealed = await process.keys.seal(TENANT, SECRET, context=b"call-1")
    await process.keys.seal("globex", SECRET, context=b"call-1")
    changed = {
        "bit": sealed[:-1] + bytes([sealed[-1] ^ 1]),
        "cut": sealed[:20],
        "version": sealed[:4] + b"\7" + sealed[5:],
    }

    opening = process.keys.open(
        "globex" if wrong == "tenant" else TENANT,
        changed.get(wrong, sealed),
        context=b"call-2" if wrong == "context" else b"call-1",
    )

    with pytest.raises(Unreadable):
        await opening


async def test_processes_that_seal_first_at_once_make_one_key(
    start: Callable[[], Process], fresh_database: TestDatabase
) -> None:
    """The first row stands, and who came second seals under it."""
    processes = [start() for _ in range(4)]

    sealed = await asyncio.gather(
        *(each.keys.seal(TENANT, SECRET, context=b"") for each in processes for _ in range(3))
    )

    assert len(await rows(fresh_database, "SELECT FROM tenant_key")) == 1
    assert {await processes[0].keys.open(TENANT, each, context=b"") for each in sealed} == {SECRET}


async def test_what_a_destroyed_key_sealed_is_unreadable_in_every_process(start: Callable[[], Process]) -> None:
    """Also where the key was in memory, as soon as the process hears of it; what comes later has a new key."""
    first, second = start(), start()
    sealed = await second.keys.seal(TENANT, SECRET, context=b"")

    await first.keys.destroy(TENANT)
    await first.keys.destroy(TENANT)
    await second.watch.refresh()

    for each in (first, second):
        with pytest.raises(KeyDestroyed):
            await each.keys.open(TENANT, sealed, context=b"")
    later = await second.keys.seal(TENANT, SECRET, context=b"")
    assert await first.keys.open(TENANT, later, context=b"") == SECRET


async def test_a_restored_backup_brings_a_destroyed_key_back_to_nobody(
    start: Callable[[], Process], fresh_database: TestDatabase
) -> None:
    """The wrapped key is nothing without Vault; erasing once more lets the tenant seal again."""
    process, restored = start(), start()
    sealed = await process.keys.seal(TENANT, SECRET, context=b"")
    backup = await rows(fresh_database, "SELECT wrapped FROM tenant_key")
    await process.keys.destroy(TENANT)
    await rows(fresh_database, "UPDATE tenant_key SET wrapped = $1, destroyed_at = NULL", backup[0]["wrapped"])

    with pytest.raises(KeyDestroyed):
        await restored.keys.open(TENANT, sealed, context=b"")
    with pytest.raises(KeyDestroyed):
        await restored.keys.seal(TENANT, SECRET, context=b"")
    await restored.keys.destroy(TENANT)
    later = await restored.keys.seal(TENANT, SECRET, context=b"")

    assert await restored.keys.open(TENANT, later, context=b"") == SECRET
    with pytest.raises(KeyDestroyed):
        await restored.keys.open(TENANT, sealed, context=b"")


async def test_an_interrupted_destruction_is_ended_by_the_next(
    start: Callable[[], Process], openbao: TestOpenBao, fresh_database: TestDatabase
) -> None:
    """Vault was away after the mark: nobody opens any more, and the key in Vault goes when it is back."""
    process = start()
    sealed = await process.keys.seal(TENANT, SECRET, context=b"")
    backup = await rows(fresh_database, "SELECT wrapped FROM tenant_key")
    await openbao.server.seal()
    with pytest.raises(VaultUnavailable):
        await process.keys.destroy(TENANT)
    with pytest.raises(KeyDestroyed):
        await process.keys.open(TENANT, sealed, context=b"")
    await openbao.server.unseal()

    await process.keys.finish_destructions()

    await rows(fresh_database, "UPDATE tenant_key SET wrapped = $1, destroyed_at = NULL", backup[0]["wrapped"])
    with pytest.raises(KeyDestroyed):
        await start().keys.open(TENANT, sealed, context=b"")


async def test_known_keys_go_on_while_vault_is_away(start: Callable[[], Process], openbao: TestOpenBao) -> None:
    """A key that is not in memory is not to be had; nothing is sealed under something else instead."""
    process, fresh = start(), start()
    sealed = await process.keys.seal(TENANT, SECRET, context=b"")
    await openbao.server.seal()

    try:
        later = await process.keys.seal(TENANT, SECRET, context=b"")
        opened = await process.keys.open(TENANT, sealed, context=b"")
        with pytest.raises(VaultUnavailable):
            await fresh.keys.seal(TENANT, SECRET, context=b"")
    finally:
        await openbao.server.unseal()

    assert opened == await fresh.keys.open(TENANT, later, context=b"") == SECRET


async def test_who_has_only_opened_can_seal_while_vault_is_away(
    start: Callable[[], Process], openbao: TestOpenBao
) -> None:
    """The key that opens is the one that seals."""
    process, fresh = start(), start()
    sealed = await process.keys.seal(TENANT, SECRET, context=b"")
    await fresh.keys.open(TENANT, sealed, context=b"")
    await openbao.server.seal()

    try:
        later = await fresh.keys.seal(TENANT, SECRET, context=b"")
    finally:
        await openbao.server.unseal()

    assert await process.keys.open(TENANT, later, context=b"") == SECRET


async def test_known_keys_are_not_used_without_word_from_the_database(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who cannot know whether a key was destroyed does not open with it."""
    sealed = await process.keys.seal(TENANT, SECRET, context=b"")
    monkeypatch.setattr(EpochWatch, "staleness_seconds", float("inf"))

    async def fails(_: EpochWatch) -> None:
        raise StoreUnavailable(detail="gone")

    monkeypatch.setattr(EpochWatch, "refresh", fails)

    with pytest.raises(StoreUnavailable):
        await process.keys.open(TENANT, sealed, context=b"")


async def test_the_roles_in_vault_divide_what_keys_need(process: Process) -> None:
    """Who makes and destroys keys unwraps none, and who unwraps neither makes nor destroys."""
    await process.keys.seal(TENANT, SECRET, context=b"")
    name = f"tenant-{TENANT}.1"
    _, wrapped = await process.gateway.new_wrapped_key(name)

    for forbidden in (
        process.custodian.unwrap_key(name, wrapped),
        process.custodian.new_wrapped_key(name),
        process.gateway.destroy_wrapping_key(name),
        process.gateway.make_wrapping_key("tenant-other.1"),
    ):
        with pytest.raises(VaultDenied):
            await forbidden
