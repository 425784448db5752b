"""A plane of its own for each test."""

from collections.abc import AsyncIterator

import pytest

from tests.drivers.openbao import TestOpenBao
from tests.drivers.postgres import Preparation, TestDatabase
from tests.integration.admin.archive import Archive, opened
from tests.integration.admin.plane import Plane, plane_over, with_administrator, with_catalogue


@pytest.fixture
def preparation(request: pytest.FixtureRequest) -> Preparation | None:
    """What `shop` or `plane` starts from."""
    found = {"shop": with_catalogue, "plane": with_administrator}
    return next((prepare for name, prepare in found.items() if name in request.fixturenames), None)


@pytest.fixture
async def plane(fresh_database: TestDatabase) -> AsyncIterator[Plane]:
    """The administration plane over a fresh database, with a platform administrator's key."""
    async with plane_over(fresh_database) as plane:
        yield plane


@pytest.fixture
def shop(plane: Plane) -> Plane:
    """The plane with the packaged catalogue, which `preparation` has put there."""
    return plane


@pytest.fixture
async def archive(plane: Plane, openbao: TestOpenBao) -> AsyncIterator[Archive]:
    """The plane with tenant acme, whose content can be kept."""
    async with opened(plane, openbao) as archive:
        await plane.tenant("acme")
        yield archive
        await archive.keys.destroy("acme")
