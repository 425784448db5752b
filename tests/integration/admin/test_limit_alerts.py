"""Alerts as administrators read them; the rows are put here as the tick writes them."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tollhouse.admin.v1 import limit_alerts_pb2 as pb
from tollhouse.admin.v1 import limits_pb2
from tollhouse_server.errors import InvalidRequest, PermissionDenied

from tests.drivers.postgres import TestDatabase
from tests.integration.admin.limits import count, create, dollars, ledger_of
from tests.integration.admin.plane import Plane

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
SALES = "tenants/acme/departments/sales"
ATTEMPT = UUID("01940000-0000-7000-8000-000000000001")


async def put_alerts(dsn: str, *alerts: tuple[str, str, int, int, int, UUID | None, datetime]) -> None:
    """Insert (limit, kind, threshold, settled, amount, attempt, moment) of tenant acme."""
    async with ledger_of(dsn) as connection:
        for alert in alerts:
            await connection.execute(
                "INSERT INTO limit_alert "
                "(tenant_id, limit_id, window_start, kind, threshold, settled, amount, attempt_id, raised_at) "
                "SELECT tenant_id, limit_id, $8, $2, $3, $4, $5, $6, $7 FROM usage_limit "
                "WHERE tenant_id = 'acme' AND name = $1",
                *alert,
                NOVEMBER,
            )


async def listed(plane: Plane, **narrowed: Any) -> list[pb.LimitAlert]:
    """Return the alerts of tenant acme, read in pages of two."""
    request = pb.ListLimitAlertsRequest(parent="tenants/acme", page_size=2, **narrowed)
    found: list[pb.LimitAlert] = []
    while True:
        page = await plane.call(request)
        found += page.limit_alerts
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return found


async def test_an_alert_says_what_has_happened_where_and_how_much(plane: Plane, fresh_database: TestDatabase) -> None:
    """In the unit of its limit, which may be gone by now."""
    await plane.tenant("acme")
    limit = await create(plane)
    await put_alerts(
        fresh_database.root_dsn,
        ("cap", "THRESHOLD", 80, 81 * 10**9, 100 * 10**9, None, NOON),
        ("cap", "ABOVE_HOLD", 0, 7, 100 * 10**9, ATTEMPT, NOON + timedelta(seconds=1)),
    )
    await plane.call(limits_pb2.DeleteLimitRequest(name=limit.name))

    above, threshold = await listed(plane)

    assert (threshold.limit, threshold.scope) == ("tenants/acme/limits/cap", SALES)
    assert (threshold.metric, threshold.window) == (limits_pb2.LIMIT_METRIC_COST, limits_pb2.LIMIT_WINDOW_MONTH)
    assert (threshold.kind, threshold.threshold) == (pb.LimitAlert.KIND_THRESHOLD, 80)
    assert (threshold.settled, threshold.amount, threshold.attempt_id) == (dollars(81), dollars(100), "")
    assert threshold.window_start_time.ToDatetime(UTC) == NOVEMBER
    assert threshold.raise_time.ToDatetime(UTC) == NOON
    assert (above.kind, above.attempt_id, above.settled) == (pb.LimitAlert.KIND_ABOVE_HOLD, str(ATTEMPT), dollars(0, 7))
    assert above.name != threshold.name


async def test_alerts_come_the_newest_first_by_limit_scope_and_time(plane: Plane, fresh_database: TestDatabase) -> None:
    """Page by page, also where several were raised at one moment."""
    await plane.tenant("acme")
    await create(plane)
    await create(plane, "all", scope="tenants/acme", metric=limits_pb2.LIMIT_METRIC_REQUESTS, amount=count(9))
    await put_alerts(
        fresh_database.root_dsn,
        *(("cap", "THRESHOLD", percent, percent, 100, None, NOON) for percent in (1, 2, 3)),
        ("all", "PASSED", 0, 10, 9, None, NOON + timedelta(minutes=1)),
        ("cap", "PASSED", 0, 4, 100, None, NOON - timedelta(minutes=1)),
    )
    since = Timestamp()
    since.FromDatetime(NOON)

    newest, *rest = await listed(plane)

    assert (newest.limit, newest.settled) == ("tenants/acme/limits/all", count(10))
    assert [one.settled.money.nanos for one in rest] == [3, 2, 1, 4]
    assert [one.threshold for one in await listed(plane, start_time=since)] == [0, 3, 2, 1]
    assert [one.limit[-3:] for one in await listed(plane, scope="tenants/acme")] == ["all"]
    assert [one.threshold for one in await listed(plane, limit="tenants/acme/limits/cap")] == [3, 2, 1, 0]


async def test_alerts_of_a_scope_need_the_permission_there_only(plane: Plane, fresh_database: TestDatabase) -> None:
    """The head of a department reads those of his own limits, not those of the whole tenant."""
    await plane.tenant("acme")
    await create(plane)
    await put_alerts(fresh_database.root_dsn, ("cap", "PASSED", 0, 4, 100, None, NOON))
    head = await plane.key("acme", "head", ("department-admin", SALES))

    own = await plane.call(pb.ListLimitAlertsRequest(parent="tenants/acme", scope=SALES), key=head)

    assert len(own.limit_alerts) == 1
    with pytest.raises(PermissionDenied):
        await plane.call(pb.ListLimitAlertsRequest(parent="tenants/acme"), key=head)


async def test_a_limit_of_another_tenant_is_a_mistake(plane: Plane) -> None:
    """Not an empty list."""
    await plane.tenant("acme")

    with pytest.raises(InvalidRequest, match="limit"):
        await plane.call(pb.ListLimitAlertsRequest(parent="tenants/acme", limit="tenants/bolt/limits/cap"))
