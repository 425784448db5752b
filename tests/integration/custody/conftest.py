"""A rig of its own for each test; the simulator is one for the module."""

from collections.abc import AsyncIterator

import pytest
from tollhouse_server.database.engine import Database
from tollhouse_server.simulator.client import running_simulator
from tollhouse_server.upstream.gemini import GeminiUpstream, open_session
from tollhouse_server.vault.client import VaultClient
from tollhouse_server.vault.connection import VaultAddress

from tests.drivers.custody import Rig
from tests.drivers.openbao import TestOpenBao
from tests.drivers.postgres import TestDatabase


@pytest.fixture
async def database(fresh_database: TestDatabase) -> AsyncIterator[Database]:
    database = Database(fresh_database.app_dsn)
    yield database
    await database.close()


@pytest.fixture
async def custodian(openbao: TestOpenBao) -> AsyncIterator[VaultClient]:
    vault = VaultClient(VaultAddress(url=openbao.endpoint.address), openbao.endpoint.key_custodian)
    yield vault
    await vault.close()


@pytest.fixture
async def rig(database: Database, custodian: VaultClient) -> AsyncIterator[Rig]:
    """An account with one key, at a simulator that takes only keys it knows."""
    async with running_simulator(only_known_keys=True) as simulator, open_session() as session:
        rig = Rig(database=database, vault=custodian, simulator=simulator, upstream=GeminiUpstream(session))
        await rig.add_account()
        yield rig
