"""Limits of tenant acme as tests ask for them, and their counters, written as the tick writes them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg
from google.type.money_pb2 import Money
from tollhouse.admin.v1 import limits_pb2 as pb

from tests.integration.admin.plane import Plane


def dollars(units: int, nanos: int = 0) -> pb.LimitAmount:
    """An amount of money."""
    return pb.LimitAmount(money=Money(currency_code="USD", units=units, nanos=nanos))


def count(units: int) -> pb.LimitAmount:
    """An amount that is not money."""
    return pb.LimitAmount(units=units)


def budget(**fields: Any) -> pb.Limit:
    """A limit of $100 a month on department sales, or what `fields` say."""
    given: dict[str, Any] = {
        "scope": "tenants/acme/departments/sales",
        "metric": pb.LIMIT_METRIC_COST,
        "window": pb.LIMIT_WINDOW_MONTH,
        "amount": dollars(100),
    }
    return pb.Limit(**{**given, **fields})


async def create(plane: Plane, limit_id: str = "cap", **fields: Any) -> pb.Limit:
    """Create a limit of tenant acme."""
    request = pb.CreateLimitRequest(parent="tenants/acme", limit_id=limit_id, limit=budget(**fields))
    created: pb.Limit = await plane.call(request)
    return created


@asynccontextmanager
async def ledger_of(dsn: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """Open the tables past the code under test."""
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def put_counters(
    connection: "asyncpg.Connection[asyncpg.Record]",
    limit: str,
    counters: Sequence[tuple[datetime, int, int, int]],
    *,
    alert_at: int = 0,
) -> None:
    """Insert (window start, held, settled, expected) of a limit of tenant acme."""
    for start, held, settled, expected in counters:
        await connection.execute(
            "INSERT INTO counter (tenant_id, limit_id, window_start, held, settled, expected, alert_at) "
            "SELECT tenant_id, limit_id, $2, $3, $4, $5, $6 FROM usage_limit WHERE tenant_id = 'acme' AND name = $1",
            limit,
            start,
            held,
            settled,
            expected,
            alert_at,
        )
