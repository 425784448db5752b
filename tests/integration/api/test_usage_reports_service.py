"""UsageReportService on records that went through the real ledger."""

from datetime import UTC, datetime, timedelta

import pytest
from google.type.date_pb2 import Date
from tollhouse.admin.v1 import usage_reports_pb2 as pb
from tollhouse_server.api.permissions import permission_for
from tollhouse_server.api.services.usage_reports_service import UsageReportService
from tollhouse_server.api.values import money, timestamp
from tollhouse_server.errors import InvalidRequest, ResourceNotFound
from tollhouse_server.ledger.terms import RecordKind
from tollhouse_server.pricing.price import Line
from tollhouse_server.pricing.skus import Unit

from tests.drivers.books import Books, in_project, settlement
from tests.integration.api.callers import PAGES, ROBOT, by

MAY = datetime(2026, 5, 15, tzinfo=UTC)
INPUT = Line(sku="input_text", quantity=9, unit=Unit.TOKEN, nanos_per_million=4_444_444, cost_nanos=40)
OUTPUT = Line(sku="output_text", quantity=11, unit=Unit.TOKEN, nanos_per_million=1_818_182, cost_nanos=20)
CRM = in_project("crm", "sales")


@pytest.fixture
async def service(books: Books) -> UsageReportService:
    """The service, over the books of tenant acme in Berlin."""
    await books.add_tenant(time_zone="Europe/Berlin")
    return UsageReportService(books.database, PAGES)


async def test_a_month_report_is_split_by_department_model_and_sku_by_default(
    books: Books, service: UsageReportService
) -> None:
    """The lines are in the order of their dimensions and add up to the totals."""
    await books.book(60, at=MAY, lines=[INPUT, OUTPUT])
    await books.book(40, at=MAY, scope=CRM, lines=[INPUT])
    await books.suspend(at=MAY, cost_nanos=2_000_000_007)

    report = await service.get_month_report(pb.GetMonthReportRequest(parent="tenants/acme", month="2026-05"), by())

    assert [(line.department.rsplit("/", 1)[1], line.sku, line.quantity, line.cost) for line in report.lines] == [
        ("sales", "input_text", 9, money(40)),
        ("vision", "input_text", 9, money(40)),
        ("vision", "output_text", 11, money(20)),
        ("vision", "unitemised", 0, money(2_000_000_007)),
    ]
    assert report.totals.cost == money(2_000_000_107)
    assert (report.totals.suspense_cost, report.totals.suspense_count) == (money(2_000_000_007), 1)
    assert report.totals.record_count == 3
    assert report.start_time == timestamp(datetime(2026, 4, 30, 22, tzinfo=UTC))
    assert report.end_time == timestamp(datetime(2026, 5, 31, 22, tzinfo=UTC))


async def test_a_report_names_days_and_projects(books: Books, service: UsageReportService) -> None:
    """Late in the evening UTC it is the next day in Berlin."""
    await books.book(at=MAY.replace(hour=22))
    request = pb.GetMonthReportRequest(
        parent="tenants/acme/departments/research",
        month="2026-05",
        group_by=[pb.USAGE_DIMENSION_DAY, pb.USAGE_DIMENSION_PROJECT],
    )

    (line,) = (await service.get_month_report(request, by())).lines

    assert line.date == Date(year=2026, month=5, day=16)
    assert line.project == "tenants/acme/departments/vision/projects/labels"
    assert (line.model, line.sku, line.quantity) == ("", "", 0)


async def test_the_current_month_is_the_default_and_may_be_empty(service: UsageReportService) -> None:
    """No calls: zero, no lines, and still a month with a beginning and an end."""
    report = await service.get_month_report(pb.GetMonthReportRequest(parent="tenants/acme"), by())

    assert report.start_time.ToDatetime(UTC) <= report.generate_time.ToDatetime(UTC) < report.end_time.ToDatetime(UTC)
    assert (report.totals.cost, report.totals.record_count, len(report.lines)) == (money(0), 0, 0)


async def test_a_correction_is_money_with_both_parts_negative(books: Books, service: UsageReportService) -> None:
    """A month may cost less than nothing."""
    reservation = await books.suspend(cost_nanos=2_000_000_100)
    await books.process.ledger.settle(reservation, settlement(50))
    await books.view.connection.execute("UPDATE usage_record SET settled_at = $1 WHERE kind = 'ADJUSTMENT'", MAY)

    report = await service.get_month_report(pb.GetMonthReportRequest(parent="tenants/acme", month="2026-05"), by())

    assert (report.totals.cost.units, report.totals.cost.nanos) == (-2, -50)


