"""UsageExportService and retention: a month leaves the ledger only when it is safe elsewhere, and reports go on."""

import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from tollhouse.admin.v1 import usage_exports_pb2 as pb
from tollhouse_admin.export_files import Tally
from tollhouse_server.api.mutation import Mutations
from tollhouse_server.api.services.usage_exports_service import UsageExportService
from tollhouse_server.api.values import money
from tollhouse_server.audit.store import list_events
from tollhouse_server.errors import (
    ExportMismatch,
    InvalidRequest,
    MonthNotDroppable,
    RecordsDropped,
    ResourceExists,
    StoreUnavailable,
    WrongState,
)
from tollhouse_server.names import PLATFORM, parse_scope
from tollhouse_server.reporting import store
from tollhouse_server.reporting.conservation_store import compare_rollups
from tollhouse_server.reporting.periods import Period
from tollhouse_server.reporting.reports import month_report, usage_summary
from tollhouse_server.reporting.retention import Retention
from tollhouse_server.reporting.sums import Dimension

from tests.drivers.books import Books, books_in
from tests.drivers.postgres import Preparation, TestDatabase
from tests.drivers.random_books import random_record, write
from tests.drivers.rolled_up import build
from tests.integration.api.callers import PAGES, by

MAY = "usageExports/2026-05"
START, END = datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)
ACME = parse_scope("tenants/acme")


async def with_may(database: TestDatabase) -> None:
    """A May with records of two tenants in different time zones, rolled up, nothing in suspense."""
    async with books_in(database) as books:
        await fill(books)


async def fill(books: Books) -> None:
    """Write the records of May, and one of June."""
    chance = random.Random(5)
    await books.add_tenant(time_zone="Europe/Berlin")
    await books.add_tenant("other")
    await books.view.connection.execute("SELECT create_usage_partition('2026-05-01')")
    records = [
        random_record(chance, chance.choice(("acme", "other")), START, END, dear_nanos=10**12) for _ in range(60)
    ]
    await write(books.view.connection, chance, records)
    await books.book(100, at=datetime(2026, 6, 3, tzinfo=UTC))
    await books.view.connection.execute("UPDATE suspense SET resolved_at = now()")
    for tenant in ("acme", "other"):
        await build(books, datetime(2026, 6, 4, tzinfo=UTC), tenant)


@pytest.fixture
def preparation() -> Preparation:
    return with_may


@pytest.fixture
def service(books: Books) -> UsageExportService:
    """The service, over that May."""
    return UsageExportService(books.database, Mutations(books.database, b"key"), PAGES)


async def download(service: UsageExportService, *, page_size: int = 7) -> list[str]:
    """Read all lines of May, page by page."""
    lines: list[str] = []
    token = ""
    while True:
        request = pb.ListUsageExportLinesRequest(name=MAY, page_size=page_size, page_token=token)
        page = await service.list_usage_export_lines(request, by(domain=PLATFORM))
        lines += page.lines
        token = page.next_page_token
        if not token:
            return lines


async def confirm(service: UsageExportService, lines: list[str], **changes: Any) -> pb.UsageExport:
    """Confirm what was downloaded."""
    tally = Tally().plus(lines)
    values: dict[str, Any] = {
        "name": MAY,
        "record_count": tally.records,
        "cost": money(tally.cost_nanos),
        "checksum": str(tally.checksum),
        "content_sha256": "a" * 64,
        "location": "shelf 7",
    }
    return await service.confirm_usage_export(pb.ConfirmUsageExportRequest(**(values | changes)), by(domain=PLATFORM))


async def exported(service: UsageExportService) -> None:
    """Take May as far as confirmed."""
    await service.create_usage_export(pb.CreateUsageExportRequest(month="2026-05"), by(domain=PLATFORM))
    await confirm(service, await download(service))


async def drop(service: UsageExportService, **values: Any) -> pb.UsageExport:
    """Drop the records of May."""
    return await service.drop_usage_export_records(
        pb.DropUsageExportRecordsRequest(name=MAY, **values), by(domain=PLATFORM)
    )


async def may_report(books: Books, *by_dimensions: Dimension) -> tuple[Any, Any]:
    """Make May's report of tenant acme."""
    async with books.database.transaction() as session:
        await store.begin_snapshot(session)
        report = await month_report(session, ACME, month="2026-05", dimensions=by_dimensions)
    return report.totals, report.lines


async def test_a_month_is_exported_confirmed_and_dropped_and_its_report_stays_the_same(
    books: Books, service: UsageExportService
) -> None:
    """Every record is downloaded once, and what is left of the month says what it said before."""
    before = [await may_report(books, Dimension.DEPARTMENT, Dimension.DAY), await may_report(books, Dimension.SKU)]
    created = await service.create_usage_export(pb.CreateUsageExportRequest(month="2026-05"), by(domain=PLATFORM))
    lines = await download(service)
    confirmed = await confirm(service, lines)
    tried = await drop(service, validate_only=True)
    left = await books.view.count("usage_record")
    dropped = await drop(service)

    after = [await may_report(books, Dimension.DEPARTMENT, Dimension.DAY), await may_report(books, Dimension.SKU)]
    async with books.database.transaction() as session:
        events = [(event.resource, event.method.rsplit(".")[-1]) for event in await list_events(session, "platform")]
        differences = [one async for one in compare_rollups(session)]

    assert (created.record_count, len(set(lines)), left) == (60, 60, 61)
    assert [one.state for one in (created, confirmed, tried, dropped)] == [1, 2, 3, 3]
    assert await books.view.count("usage_record") == 1
    assert before == after
    assert before[0][0].cost_nanos != 0
    assert [method for _, method in events] == ["CreateUsageExport", "ConfirmUsageExport", "DropUsageExportRecords"]
    assert differences == []


