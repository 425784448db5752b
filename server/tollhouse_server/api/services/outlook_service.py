"""OutlookService: forecasts, simulations, and what work costs elsewhere."""

import asyncio
from collections.abc import AsyncIterator
from datetime import date
from typing import Any, Final

from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import limits_pb2
from tollhouse.admin.v1 import outlook_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.charge_dates import day_of
from tollhouse_server.api.limit_requests import new_limit
from tollhouse_server.api.mutation import Change, Mutations
from tollhouse_server.api.outlook_messages import (
    alternative_message,
    forecast_message,
    replay_report,
    rerouting_report,
)
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.usage_requests import require_scope
from tollhouse_server.api.values import nanos_of, timestamp
from tollhouse_server.chargeback import return_store
from tollhouse_server.chargeback.charge_tables import AlternativeCostRow
from tollhouse_server.chargeback.composing import forecast_of
from tollhouse_server.chargeback.forecast import CONFIDENCE_PERCENT, RESERVE_PERCENT, ForecastTerms
from tollhouse_server.chargeback.rerouting import Rerouting, Route
from tollhouse_server.chargeback.simulation import Replay
from tollhouse_server.chargeback.simulation_store import stream_calls, stream_usage
from tollhouse_server.chargeback.statements import read_running
from tollhouse_server.database.engine import Database
from tollhouse_server.ledger.terms import Calendar, LimitDefinition, Metric, Mode, Window
from tollhouse_server.names import AlternativeCostName, DepartmentName, Scope, TenantName, invalid, parse_scope
from tollhouse_server.pricing.store import load
from tollhouse_server.reporting.periods import month_period
from tollhouse_server.reporting.store import begin_snapshot
from tollhouse_server.tenancy.store import Clock, read_clock, require_active

_RECORDS_BETWEEN: Final = 100_000
"""Records between two answers that say how far it is."""


class OutlookService:
    """Looks ahead and back; of what was booked it changes nothing."""

    def __init__(self, database: Database, mutations: Mutations, pages: PageTokens) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages

    async def get_forecast(self, request: pb.GetForecastRequest, call: Call) -> pb.Forecast:
        scope = await self._scope(request.parent, call)
        department = scope.department if isinstance(scope, DepartmentName) else ""
        async with self._database.within(call.domain, begin=begin_snapshot) as session:
            clock = await read_clock(session, scope.tenant)
            books = await read_running(session, scope.tenant, clock, department=department)
        terms = ForecastTerms(
            confidence_percent=request.confidence_percent or CONFIDENCE_PERCENT,
            reserve_percent=request.reserve_percent if request.HasField("reserve_percent") else RESERVE_PERCENT,
        )
        outlook = await asyncio.to_thread(forecast_of, books, department, terms)
        return forecast_message(outlook, parent=request.parent, month=books.month.name, now=books.read_at)

    async def simulate_month(
        self, request: pb.SimulateMonthRequest, call: Call
    ) -> AsyncIterator[pb.SimulateMonthResponse]:
        if bool(request.limits) == bool(request.routes):
            raise invalid("limits", "are required, or routes; and not both at once")
        scope = await self._scope(request.parent, call)
        async with self._database.within(call.domain, begin=begin_snapshot) as session:
            clock = await read_clock(session, scope.tenant)
            simulate = _replayed if request.limits else _rerouted
            async for answer in simulate(session, request, scope, clock):
                if answer.HasField("report"):
                    answer.report.parent, answer.report.month = request.parent, request.month
                    answer.report.generate_time.FromDatetime(clock.now)
                yield answer

    async def set_alternative_cost(self, request: pb.SetAlternativeCostRequest, call: Call) -> pb.AlternativeCost:
        row = _row(request.alternative_cost, creator=call.principal.name)

        async def act(session: AsyncSession) -> Change[pb.AlternativeCost]:
            await require_active(session, TenantName(row.tenant_id))
            found = await return_store.find_alternative(session, row)
            before = None if found is None else alternative_message(found)
            after = alternative_message(await return_store.set_alternative(session, row))
            return Change(resource=after.name, before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.AlternativeCost, act)

    async def list_alternative_costs(
        self, request: pb.ListAlternativeCostsRequest, call: Call
    ) -> pb.ListAlternativeCostsResponse:
        scope = await self._scope(request.parent, call)
        place = self._pages.after(request).split(" ")
        async with self._database.within(call.domain) as session:
            rows = await return_store.list_alternatives(
                session,
                scope.tenant,
                after=(place[0], date.fromisoformat(place[1])) if len(place) > 1 else None,
                size=self._pages.size(request) + 1,
            )
        page, last = self._pages.split(request, rows)
        token = self._pages.next(request, f"{last.alternative_cost_id} {last.starts_on}") if last else ""
        return pb.ListAlternativeCostsResponse(alternative_costs=map(alternative_message, page), next_page_token=token)

    async def record_units(self, request: pb.RecordUnitsRequest, call: Call) -> pb.UnitCount:
        name = AlternativeCostName.parse(request.name)

        async def act(session: AsyncSession) -> Change[pb.UnitCount]:
            units = await return_store.record_units(session, name, request.month, request.units)
            before = None if units is None else _count(request, units)
            after = _count(request, request.units)
            return Change(resource=request.name, before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.UnitCount, act)

    async def _scope(self, parent: str, call: Call) -> Scope:
        scope = parse_scope(parent, "parent")
        async with self._database.within(call.domain) as session:
            await require_scope(session, scope)
        return scope