async def test_a_missing_department_is_not_an_empty_report(service: UsageReportService) -> None:
    """A misspelt name is told."""
    with pytest.raises(ResourceNotFound):
        await service.get_month_report(pb.GetMonthReportRequest(parent="tenants/acme/departments/none"), by())


async def test_records_come_oldest_first_in_stable_pages(books: Books, service: UsageReportService) -> None:
    """What is booked while one reads is not in the list; records of one moment are parted, none twice."""
    booked = [await books.book(cost, at=MAY + timedelta(seconds=cost // 3)) for cost in range(7)]
    request = pb.ListUsageRecordsRequest(
        parent="tenants/acme", page_size=2, start_time=timestamp(MAY - timedelta(days=1))
    )
    found: list[str] = []

    while True:
        page = await service.list_usage_records(request, by())
        found += [record.attempt_id for record in page.usage_records]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
        await books.book(1000)

    assert found == [str(one.attempt_id) for one in booked]


async def test_records_can_be_narrowed_to_a_kind_and_a_scope(books: Books, service: UsageReportService) -> None:
    """Only the suspense of research."""
    await books.book()
    await books.suspend(scope=CRM)
    suspended = await books.suspend()
    kind = pb.UsageRecord.KIND_SUSPENSE

    page = await service.list_usage_records(
        pb.ListUsageRecordsRequest(parent="tenants/acme/departments/research", kind=kind), by()
    )

    assert [record.attempt_id for record in page.usage_records] == [str(suspended.terms.attempt_id)]


async def test_a_record_names_everything_in_full(books: Books, service: UsageReportService) -> None:
    """The key by its resource name, with the department of its own project, which need not be the one that paid."""
    await books.view.connection.execute(
        "INSERT INTO principal (tenant_id, principal_id, kind) VALUES ('acme', 'robot', 'SERVICE_ACCOUNT')"
    )
    await books.view.connection.execute(
        "INSERT INTO api_key (tenant_id, key_id, principal_id, project_id, environment, digest)"
        " VALUES ('acme', 'abcdefghij23', 'robot', 'crm', 'LIVE', sha256('x'))"
    )
    await books.book(
        60, lines=[INPUT, OUTPUT], scope=in_project("labels", "research", "vision", credential="abcdefghij23")
    )

    (record,) = (
        await service.list_usage_records(pb.ListUsageRecordsRequest(parent="tenants/acme"), by())
    ).usage_records

    assert record.api_key == "tenants/acme/departments/sales/projects/crm/apiKeys/abcdefghij23"
    assert record.project == "tenants/acme/departments/vision/projects/labels"
    assert record.account == "accounts/main"
    assert [(charge.sku, charge.price_per_million) for charge in record.charges] == [
        ("input_text", money(4_444_444)),
        ("output_text", money(1_818_182)),
    ]
    assert (record.method, record.outcome, record.price_version) == ("generateContent", "SERVED", 1)


async def test_refused_attempts_are_records_too(books: Books, service: UsageReportService) -> None:
    """Every attempt is found in the ledger, what it cost or not."""
    await books.book(kind=RecordKind.REFUSED)

    page = await service.list_usage_records(pb.ListUsageRecordsRequest(parent="tenants/acme"), by())

    assert [record.kind for record in page.usage_records] == [pb.UsageRecord.KIND_REFUSED]


async def test_a_token_with_another_kind_is_refused(books: Books, service: UsageReportService) -> None:
    """It continues one question, no other."""
    for _ in range(2):
        await books.book()
    page = await service.list_usage_records(pb.ListUsageRecordsRequest(parent="tenants/acme", page_size=1), by())
    request = pb.ListUsageRecordsRequest(
        parent="tenants/acme", kind=pb.UsageRecord.KIND_SETTLED, page_token=page.next_page_token
    )

    with pytest.raises(InvalidRequest):
        await service.list_usage_records(request, by())


@pytest.mark.parametrize(
    ("rpc", "permission"), [("GetMonthReport", "usageReports.get"), ("ListUsageRecords", "usageRecords.list")]
)
def test_the_permission_is_needed_on_the_parent(rpc: str, permission: str) -> None:
    """Finance of one department sees that department."""
    rule = permission_for(f"tollhouse.admin.v1.UsageReportService.{rpc}")
    parent = "tenants/acme/departments/sales"

    assert rule.permission == permission
    assert rule.scope(pb.GetMonthReportRequest(parent=parent), ROBOT) == parent
