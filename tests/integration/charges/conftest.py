"""The administration plane with what makes charges."""

from collections.abc import AsyncIterator

import pytest
from tollhouse_server.api.mutation import Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.services.bound_labels_service import BoundLabelService
from tollhouse_server.api.services.charge_rules_service import ChargeRuleService
from tollhouse_server.api.services.currencies_service import CurrencyService
from tollhouse_server.api.services.shared_costs_service import SharedCostService
from tollhouse_server.api.services.wallets_service import WalletService

from tests.drivers.postgres import TestDatabase
from tests.integration.admin.plane import Plane


@pytest.fixture
async def plane(fresh_database: TestDatabase) -> AsyncIterator[Plane]:
    """The plane over a fresh database, with tenant acme and its departments research > vision and sales."""
    plane = await Plane.start(fresh_database.app_dsn)
    mutations, pages = Mutations(plane.database, b"f"), PageTokens(b"p")
    for kind in (ChargeRuleService, SharedCostService, WalletService, CurrencyService):
        plane.handlers[kind.__name__] = kind(plane.database, mutations, pages)
    plane.handlers["BoundLabelService"] = BoundLabelService(plane.database, mutations, pages, most_values=1000)
    yield plane
    await plane.database.close()
