"""UsageService: what a caller used, what it still may use, and its receipts."""

from datetime import timedelta
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

from tollhouse.v1 import errors_pb2, generation_pb2
from tollhouse.v1 import usage_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.device_messages import use_message
from tollhouse_server.api.outcomes import line_message, usage_message
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.usage_requests import RecordsPage, period_of, require_scope
from tollhouse_server.api.values import limit_unit, money, selected, timestamp
from tollhouse_server.database.engine import Database
from tollhouse_server.devices.store import sum_use
from tollhouse_server.errors import ResourceNotFound
from tollhouse_server.ledger import limit_store
from tollhouse_server.ledger.terms import Metric, RecordKind
from tollhouse_server.names import AccountName, LimitName, ProjectName, Scope, invalid, parse_scope
from tollhouse_server.reporting import store
from tollhouse_server.reporting.periods import month_of, month_period
from tollhouse_server.reporting.records import Receipt, UsageRecord, receipt_of
from tollhouse_server.reporting.reports import usage_summary
from tollhouse_server.reporting.sums import Dimension, Group, Sums
from tollhouse_server.tenancy.store import read_clock

LONGEST_SUMMARY: Final = timedelta(days=400)
"""A year and the month to compare it with; more is for the reports of finance."""

# Callers may be of any tenant, so their days and months are those of UTC.
_ZONE: Final = ZoneInfo("UTC")


class UsageService:
    """Reads usage, limits and receipts of a scope; changes nothing."""

    def __init__(self, database: Database, pages: PageTokens) -> None:
        self._database = database
        self._pages = pages

    async def get_usage_summary(self, request: pb.GetUsageSummaryRequest, call: Call) -> pb.UsageSummary:
        scope = _scope(request, call)
        dimensions = [_dimension(value) for value in request.group_by]
        async with self._database.within(call.domain) as session:
            await require_scope(session, scope)
            now = (await read_clock(session, scope.tenant)).now
            month = month_period(month_of(now, _ZONE), _ZONE)
            period = period_of(request, default_start=month.start, now=now)
            if period.end - period.start > LONGEST_SUMMARY:
                raise invalid("start_time", f"must be at most {LONGEST_SUMMARY.days} days before the end")
            summary = await usage_summary(session, scope, period, dimensions=dimensions, zone=_ZONE)
            on_device = await sum_use(session, scope, start=period.start, end=period.end)
        return pb.UsageSummary(
            parent=str(scope),
            start_time=timestamp(period.start),
            end_time=timestamp(period.end),
            groups=map(_group, summary.groups),
            total=_group(Group(keys={}, sums=summary.total)),
            on_device=use_message(on_device) if on_device.receipts else None,
        )

    async def list_limits(self, request: pb.ListLimitsRequest, call: Call) -> pb.ListLimitsResponse:
        scope = _scope(request, call)
        async with self._database.within(call.domain) as session:
            scopes = await require_scope(session, scope)
            if isinstance(scope, ProjectName):
                # A limit on the credential holds for its calls to whichever project.
                scopes = (call.principal.credential_name, *scopes)
            views = await limit_store.list_limits(
                session,
                scope.tenant,
                scopes=scopes,
                after=self._pages.after(request),
                size=self._pages.size(request) + 1,
            )
        page, last = self._pages.split(request, views)
        token = self._pages.next(request, last.row.name) if last else ""
        return pb.ListLimitsResponse(limits=map(_limit, page), next_page_token=token)

    async def list_usage_records(self, request: pb.ListUsageRecordsRequest, call: Call) -> pb.ListUsageRecordsResponse:
        scope = _scope(request, call)
        async with self._database.within(call.domain) as session:
            await require_scope(session, scope)
            now = (await read_clock(session, scope.tenant)).now
            month = month_period(month_of(now, _ZONE), _ZONE)
            page = RecordsPage.of(request, self._pages, default_start=month.start, now=now)
            size = self._pages.size(request) + 1
            found = await store.list_records(
                session, scope, page.period, after=page.after, newest_first=True, size=size
            )
        records, last = self._pages.split(request, found)
        return pb.ListUsageRecordsResponse(
            usage_records=map(_record, records), next_page_token=page.token(request, self._pages, last)
        )

    async def get_receipt(self, request: pb.GetReceiptRequest, call: Call) -> generation_pb2.Receipt:
        scope = _scope(request, call)
        async with self._database.within(call.domain) as session:
            records = await store.find_attempt(session, scope, _uuid(request.request_id))
        if not records:
            # One answer for a call that never was, is under way, or is of a project that was not asked about.
            raise ResourceNotFound(name=f"{scope}/receipts/{request.request_id}")
        return _receipt(receipt_of(records))


