"""ChargebackService: statements, the close of months, and adjustments."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from functools import partial
from typing import Final, TypeAlias
from uuid import uuid4

from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import chargeback_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.mutation import Change, Mutations
from tollhouse_server.api.pages import PageTokens, moment_and_key, position_at
from tollhouse_server.api.statement_messages import (
    adjustment_message,
    period_message,
    seal_message,
    statement_message,
)
from tollhouse_server.api.usage_requests import require_scope
from tollhouse_server.api.values import nanos_of, version_of
from tollhouse_server.chargeback import adjustments, closing, period_store
from tollhouse_server.chargeback.closing import Closed, Step
from tollhouse_server.chargeback.periods import list_periods, obstacles, read_period
from tollhouse_server.chargeback.record_store import share_snapshot, stream_records
from tollhouse_server.chargeback.statement import Seal, Statement
from tollhouse_server.chargeback.statements import StatementQuestion, make_statement, seal_of, statement_month
from tollhouse_server.chargeback.tables import AdjustmentRow, BillingPeriodRow, SealedStatementRow
from tollhouse_server.database.engine import Database
from tollhouse_server.documents.formats import file_name, format_of
from tollhouse_server.names import (
    AdjustmentName,
    DepartmentName,
    PeriodName,
    ProjectName,
    Scope,
    TenantName,
    invalid,
    parse_scope,
)
from tollhouse_server.reporting.periods import Period
from tollhouse_server.reporting.rollup_store import read_watermark
from tollhouse_server.reporting.store import begin_snapshot
from tollhouse_server.vault.signing import ALGORITHM, SigningKey

_PIECE_BYTES: Final = 256 * 1024

StatementRequest: TypeAlias = pb.GetStatementRequest | pb.ExportStatementRequest | pb.ExportStatementRecordsRequest
StepRequest: TypeAlias = pb.PreviewPeriodRequest | pb.ReopenPeriodRequest | pb.ClosePeriodRequest


class ChargebackService:
    """States months, closes them, and takes corrections; `key` signs what is sealed."""

    def __init__(self, database: Database, mutations: Mutations, pages: PageTokens, key: SigningKey) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages
        self._key = key

    # --- statements -----------------------------------------------------------------------------------------------

    async def get_statement(self, request: pb.GetStatementRequest, call: Call) -> pb.Statement:
        statement = await self._statement(request, call)
        return await asyncio.to_thread(statement_message, statement, with_lines=request.with_lines)

    async def export_statement(self, request: pb.ExportStatementRequest, call: Call) -> AsyncIterator[pb.DocumentPiece]:
        wanted = format_of(request.format)
        statement = await self._statement(request, call)
        document = await asyncio.to_thread(wanted.document, statement, request.language)
        name = file_name(statement, wanted, request.language)
        yield pb.DocumentPiece(content=document[:_PIECE_BYTES], media_type=wanted.media_type, file_name=name)
        for start in range(_PIECE_BYTES, len(document), _PIECE_BYTES):
            yield pb.DocumentPiece(content=document[start : start + _PIECE_BYTES])

    async def export_statement_records(
        self, request: pb.ExportStatementRecordsRequest, call: Call
    ) -> AsyncIterator[pb.DocumentPiece]:
        question = await self._question(request, call)
        async with self._database.within(call.domain, begin=begin_snapshot) as session:
            month, _ = await statement_month(session, question)
            ids = "-".join(str(question.scope).split("/")[1::2])
            yield pb.DocumentPiece(media_type="text/csv", file_name=f"records-{ids}-{month.name}.csv")
            async with self._database.within(call.domain, begin=await share_snapshot(session)) as other:
                async for piece in stream_records([session, other], question.scope, month.period):
                    yield pb.DocumentPiece(content=piece)

    async def _statement(self, request: StatementRequest, call: Call) -> Statement:
        question = await self._question(request, call)
        async with self._database.within(call.domain, begin=begin_snapshot) as session:
            return await make_statement(session, question)

    async def _question(self, request: StatementRequest, call: Call) -> StatementQuestion:
        scope = parse_scope(request.parent, "parent")
        async with self._database.within(call.domain) as session:
            await require_scope(session, scope)
        gregorian = request.calendar == pb.STATEMENT_CALENDAR_GREGORIAN
        return StatementQuestion(scope=scope, month=request.month, gregorian=gregorian)

    async def get_statement_keys(self, request: pb.GetStatementKeysRequest, call: Call) -> pb.StatementKeys:
        versions = await self._key.public_keys()
        return pb.StatementKeys(
            keys=[
                pb.StatementKey(key=self._key.name, version=version, algorithm=ALGORITHM, public_key=versions[version])
                for version in sorted(versions)
            ]
        )

    # --- months ---------------------------------------------------------------------------------------------------

    async def get_period(self, request: pb.GetPeriodRequest, call: Call) -> pb.Period:
        watermark = await self._watermark(call)
        async with self._database.within(call.domain) as session:
            row = await read_period(session, PeriodName.parse(request.name))
            return period_message(row, await obstacles(session, row, watermark=watermark))

    async def list_periods(self, request: pb.ListPeriodsRequest, call: Call) -> pb.ListPeriodsResponse:
        tenant = TenantName.parse(request.parent, "parent").tenant
        async with self._database.within(call.domain) as session:
            rows = await list_periods(
                session, tenant, before=self._pages.after(request), size=self._pages.size(request) + 1
            )
        page, last = self._pages.split(request, rows)
        token = self._pages.next(request, last.month) if last else ""
        return pb.ListPeriodsResponse(periods=map(period_message, page), next_page_token=token)

    async def preview_period(self, request: pb.PreviewPeriodRequest, call: Call) -> pb.Period:
        step = await self._step(request, call)

        async def act(session: AsyncSession) -> Change[pb.Period]:
            before = period_message(await read_period(session, step.name))
            row = await closing.preview(session, step)
            answer = period_message(row, await obstacles(session, row, watermark=step.watermark))
            return Change(resource=str(step.name), before=before, after=answer, answer=answer)

        return await self._mutations.run(call, request, pb.Period, act)

    async def reopen_period(self, request: pb.ReopenPeriodRequest, call: Call) -> pb.Period:
        step = await self._step(request, call)

        async def act(session: AsyncSession) -> Change[pb.Period]:
            before = period_message(await read_period(session, step.name))
            answer = period_message(await closing.reopen(session, step))
            return Change(resource=str(step.name), before=before, after=answer, answer=answer)

        return await self._mutations.run(call, request, pb.Period, act)

    async def close_period(self, request: pb.ClosePeriodRequest, call: Call) -> pb.ClosePeriodResponse:
        step = await self._step(request, call)
        if not request.validate_only:
            await self._guard(step, call)

        async def act(session: AsyncSession) -> Change[pb.ClosePeriodResponse]:
            before = period_message(await read_period(session, step.name))
            if request.validate_only:
                closed = await closing.rehearse(session, step)
            else:
                closed = await closing.close(session, step, self._key)
            answer = _closed(closed)
            return Change(resource=str(step.name), before=before, after=answer.period, answer=answer)

        return await self._mutations.run(call, request, pb.ClosePeriodResponse, act)

    async def list_seals(self, request: pb.ListSealsRequest, call: Call) -> pb.ListSealsResponse:
        name = PeriodName(TenantName.parse(request.parent, "parent").tenant, request.month)
        after = self._pages.after(request)
        async with self._database.within(call.domain) as session:
            period = await read_period(session, name)
            # The first page ends with the tenant's own at the earliest: its place is empty, and marked.
            rows = await period_store.list_sealed(
                session, name, after=after[1:] if after else None, size=self._pages.size(request) + 1
            )
        page, last = self._pages.split(request, rows)
        token = self._pages.next(request, f"/{last.department_id}") if last else ""
        return pb.ListSealsResponse(seals=[_seal(period, row) for row in page], next_page_token=token)

    async def _step(self, request: StepRequest, call: Call) -> Step:
        return Step(
            name=PeriodName.parse(request.name),
            actor=call.principal.name,
            watermark=await self._watermark(call),
            version=version_of(request.etag, request.name),
        )

    async def _watermark(self, call: Call) -> datetime:
        # A transaction of its own: the ledger's ticks wait while it is open.
        async with self._database.within(call.domain) as session:
            return await read_watermark(session)

    async def _guard(self, step: Step, call: Call) -> None:
        """Guard the partitions of a month that is over, in a transaction of its own: the ledger waits for it."""
        async with self._database.within(call.domain) as session:
            row = await read_period(session, step.name)
            if step.watermark >= row.ends_at:
                await period_store.guard_records(session, Period(start=row.starts_at, end=row.ends_at))

    # --- adjustments ----------------------------------------------------------------------------------------------

    async def create_adjustment(self, request: pb.CreateAdjustmentRequest, call: Call) -> pb.Adjustment:
        new = partial(_new_row, request, creator=call.principal.name)

        async def act(session: AsyncSession) -> Change[pb.Adjustment]:
            after = adjustment_message(await adjustments.enter(session, new()))
            return Change(resource=after.name, before=None, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Adjustment, act)

    async def get_adjustment(self, request: pb.GetAdjustmentRequest, call: Call) -> pb.Adjustment:
        async with self._database.within(call.domain) as session:
            return adjustment_message(await period_store.get_adjustment(session, AdjustmentName.parse(request.name)))

    async def list_adjustments(self, request: pb.ListAdjustmentsRequest, call: Call) -> pb.ListAdjustmentsResponse:
        tenant = TenantName.parse(request.parent, "parent").tenant
        after = moment_and_key(self._pages.after(request))
        async with self._database.within(call.domain) as session:
            await require_scope(session, TenantName(tenant))
            rows = await period_store.list_adjustments(
                session, tenant, month=request.month, after=after, size=self._pages.size(request) + 1
            )
        page, last = self._pages.split(request, rows)
        token = self._pages.next(request, position_at(last.created_at, last.adjustment_id)) if last else ""
        return pb.ListAdjustmentsResponse(adjustments=map(adjustment_message, page), next_page_token=token)


def _closed(closed: Closed) -> pb.ClosePeriodResponse:
    return pb.ClosePeriodResponse(
        period=period_message(closed.period, closed.obstacles),
        seals=[_seal(closed.period, row) for row in closed.sealed],
    )


def _seal(period: BillingPeriodRow, row: SealedStatementRow) -> pb.StatementSeal:
    seal: Seal = seal_of(period, row)
    scope: Scope = TenantName(row.tenant_id)
    if row.department_id:
        scope = DepartmentName(row.tenant_id, row.department_id)
    message = seal_message(seal, scope=str(scope), month=row.month)
    if period.closed_at is None:
        # A dry run has closed nothing.
        message.ClearField("close_time")
    return message


def _new_row(request: pb.CreateAdjustmentRequest, *, creator: str) -> AdjustmentRow:
    adjustment, tenant = request.adjustment, TenantName.parse(request.parent, "parent").tenant
    amount_nanos = nanos_of(adjustment.amount, "adjustment.amount")
    if amount_nanos == 0:
        raise invalid("adjustment.amount", "must not be 0")
    department = project = ""
    if adjustment.department:
        named = DepartmentName.parse(adjustment.department, "adjustment.department")
        _require_tenant(named.tenant, tenant, "adjustment.department")
        department = named.department
    if adjustment.project:
        of = ProjectName.parse(adjustment.project, "adjustment.project")
        if (of.tenant, of.department) != (tenant, department):
            raise invalid("adjustment.project", "must be of the department that is named")
        project = of.project
    return AdjustmentRow(
        tenant_id=tenant,
        adjustment_id=request.adjustment_id or f"a-{uuid4().hex[:20]}",
        month=adjustment.month,
        department_id=department,
        project_id=project,
        amount_nanos=amount_nanos,
        reason=adjustment.reason,
        for_month=adjustment.for_month,
        created_by=creator,
    )


def _require_tenant(found: str, wanted: str, field: str) -> None:
    if found != wanted:
        raise invalid(field, "must belong to the tenant that the request names")
