"""UsageReportService: what was used and what it cost, for finance."""

from datetime import UTC, datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from google.type.date_pb2 import Date
from tollhouse.admin.v1 import usage_reports_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.values import moment_of, money, timestamp
from tollhouse_server.database.engine import Database
from tollhouse_server.identity.store import key_name
from tollhouse_server.names import (
    AccountName,
    DepartmentName,
    ProjectName,
    TenantName,
    domain_of,
    parse_scope,
)
from tollhouse_server.reporting import store
from tollhouse_server.reporting.months import month_bounds, month_of
from tollhouse_server.reporting.store import Dimension, Selection
from tollhouse_server.tenancy.store import get_tenant

_DEFAULT_SPLIT = (Dimension.DEPARTMENT, Dimension.MODEL, Dimension.SKU)
_BEGINNING = (datetime.min.replace(tzinfo=UTC), UUID(int=0))


class UsageReportService:
    """Adds up months and lists records."""

    def __init__(self, database: Database, pages: PageTokens) -> None:
        self._database = database
        self._pages = pages

    async def get_month_report(self, request: pb.GetMonthReportRequest, call: Call) -> pb.MonthReport:
        now = datetime.now(UTC)
        dimensions = [_dimension(value) for value in request.group_by] or _DEFAULT_SPLIT
        tenant = TenantName(domain_of(request.parent))
        async with self._database.transaction() as session:
            zone = ZoneInfo((await get_tenant(session, tenant)).time_zone)
            month = request.month or month_of(now, zone)
            start, end = month_bounds(month, zone)
            selection = _selection(request.parent, start, end)
            totals = await store.totals(session, selection)
            lines = await store.lines(session, selection, dimensions, zone)
        return pb.MonthReport(
            parent=request.parent,
            month=month,
            start_time=timestamp(start),
            end_time=timestamp(end),
            generate_time=timestamp(now),
            totals=_totals(totals),
            lines=[_line(tenant.tenant, line) for line in lines],
        )

    async def list_usage_records(self, request: pb.ListUsageRecordsRequest, call: Call) -> pb.ListUsageRecordsResponse:
        tenant = TenantName(domain_of(request.parent))
        async with self._database.transaction() as session:
            zone = ZoneInfo((await get_tenant(session, tenant)).time_zone)
            rows = await store.records(
                session,
                _listed(request, zone),
                after=_after(self._pages.after(request)),
                size=self._pages.size(request) + 1,
            )
        page, last = self._pages.split(request, rows)
        token = self._pages.next(request, f"{last.settled_at.isoformat()} {last.attempt_id}") if last else ""
        records = [_record(tenant.tenant, row) for row in page]
        return pb.ListUsageRecordsResponse(usage_records=records, next_page_token=token)


def _dimension(value: "pb.UsageDimension.ValueType") -> Dimension:
    return Dimension(pb.UsageDimension.Name(value).removeprefix("USAGE_DIMENSION_"))


def _selection(parent: str, start: datetime, end: datetime, kind: str | None = None) -> Selection:
    name = parse_scope(parent, "parent")
    return Selection(
        tenant_id=name.tenant,
        # A project is booked where it stood: its department now need not be the one of then.
        department_id=name.department if isinstance(name, DepartmentName) else None,
        project_id=name.project if isinstance(name, ProjectName) else None,
        start=start,
        end=end,
        kind=kind,
    )


def _listed(request: pb.ListUsageRecordsRequest, zone: ZoneInfo) -> Selection:
    now = datetime.now(UTC)
    start = month_bounds(month_of(now, zone), zone)[0]
    if request.HasField("start_time"):
        start = moment_of(request.start_time, "start_time")
    end = moment_of(request.end_time, "end_time") if request.HasField("end_time") else now
    kind = pb.UsageRecord.Kind.Name(request.kind).removeprefix("KIND_") if request.kind else None
    return _selection(request.parent, start, end, kind)


def _after(position: str) -> tuple[datetime, UUID]:
    if not position:
        return _BEGINNING
    moment, attempt = position.split(" ")
    return datetime.fromisoformat(moment), UUID(attempt)


def _totals(totals: store.Totals) -> pb.UsageTotals:
    return pb.UsageTotals(
        record_count=totals.record_count,
        input_tokens=totals.input_tokens,
        output_tokens=totals.output_tokens,
        images=totals.images,
        cost=money(totals.cost_nanos),
        suspense_cost=money(totals.suspense_nanos),
        suspense_count=totals.suspense_count,
    )


def _line(tenant: str, line: store.Line) -> pb.UsageLine:
    project = ProjectName(tenant, line.project_department_id, line.project_id) if line.project_id else ""
    return pb.UsageLine(
        department=str(DepartmentName(tenant, line.department_id)) if line.department_id else "",
        project=str(project),
        model=line.model,
        tier=line.tier,
        date=Date(year=line.day.year, month=line.day.month, day=line.day.day) if line.day else None,
        sku=line.sku,
        quantity=line.quantity,
        record_count=line.record_count,
        cost=money(line.cost_nanos),
    )


def _record(tenant: str, row: store.UsageRecord) -> pb.UsageRecord:
    return pb.UsageRecord(
        attempt_id=str(row.attempt_id),
        kind=pb.UsageRecord.Kind.Value(f"KIND_{row.kind}"),
        start_time=timestamp(row.dispatched_at),
        book_time=timestamp(row.settled_at),
        project=str(ProjectName(tenant, row.department_id, row.project_id)),
        api_key=str(key_name(tenant, row.credential_id, row.key_project_id or None, row.key_department_id)),
        tier=row.tier,
        model=row.model,
        account=str(AccountName(row.account_id)),
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        images=row.images,
        charges=[
            pb.UsageCharge(
                sku=line["sku"],
                quantity=line["quantity"],
                cost=money(line["cost_nanos"]),
                price_per_million=money(line["nanos_per_million"]),
            )
            for line in row.lines
        ],
        cost=money(row.cost_nanos),
        price_version=row.price_version,
        request_id=str(row.request_id),
        method=row.method,
        outcome=row.outcome,
        labels=row.labels,
    )