def _scope(
    request: pb.GetUsageSummaryRequest | pb.ListLimitsRequest | pb.ListUsageRecordsRequest | pb.GetReceiptRequest,
    call: Call,
) -> Scope:
    return parse_scope(request.parent or call.principal.home, "parent")


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise invalid("request_id", "must be a UUID") from None


def _dimension(value: "pb.UsageDimension.ValueType") -> Dimension:
    return Dimension(pb.UsageDimension.Name(value).removeprefix("USAGE_DIMENSION_").lower())


def _group(group: Group) -> pb.UsageGroup:
    sums = group.sums
    return pb.UsageGroup(
        dimensions={dimension.value: str(key) for dimension, key in group.keys.items()},
        calls=sums.calls,
        usage=_usage_of_sums(sums),
        cost=money(sums.cost_nanos),
        suspense_cost=money(sums.suspense_nanos),
    )


def _usage_of_sums(sums: Sums) -> generation_pb2.Usage:
    return generation_pb2.Usage(
        prompt_tokens=sums.input_tokens - sums.tool_use_tokens,
        cached_tokens=sums.cached_tokens,
        tool_use_prompt_tokens=sums.tool_use_tokens,
        candidates_tokens=sums.output_tokens - sums.thoughts_tokens,
        thoughts_tokens=sums.thoughts_tokens,
        total_tokens=sums.input_tokens + sums.output_tokens,
        images=sums.images,
    )


def _limit(view: limit_store.LimitView) -> errors_pb2.LimitState:
    row, use = view.row, view.use
    tier, model = selected(row.selector)
    return errors_pb2.LimitState(
        limit=str(LimitName(row.tenant_id, row.name)),
        metric=row.metric,
        window=row.window,
        scope=row.scope,
        tier=tier,
        model=model,
        unit=limit_unit(Metric(row.metric)),
        mode=row.mode,
        amount=use.effective_amount,
        held=use.held,
        settled=use.settled,
        resets_at=timestamp(use.resets_at),
    )


def _record(record: UsageRecord) -> pb.UsageRecord:
    return pb.UsageRecord(
        name=f"tenants/{record.tenant_id}/usageRecords/{record.attempt_id}",
        request_id=str(record.request_id),
        project=record.project_name,
        credential=record.credential_id,
        started_at=timestamp(record.dispatched_at),
        settled_at=timestamp(record.settled_at),
        route=generation_pb2.Route(
            tier=record.tier or None,
            model=record.model,
            account=str(AccountName(record.account_id)),
            attempts=1,
            cache=generation_pb2.CACHE_RESULT_MISS,
        ),
        usage=_usage_of_record(record),
        cost=money(record.cost_nanos),
        state=pb.UsageRecordState.Value(f"USAGE_RECORD_STATE_{record.kind}"),
        labels=record.labels,
    )


def _usage_of_record(record: UsageRecord) -> generation_pb2.Usage | None:
    if record.kind is RecordKind.SETTLED and record.usage is not None:
        return usage_message(record.usage)
    if record.kind is RecordKind.SUSPENSE:
        # What is booked is the ceiling; what was used, nobody has reported.
        return None
    return generation_pb2.Usage(total_tokens=record.input_tokens + record.output_tokens, images=record.images)


def _receipt(receipt: Receipt) -> generation_pb2.Receipt:
    return generation_pb2.Receipt(
        attempt_id=str(receipt.attempt_id),
        request_id=str(receipt.request_id),
        price_version=str(receipt.price_version),
        project=receipt.project_name,
        cost=money(receipt.cost_nanos),
        lines=map(line_message, receipt.lines),
        settled_at=timestamp(receipt.settled_at),
        correlation_id=receipt.correlation_id,
    )
