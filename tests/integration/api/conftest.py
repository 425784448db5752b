"""Books of their own for each test."""

from collections.abc import AsyncIterator

import pytest

from tests.drivers.books import Books, open_books
from tests.drivers.postgres import TestDatabase


@pytest.fixture
async def books(fresh_database: TestDatabase) -> AsyncIterator[Books]:
    """Empty books."""
    async with open_books(fresh_database) as books:
        yield books
