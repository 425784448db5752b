"""A plane of its own for each test."""

from collections.abc import AsyncIterator

import pytest
from tollhouse_server.routing.addresses import Addresses
from tollhouse_server.routing.live import seed

from tests.drivers.openbao import TestOpenBao
from tests.drivers.postgres import TestDatabase
from tests.integration.admin.archive import Archive, opened
from tests.integration.admin.plane import Plane


@pytest.fixture
async def plane(fresh_database: TestDatabase) -> AsyncIterator[Plane]:
    """The administration plane over a fresh database, with a platform administrator's key."""
    plane = await Plane.start(fresh_database.app_dsn)
    yield plane
    await plane.database.close()


@pytest.fixture
async def shop(plane: Plane) -> Plane:
    """The plane with the packaged catalogue."""
    async with plane.database.transaction() as session:
        await seed(session, accounts=(), addresses=Addresses(base_urls={}))
    return plane


@pytest.fixture
async def archive(plane: Plane, openbao: TestOpenBao) -> AsyncIterator[Archive]:
    """The plane with tenant acme, whose content can be kept."""
    async with opened(plane, openbao) as archive:
        await plane.tenant("acme")
        yield archive
        await archive.keys.destroy("acme")
