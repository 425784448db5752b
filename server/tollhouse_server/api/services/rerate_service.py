"""RerateService: what a month would have cost at other prices."""

from datetime import datetime

from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import prices_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.price_messages import parsed_file
from tollhouse_server.api.usage_requests import require_scope
from tollhouse_server.api.values import moment_of, money, timestamp
from tollhouse_server.database.engine import Database
from tollhouse_server.names import Scope, TenantName, invalid, parse_scope
from tollhouse_server.pricing import store as price_store
from tollhouse_server.pricing.imports import book_with
from tollhouse_server.pricing.terms import PriceBook
from tollhouse_server.reporting.periods import Period, month_period
from tollhouse_server.reporting.rerate_store import Rerated, rerate_periods
from tollhouse_server.reporting.rerating import RatedLine, Target
from tollhouse_server.reporting.store import begin_snapshot
from tollhouse_server.tenancy.store import list_tenants, read_clocks

_TENANTS = 1_000


class RerateService:
    """Reads the ledger and price books; changes nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_rerate_report(self, request: pb.GetRerateReportRequest, call: Call) -> pb.RerateReport:
        _require_question(request)
        async with self._database.within(call.domain) as session:
            scopes = await _scopes(session, request.parent)
        async with self._database.within(call.domain, begin=begin_snapshot) as session:
            book = await _book(session, request)
            target = Target(
                book=book,
                service_tier=request.service_tier or None,
                prices_at=moment_of(request.prices_at, "prices_at") if request.HasField("prices_at") else None,
            )
            periods, now = await _periods(session, scopes, request.month)
            rerated = await rerate_periods(session, periods, target)
            version = await price_store.current_version(session) if request.content else request.version
        return _report(request, rerated, version=version, generated_at=now)


def _require_question(request: pb.GetRerateReportRequest) -> None:
    if request.version and request.content:
        raise invalid("content", "is reckoned with instead of a version; leave one of the two out")
    if request.content and not request.format:
        raise invalid("format", "is required with content")
    if not (request.version or request.content or request.service_tier or request.HasField("prices_at")):
        raise invalid("version", "is required, or content, service_tier or prices_at: else all stays as it was booked")


async def _scopes(session: AsyncSession, parent: str) -> list[Scope]:
    if parent:
        scope = parse_scope(parent, "parent")
        await require_scope(session, scope)
        return [scope]
    found: list[Scope] = []
    after = ""
    while page := await list_tenants(session, after=after, size=_TENANTS, show_deleted=True):
        found += [TenantName(row.tenant_id) for row in page]
        after = page[-1].tenant_id
    return found


async def _periods(session: AsyncSession, scopes: list[Scope], month: str) -> tuple[dict[Scope, Period], datetime]:
    """Return the month of each scope in its tenant's time zone, and the time."""
    clocks = await read_clocks(session, {scope.tenant for scope in scopes})
    periods = {scope: month_period(month, clocks[scope.tenant].zone) for scope in scopes}
    return periods, max(clock.now for clock in clocks.values())


async def _book(session: AsyncSession, request: pb.GetRerateReportRequest) -> PriceBook | None:
    """Return the book to reckon with; None where each call's own is meant."""
    if request.content:
        return book_with(await price_store.load(session), parsed_file(request))
    if not request.version:
        return None
    await price_store.get_version(session, request.version)
    return await price_store.load(session, request.version)


def _report(
    request: pb.GetRerateReportRequest, rerated: Rerated, *, version: int, generated_at: datetime
) -> pb.RerateReport:
    return pb.RerateReport(
        parent=request.parent,
        month=request.month,
        generate_time=timestamp(generated_at),
        version=version,
        booked=money(rerated.booked_nanos),
        rerated=money(rerated.rated_nanos),
        unrated=money(rerated.unrated_nanos),
        lines=map(_line, rerated.rerating.lines),
        notes=rerated.rerating.notes,
    )


def _line(line: RatedLine) -> pb.RerateLine:
    return pb.RerateLine(
        model=line.model,
        sku=line.sku,
        service_tier=line.service_tier,
        unit=line.unit,
        quantity=line.quantity,
        booked_nanos_per_million=line.booked_nanos_per_million,
        rerated_nanos_per_million=line.rated_nanos_per_million,
        booked=money(line.booked_nanos),
        rerated=money(line.rated_nanos),
    )
