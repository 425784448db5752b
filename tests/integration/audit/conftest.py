"""A trail in a database of its own."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tollhouse_server.audit import store
from tollhouse_server.audit.store import Link, Question
from tollhouse_server.audit.tables import AuditEventRow
from tollhouse_server.database.engine import Database

from tests.drivers.postgres import TestDatabase


@pytest.fixture
async def database(fresh_database: TestDatabase) -> AsyncIterator[Database]:
    """The application's own connections to a fresh database."""
    opened = Database(fresh_database.app_dsn, pool_size=10)
    yield opened
    await opened.close()


def event(tenant: str, number: int = 0, **fields: Any) -> AuditEventRow:
    """Return an event that is not written yet."""
    values: dict[str, Any] = {
        "tenant_id": tenant,
        "actor": f"tenants/{tenant}/principals/jo",
        "credential_id": "abcdefghijkl",
        "method": "tollhouse.admin.v1.ProjectService.UpdateProject",
        "permission": "projects.update",
        "resource": f"tenants/{tenant}/departments/rnd/projects/p-{number}",
        "before": {"labels": {"größe": '"\\\n\t\u0001 😀'}, "n": number},
        "after": {"n": 1e22},
        "request_id": "",
        "correlation_id": f"c-{number}",
    }
    return AuditEventRow(**{**values, **fields})


async def write(database: Database, *events: AuditEventRow) -> None:
    """Write events in one transaction."""
    async with database.within("platform") as session:
        for one in events:
            await store.record(session, one)


async def links_of(database: Database, tenant: str) -> list[Link]:
    """Return a tenant's whole trail."""
    async with database.within(tenant) as session:
        return list(await store.read_links(session, tenant, Question(), size=100_000))