async def _replayed(
    session: AsyncSession, request: pb.SimulateMonthRequest, scope: Scope, clock: Clock
) -> AsyncIterator[pb.SimulateMonthResponse]:
    limits = [_definition(limit, place, scope, clock) for place, limit in enumerate(request.limits)]
    replay = Replay(limits)
    told = 0
    async for calls in stream_calls(session, scope, month_period(request.month, clock.zone)):
        # It takes the processor: others must not wait for all of it.
        await asyncio.to_thread(replay.play, calls)
        if replay.records - told >= _RECORDS_BETWEEN:
            told = replay.records
            yield _progress(told, calls[-1].dispatched_at)
    yield pb.SimulateMonthResponse(report=replay_report(replay, limits))


async def _rerouted(
    session: AsyncSession, request: pb.SimulateMonthRequest, scope: Scope, clock: Clock
) -> AsyncIterator[pb.SimulateMonthResponse]:
    book = await load(session)
    for place, route in enumerate(request.routes):
        if not book.history(route.model):
            raise invalid(f"routes[{place}].model", "is not in the price book")
    rerouting = Rerouting([Route(source=one.source, model=one.model) for one in request.routes], book)
    told = 0
    async for records in stream_usage(session, scope, month_period(request.month, clock.zone)):
        await asyncio.to_thread(rerouting.play, records)
        if rerouting.records - told >= _RECORDS_BETWEEN:
            told = rerouting.records
            yield _progress(told, records[-1].dispatched_at)
    yield pb.SimulateMonthResponse(report=rerouting_report(rerouting))


def _progress(records: int, at: Any) -> pb.SimulateMonthResponse:
    return pb.SimulateMonthResponse(progress=pb.SimulationProgress(records=records, at=timestamp(at)))


def _definition(limit: limits_pb2.Limit, place: int, scope: Scope, clock: Clock) -> LimitDefinition:
    """Return a limit that is not in force as the ledger would have it."""
    parent = str(TenantName(scope.tenant))
    chosen = limit.name.rpartition("/")[2] or f"limit-{place + 1}"
    row = new_limit(limits_pb2.CreateLimitRequest(parent=parent, limit_id=chosen, limit=limit))
    return LimitDefinition(
        tenant_id=scope.tenant,
        scope=row.scope,
        limit_id=place + 1,
        name=row.name,
        metric=Metric(row.metric),
        window=Window(row.window),
        selector=row.selector,
        mode=Mode(row.mode),
        amount=row.amount,
        overshoot=row.overshoot,
        increases=(),
        calendar=Calendar(zone=clock.zone, fiscal_month_start_day=clock.fiscal_month_start_day),
    )


def _row(asked: pb.AlternativeCost, *, creator: str) -> AlternativeCostRow:
    name = AlternativeCostName.parse(asked.name, "alternative_cost.name")
    nanos = nanos_of(asked.amount, "alternative_cost.amount")
    if nanos < 0:
        raise invalid("alternative_cost.amount", "must not be negative")
    return AlternativeCostRow(
        tenant_id=name.tenant,
        alternative_cost_id=name.alternative_cost,
        starts_on=day_of(asked.start_date, "alternative_cost.start_date"),
        subject=asked.subject,
        unit=asked.unit,
        unit_nanos=nanos,
        counted_by=pb.AlternativeCost.Counting.Name(asked.counting).removeprefix("COUNTING_"),
        creator=creator,
    )


def _count(request: pb.RecordUnitsRequest, units: int) -> pb.UnitCount:
    return pb.UnitCount(name=request.name, month=request.month, units=units)
