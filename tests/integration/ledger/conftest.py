"""A ledger process, and a view of its database with one tenant."""

from collections.abc import AsyncIterator

import pytest

from tests.drivers.ledger import LedgerProcess, LedgerView, ledger_process, ledger_view
from tests.drivers.postgres import TestDatabase


@pytest.fixture
async def view(fresh_database: TestDatabase) -> AsyncIterator[LedgerView]:
    """Tenant acme, no limits."""
    async with ledger_view(fresh_database.root_dsn) as view:
        await view.add_tenant()
        yield view


@pytest.fixture(params=[False, True], ids=["planning", "looking"])
async def process(
    request: pytest.FixtureRequest, fresh_database: TestDatabase, view: LedgerView
) -> AsyncIterator[LedgerProcess]:
    """One running ledger, as the application role: one whose ticks try their plans first, and one whose ticks look."""
    async with ledger_process(fresh_database.app_dsn, looks_first=request.param) as process:
        yield process
