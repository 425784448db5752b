"""A tenant changes its calendar after months were closed: each call stands in one statement."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from tollhouse.admin.v1 import chargeback_pb2 as pb
from tollhouse.admin.v1 import outlook_pb2
from tollhouse_server.api.mutation import Mutations
from tollhouse_server.api.services.chargeback_service import ChargebackService
from tollhouse_server.api.services.outlook_service import OutlookService
from tollhouse_server.reporting.rollup_store import build_next_day
from tollhouse_server.vault.signing import Purpose, SigningKey

from tests.drivers.books import Books
from tests.drivers.receipts import KEY, KeyInMemory
from tests.integration.api.callers import PAGES, ROBOT, by
from tests.integration.chargeback.test_close import ANN

FIRST = datetime(2026, 3, 20, tzinfo=UTC)


@pytest.fixture
async def service(books: Books) -> AsyncIterator[ChargebackService]:
    """The service over the books of acme, which has booked 1, 2, 4 ... nano-dollars every eleventh day since March."""
    await books.add_tenant()
    for number in range(15):
        await books.book(2**number, at=FIRST + timedelta(days=11 * number))
    key = SigningKey(KeyInMemory(), KEY, purpose=Purpose.STATEMENTS)
    yield ChargebackService(books.database, Mutations(books.database, b"fingerprints"), PAGES, key)


@pytest.mark.parametrize(("first", "then"), [(1, 15), (28, 1)])
@pytest.mark.parametrize("zones", [("UTC", "UTC"), ("Asia/Tokyo", "America/Los_Angeles")])
async def test_after_a_change_of_the_calendar_no_call_is_in_two_statements_or_in_none(
    books: Books, service: ChargebackService, first: int, then: int, zones: tuple[str, str]
) -> None:
    """The month behind a closed one begins where that one ended, whatever the calendar says by now."""
    await set_calendar(books, first, zones[0])
    await close_may(books, service)

    await set_calendar(books, then, zones[1])

    months = await listed(service)
    assert sum([await cost(service, month) for month in months]) == 2**15 - 1
    ends = {one.name[-7:]: (one.start_time.ToDatetime(), one.end_time.ToDatetime()) for one in await periods(service)}
    assert all(ends[earlier][1] == ends[later][0] for later, earlier in pairwise(months))


async def test_the_running_month_is_not_one_that_was_closed_by_another_calendar(
    books: Books, service: ChargebackService
) -> None:
    """Without a month asked for, what runs now is stated and forecast."""
    now = datetime.now(UTC)
    last = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    name = f"{last - timedelta(days=1):%Y-%m}"
    await books.view.connection.execute(
        "INSERT INTO billing_period (tenant_id, month, state, starts_at, ends_at, time_zone, is_fiscal, closed_at)"
        " VALUES ('acme', $1, 'CLOSED', $2, $3, 'UTC', false, $3)",
        *(name, (last - timedelta(days=1)).replace(day=1), last),
    )

    await set_calendar(books, 28, "UTC")

    stated = await service.get_statement(pb.GetStatementRequest(parent="tenants/acme"), by(ROBOT))
    assert stated.month == f"{now:%Y-%m}"
    assert stated.start_time.ToDatetime(tzinfo=UTC) == last
    outlook = OutlookService(books.database, Mutations(books.database, b"fingerprints"), PAGES)
    forecast = await outlook.get_forecast(outlook_pb2.GetForecastRequest(parent="tenants/acme"), by(ROBOT))
    assert forecast.month == f"{now:%Y-%m}"


async def close_may(books: Books, service: ChargebackService) -> None:
    """Roll up what is over, preview and close."""
    day: Any = True
    while day is not None:
        async with books.database.transaction() as session:
            day = await build_next_day(session, "acme", datetime(2026, 7, 2, tzinfo=UTC))
    name = "tenants/acme/periods/2026-05"
    await service.preview_period(pb.PreviewPeriodRequest(name=name), by(ANN))
    await service.close_period(pb.ClosePeriodRequest(name=name), by(ANN))


async def set_calendar(books: Books, day: int, zone: str) -> None:
    """Change the tenant's calendar."""
    await books.view.connection.execute(
        "UPDATE tenant SET fiscal_month_start_day = $1, time_zone = $2 WHERE tenant_id = 'acme'", day, zone
    )


async def periods(service: ChargebackService) -> list[pb.Period]:
    """Return the months, the newest first."""
    return list((await service.list_periods(pb.ListPeriodsRequest(parent="tenants/acme"), by(ANN))).periods)


async def listed(service: ChargebackService) -> list[str]:
    """Return the names of the months, the newest first."""
    return [one.name.rpartition("/")[2] for one in await periods(service)]


async def cost(service: ChargebackService, month: str) -> int:
    """Return what a month has cost, in nano-dollars."""
    stated = await service.get_statement(pb.GetStatementRequest(parent="tenants/acme", month=month), by(ANN))
    return stated.totals.cost.nanos