async def test_what_takes_dropped_records_is_refused(books: Books, service: UsageExportService) -> None:
    """A summary that begins in the middle of a day of May cannot be told any more; a download neither."""
    await exported(service)
    await drop(service)
    period = Period(start=datetime(2026, 5, 10, 13, tzinfo=UTC), end=END)

    async with books.database.transaction() as session:
        with pytest.raises(RecordsDropped):
            await usage_summary(session, ACME, period, dimensions=[], zone=ZoneInfo("UTC"))
    with pytest.raises(WrongState):
        await download(service)


@pytest.mark.parametrize(
    "forged",
    [
        lambda lines: {"record_count": len(lines) - 1},
        lambda lines: {"cost": money(Tally().plus(lines).cost_nanos + 1)},
        lambda lines: {"checksum": str(Tally().plus(lines).checksum + 1)},
    ],
)
async def test_a_download_that_is_not_the_month_is_not_confirmed(
    service: UsageExportService, forged: Callable[[list[str]], dict[str, Any]]
) -> None:
    """A line short, a nano-dollar off, a letter changed."""
    await service.create_usage_export(pb.CreateUsageExportRequest(month="2026-05"), by(domain=PLATFORM))
    lines = await download(service)

    with pytest.raises(ExportMismatch):
        await confirm(service, lines, **forged(lines))

    assert (await service.get_usage_export(pb.GetUsageExportRequest(name=MAY), by(domain=PLATFORM))).state == 1


@pytest.mark.parametrize(
    ("statement", "obstacle"),
    [
        (
            "UPDATE suspense SET resolved_at = NULL",
            "has attempts in suspense",
        ),
        ("UPDATE usage_rollup SET cost_nanos = cost_nanos + 1 WHERE tenant_id = 'other'", "of other that differs"),
        ("DELETE FROM usage_rollup_day WHERE day_end > '2026-05-20'", "is not rolled up"),
        ("UPDATE usage_export SET record_count = record_count + 1", "is not what was exported"),
    ],
)
async def test_a_month_with_an_obstacle_is_not_dropped(
    books: Books, service: UsageExportService, statement: str, obstacle: str
) -> None:
    """Whatever stands against it is named, and not one record goes."""
    await exported(service)
    await books.view.connection.execute(statement)
    count = await books.view.count("usage_record")

    with pytest.raises(MonthNotDroppable, match=obstacle):
        await drop(service)

    assert await books.view.count("usage_record") == count


async def test_only_a_month_that_is_over_is_exported_and_a_confirmed_one_only_once(service: UsageExportService) -> None:
    """Before it is confirmed stock may be taken again."""
    may = pb.CreateUsageExportRequest(month="2026-05")
    for _ in range(2):
        await service.create_usage_export(may, by(domain=PLATFORM))
    await confirm(service, await download(service))

    with pytest.raises(InvalidRequest):
        await service.create_usage_export(
            pb.CreateUsageExportRequest(month=f"{datetime.now(UTC):%Y-%m}"), by(domain=PLATFORM)
        )
    with pytest.raises(ResourceExists):
        await service.create_usage_export(may, by(domain=PLATFORM))
    with pytest.raises(WrongState):
        await confirm(service, [])


async def test_a_month_is_not_dropped_before_it_is_confirmed_even_past_the_service(
    books: Books, service: UsageExportService
) -> None:
    """The application's role has one door to a partition, and that looks for itself; so does the one of last month."""
    await service.create_usage_export(pb.CreateUsageExportRequest(month="2026-05"), by(domain=PLATFORM))
    with pytest.raises(WrongState):
        await drop(service)
    last_month = "date_trunc('month', now() - interval '1 month')::date"
    await books.view.connection.execute(
        "INSERT INTO usage_export (month, state, record_count, cost_nanos, checksum, created_by) "  # noqa: S608
        f"VALUES ({last_month}, 'CONFIRMED', 0, 0, 0, 'x')"
    )

    for month in ("'2026-05-01'::date", last_month):
        with pytest.raises(Exception, match=r"no confirmed export|ended less than a month ago"):
            await books.view.connection.execute(f"SELECT drop_usage_partition({month})")


async def test_a_month_is_dropped_only_while_nobody_reads(books: Books, service: UsageExportService) -> None:
    """Who drops gives up after half a second: the ledger's ticks queue behind him."""
    await exported(service)
    reading = books.view.connection.transaction()
    await reading.start()
    await books.view.connection.execute("SELECT count(*) FROM usage_record")

    with pytest.raises(StoreUnavailable):
        await drop(service)
    await reading.commit()

    assert (await drop(service)).state == pb.UsageExport.STATE_DROPPED


async def test_retention_drops_confirmed_months_that_are_old_enough_and_writes_it_down(
    books: Books, service: UsageExportService
) -> None:
    """Neither a month that is not confirmed, nor one that is too young; a second round finds nothing to do."""
    await service.create_usage_export(pb.CreateUsageExportRequest(month="2026-05"), by(domain=PLATFORM))
    now = datetime.now(UTC)
    age = (now.year - 2026) * 12 + now.month - 6
    unconfirmed = await Retention(books.database, months=age).drop_old_months()
    await confirm(service, await download(service))

    young = await Retention(books.database, months=age + 1).drop_old_months()
    old = await Retention(books.database, months=age).drop_old_months()
    again = await Retention(books.database, months=age).drop_old_months()

    async with books.database.transaction() as session:
        last = (await list_events(session, "platform"))[-1]
    assert (unconfirmed, young, old, again) == ([], [], [MAY], [])
    assert (last.actor, last.resource, last.after) == ("housekeeper", MAY, {"state": "DROPPED"})
