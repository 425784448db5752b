"""One simulator for all tests of this folder, told apart by their keys, and a worker with one account there."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tollhouse_server.simulator.client import SimulatorClient, running_simulator

from tests.drivers.generation import GenerationProcess, UpstreamAccount, account_at, generation_process
from tests.drivers.postgres import TestDatabase


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def simulator_url() -> AsyncIterator[str]:
    """The address of the one simulator: its start takes longer than most tests."""
    async with running_simulator() as running:
        yield running.url


@pytest.fixture
async def simulator(simulator_url: str) -> AsyncIterator[SimulatorClient]:
    """Its admin client; what a test has set is gone afterwards."""
    async with SimulatorClient(simulator_url) as client:
        yield client
        await client.clear_faults()
        await client.replay_next()
        await client.capture_requests(0)


@pytest.fixture
def account(simulator: SimulatorClient) -> UpstreamAccount:
    """Account `main` with one key."""
    return account_at(simulator.url)


@pytest.fixture
async def process(fresh_database: TestDatabase, account: UpstreamAccount) -> AsyncIterator[GenerationProcess]:
    """A worker that serves from account `main`."""
    async with generation_process(fresh_database, account) as process:
        yield process
