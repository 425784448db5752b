"""A plane of its own for each test."""

from collections.abc import AsyncIterator

import pytest

from tests.drivers.postgres import TestDatabase
from tests.integration.admin.plane import Plane


@pytest.fixture
async def plane(fresh_database: TestDatabase) -> AsyncIterator[Plane]:
    """The administration plane over a fresh database, with a platform administrator's key."""
    plane = await Plane.start(fresh_database.app_dsn)
    yield plane
    await plane.database.close()
