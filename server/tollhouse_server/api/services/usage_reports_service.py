"""UsageReportService: what a month cost, and the records that it is made of."""

from datetime import date

from google.type.date_pb2 import Date
from tollhouse.admin.v1 import usage_reports_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.device_messages import use_message
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.usage_requests import RecordsPage, require_scope
from tollhouse_server.api.values import money, timestamp
from tollhouse_server.database.engine import Database
from tollhouse_server.devices.store import sum_use
from tollhouse_server.ledger.terms import RecordKind
from tollhouse_server.names import AccountName, parse_scope
from tollhouse_server.reporting import store
from tollhouse_server.reporting.periods import month_of, month_period
from tollhouse_server.reporting.records import ChargedLine, UsageRecord
from tollhouse_server.reporting.reports import month_report
from tollhouse_server.reporting.sums import Dimension, Line, Sums
from tollhouse_server.tenancy.store import read_clock

_DEFAULT_SPLIT = (Dimension.DEPARTMENT, Dimension.MODEL, Dimension.SKU)


class UsageReportService:
    """Reads the ledger for finance; changes nothing."""

    def __init__(self, database: Database, pages: PageTokens) -> None:
        self._database = database
        self._pages = pages

    async def get_month_report(self, request: pb.GetMonthReportRequest, call: Call) -> pb.MonthReport:
        scope = parse_scope(request.parent, "parent")
        dimensions = [_dimension(value) for value in request.group_by] or _DEFAULT_SPLIT
        async with self._database.within(call.domain) as session:
            await require_scope(session, scope)
        async with self._database.within(call.domain, begin=store.begin_snapshot) as session:
            report = await month_report(session, scope, month=request.month, dimensions=dimensions)
            on_device = await sum_use(session, scope, start=report.period.start, end=report.period.end)
        return pb.MonthReport(
            parent=request.parent,
            month=report.month,
            start_time=timestamp(report.period.start),
            end_time=timestamp(report.period.end),
            generate_time=timestamp(report.generated_at),
            totals=_totals(report.totals),
            lines=map(_line, report.lines),
            on_device=use_message(on_device) if on_device.receipts else None,
        )

    async def list_usage_records(self, request: pb.ListUsageRecordsRequest, call: Call) -> pb.ListUsageRecordsResponse:
        scope = parse_scope(request.parent, "parent")
        async with self._database.within(call.domain) as session:
            await require_scope(session, scope)
            clock = await read_clock(session, scope.tenant)
            month = month_period(month_of(clock.now, clock.zone), clock.zone)
            page = RecordsPage.of(request, self._pages, default_start=month.start, now=clock.now)
            found = await store.list_records(
                session,
                scope,
                page.period,
                after=page.after,
                newest_first=False,
                kind=_kind(request.kind),
                size=self._pages.size(request) + 1,
            )
            records, last = self._pages.split(request, found)
            keys = await store.credential_names(session, scope.tenant, {record.credential_id for record in records})
        return pb.ListUsageRecordsResponse(
            usage_records=[_record(record, keys.get(record.credential_id, "")) for record in records],
            next_page_token=page.token(request, self._pages, last),
        )


def _dimension(value: "pb.UsageDimension.ValueType") -> Dimension:
    return Dimension(pb.UsageDimension.Name(value).removeprefix("USAGE_DIMENSION_").lower())


def _kind(value: "pb.UsageRecord.Kind.ValueType") -> RecordKind | None:
    return RecordKind(pb.UsageRecord.Kind.Name(value).removeprefix("KIND_")) if value else None


def _totals(sums: Sums) -> pb.UsageTotals:
    return pb.UsageTotals(
        record_count=sums.calls,
        input_tokens=sums.input_tokens,
        output_tokens=sums.output_tokens,
        images=sums.images,
        cost=money(sums.cost_nanos),
        suspense_cost=money(sums.suspense_nanos),
        suspense_count=sums.suspense_calls,
    )


def _line(line: Line) -> pb.UsageLine:
    message = pb.UsageLine(quantity=line.quantity, record_count=line.calls, cost=money(line.cost_nanos))
    for dimension, key in line.keys.items():
        if isinstance(key, date):
            message.date.CopyFrom(Date(year=key.year, month=key.month, day=key.day))
        else:
            setattr(message, dimension.value, key)
    return message


def _record(record: UsageRecord, api_key: str) -> pb.UsageRecord:
    return pb.UsageRecord(
        attempt_id=str(record.attempt_id),
        kind=pb.UsageRecord.Kind.Value(f"KIND_{record.kind}"),
        start_time=timestamp(record.dispatched_at),
        book_time=timestamp(record.settled_at),
        project=record.project_name,
        api_key=api_key,
        tier=record.tier,
        model=record.model,
        account=str(AccountName(record.account_id)),
        input_tokens=record.input_tokens,
        output_tokens=record.output_tokens,
        images=record.images,
        charges=map(_charge, record.lines),
        cost=money(record.cost_nanos),
        price_version=record.price_version,
        request_id=str(record.request_id),
        method=record.method,
        outcome=record.outcome,
        labels=record.labels,
    )


def _charge(line: ChargedLine) -> pb.UsageCharge:
    return pb.UsageCharge(
        sku=line.sku,
        quantity=line.quantity,
        cost=money(line.cost_nanos),
        price_per_million=money(line.nanos_per_million),
    )
