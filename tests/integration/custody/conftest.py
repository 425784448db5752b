"""A rig of its own for each test; the simulator is one for all."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import pytest
from tollhouse_server.database.engine import Database
from tollhouse_server.simulator.client import SimulatorClient
from tollhouse_server.upstream.http import open_transport
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


@pytest.fixture(scope="package")
def simulator_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A simulator that takes only keys it knows, for all tests; no loop owns it, as each of them has its own."""
    directory = tmp_path_factory.mktemp("simulator")
    configuration = directory / "configuration.json"
    configuration.write_text('{"only_known_keys": true}')
    files = ["--log", str(directory / "calls.sqlite"), "--config", str(configuration)]
    command = [sys.executable, "-m", "tollhouse_server.simulator", "--port", "0", "--exit-with-stdin", *files]
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        yield process.stdout.readline().decode().removeprefix("simulator ready url=").split()[0]
        process.terminate()


@pytest.fixture
async def rig(database: Database, custodian: VaultClient, simulator_url: str) -> AsyncIterator[Rig]:
    """An account with one key of the simulator's."""
    async with SimulatorClient(simulator_url) as simulator, open_transport() as transport:
        rig = Rig(database=database, vault=custodian, simulator=simulator, transport=transport)
        await rig.add_account()
        yield rig
