"""ReconciliationService: Google's bill, held against the ledger line by line."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Final
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import reconciliation_pb2 as pb

from tollhouse_server.api import reconciliation_messages as messages
from tollhouse_server.api import usage_metrics
from tollhouse_server.api.call import Call
from tollhouse_server.api.charge_dates import optional_day
from tollhouse_server.api.mutation import Change, Mutations
from tollhouse_server.api.pages import PageTokens, moment_and_key, position_at
from tollhouse_server.api.reconciliation_messages import MILLIONTHS_PER_PERCENT
from tollhouse_server.api.values import nanos_of, version_of
from tollhouse_server.database.engine import Database
from tollhouse_server.errors import ResourceExists, ResourceNotFound, WrongState
from tollhouse_server.names import BillImportName, BillReconciliationName, BillVarianceName, invalid
from tollhouse_server.reconciliation import acceptance, import_store, map_store, policy_store, variance_store
from tollhouse_server.reconciliation.count_store import attempts_of_days
from tollhouse_server.reconciliation.import_store import BillImport
from tollhouse_server.reconciliation.lines import BillLine
from tollhouse_server.reconciliation.policy import POLICY_NAME
from tollhouse_server.reconciliation.reader import BillFormat, read_piece
from tollhouse_server.reconciliation.reconcile import reconcile
from tollhouse_server.reconciliation.variance_store import VarianceFilter

_MOST_METRIC_DAYS: Final = timedelta(days=62)
_BEGINNING: Final = (date.min, "")
_BEFORE_ALL_IMPORTS: Final = (datetime(1, 1, 2, tzinfo=UTC), str(UUID(int=0)))


class ReconciliationService:
    """Imports bills, compares months with the ledger, and keeps what people accept."""

    def __init__(self, database: Database, mutations: Mutations, pages: PageTokens) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages

    # --- imports ------------------------------------------------------------------------------------------------------

    async def import_bill(self, request: pb.ImportBillRequest, call: Call) -> pb.BillImport:
        kind = BillFormat(pb.BillFormat.Name(request.format).removeprefix("BILL_FORMAT_"))
        first = request.first_line or request.line_offset + 1
        # Some tens of milliseconds for each megabyte, and others want to be served meanwhile.
        lines = await asyncio.to_thread(read_piece, request.content, kind, first_line=first)

        async def act(session: AsyncSession) -> Change[pb.BillImport]:
            answer = messages.import_message(await _take_in(session, request, kind, lines, creator=call.principal.name))
            return Change(resource=answer.name, before=None, after=answer, answer=answer)

        return await self._mutations.run(call, request, pb.BillImport, act)

    async def get_bill_import(self, request: pb.GetBillImportRequest, call: Call) -> pb.BillImport:
        import_id = UUID(BillImportName.parse(request.name).bill_import)
        async with self._database.within(call.domain) as session:
            return messages.import_message(await import_store.get_import(session, import_id))

    async def list_bill_imports(self, request: pb.ListBillImportsRequest, call: Call) -> pb.ListBillImportsResponse:
        moment, key = moment_and_key(self._pages.after(request)) or _BEFORE_ALL_IMPORTS
        async with self._database.within(call.domain) as session:
            found = await import_store.list_imports(
                session, after=(moment, UUID(key)), size=self._pages.size(request) + 1
            )
        page, last = self._pages.split(request, found)
        token = self._pages.next(request, position_at(last.created_at, str(last.import_id))) if last else ""
        return pb.ListBillImportsResponse(bill_imports=map(messages.import_message, page), next_page_token=token)

    # --- comparisons --------------------------------------------------------------------------------------------------

    async def reconcile_bill(self, request: pb.ReconcileBillRequest, call: Call) -> pb.BillReconciliation:
        async def act(session: AsyncSession) -> Change[pb.BillReconciliation]:
            result = await reconcile(session, request.month, run_by=call.principal.name)
            answer = messages.reconciliation_message(result)
            return Change(resource=answer.name, before=None, after=answer, answer=answer)

        return await self._mutations.run(call, request, pb.BillReconciliation, act)

    async def get_bill_reconciliation(
        self, request: pb.GetBillReconciliationRequest, call: Call
    ) -> pb.BillReconciliation:
        month = BillReconciliationName.parse(request.name).month
        async with self._database.within(call.domain) as session:
            return messages.reconciliation_message(await variance_store.get_reconciliation(session, month))

    async def list_bill_reconciliations(
        self, request: pb.ListBillReconciliationsRequest, call: Call
    ) -> pb.ListBillReconciliationsResponse:
        after = self._pages.after(request)
        async with self._database.within(call.domain) as session:
            found = await variance_store.list_reconciliations(session, after=after, size=self._pages.size(request) + 1)
        page, last = self._pages.split(request, found)
        return pb.ListBillReconciliationsResponse(
            bill_reconciliations=map(messages.reconciliation_message, page),
            next_page_token=self._pages.next(request, last.month) if last else "",
        )

    # --- differences --------------------------------------------------------------------------------------------------

    async def get_bill_variance(self, request: pb.GetBillVarianceRequest, call: Call) -> pb.BillVariance:
        name = BillVarianceName.parse(request.name)
        async with self._database.within(call.domain) as session:
            return messages.variance_message(await variance_store.get_variance(session, name))

    async def list_bill_variances(
        self, request: pb.ListBillVariancesRequest, call: Call
    ) -> pb.ListBillVariancesResponse:
        day, _, key = self._pages.after(request).partition(" ")
        after = (date.fromisoformat(day), key) if key else _BEGINNING
        async with self._database.within(call.domain) as session:
            # A month without a result is not one without differences.
            await variance_store.get_reconciliation(session, request.month)
            found = await variance_store.list_variances(
                session, _filter(request), after=after, size=self._pages.size(request) + 1
            )
        page, last = self._pages.split(request, found)
        token = self._pages.next(request, f"{last.line.key.day} {last.variance_id}") if last else ""
        return pb.ListBillVariancesResponse(bill_variances=map(messages.variance_message, page), next_page_token=token)

    async def accept_bill_variance(
        self, request: pb.AcceptBillVarianceRequest, call: Call
    ) -> pb.AcceptBillVarianceResponse:
        name = BillVarianceName.parse(request.name)

        async def act(session: AsyncSession) -> Change[pb.AcceptBillVarianceResponse]:
            before = messages.variance_message(await variance_store.get_variance(session, name, lock=True))
            accepted, shares = await acceptance.accept(
                session,
                name,
                by=call.principal.name,
                reason=request.reason,
                charges_tenants=not request.borne_by_platform,
                effective_day=optional_day(request.effective_date, "effective_date"),
                version=version_of(request.etag, request.name),
            )
            answer = pb.AcceptBillVarianceResponse(
                bill_variance=messages.variance_message(accepted), true_ups=map(messages.true_up_message, shares)
            )
            return Change(resource=request.name, before=before, after=answer, answer=answer)

        return await self._mutations.run(call, request, pb.AcceptBillVarianceResponse, act)

    # --- bounds and rules ---------------------------------------------------------------------------------------------

    async def get_reconciliation_policy(
        self, request: pb.GetReconciliationPolicyRequest, call: Call
    ) -> pb.ReconciliationPolicy:
        async with self._database.within(call.domain) as session:
            return messages.policy_message(await policy_store.read_policy(session))

    async def update_reconciliation_policy(
        self, request: pb.UpdateReconciliationPolicyRequest, call: Call
    ) -> pb.ReconciliationPolicy:
        wanted = request.reconciliation_policy

        async def act(session: AsyncSession) -> Change[pb.ReconciliationPolicy]:
            before = messages.policy_message(await policy_store.read_policy(session, lock=True))
            changed = await policy_store.write_policy(
                session,
                absolute_nanos=_not_negative(nanos_of(wanted.absolute, "absolute"), "absolute"),
                share_millionths=int(Decimal(wanted.percent) * MILLIONTHS_PER_PERCENT),
                rounding_nanos=_not_negative(
                    nanos_of(wanted.rounding_per_line, "rounding_per_line"), "rounding_per_line"
                ),
                version=version_of(wanted.etag, POLICY_NAME),
            )
            answer = messages.policy_message(changed)
            return Change(resource=POLICY_NAME, before=before, after=answer, answer=answer)

        return await self._mutations.run(call, request, pb.ReconciliationPolicy, act)

    async def verify_usage_metrics(
        self, request: pb.VerifyUsageMetricsRequest, call: Call
    ) -> pb.VerifyUsageMetricsResponse:
        counted = usage_metrics.counts_of(request)
        days = [key.day for key in counted]
        first, last = min(days), max(days) + timedelta(days=1)
        if last - first > _MOST_METRIC_DAYS:
            raise invalid("usage_metrics", f"must be of {_MOST_METRIC_DAYS.days} days at the most")
        async with self._database.within(call.domain) as session:
            attempts = await attempts_of_days(session, first, last)
        return usage_metrics.comparison(counted, attempts)

    async def get_sku_map(self, request: pb.GetSkuMapRequest, call: Call) -> pb.SkuMap:
        async with self._database.within(call.domain) as session:
            return messages.map_message(await map_store.newest_map(session))

    async def import_sku_map(self, request: pb.ImportSkuMapRequest, call: Call) -> pb.SkuMap:
        async def act(session: AsyncSession) -> Change[pb.SkuMap]:
            before = messages.map_message(await map_store.newest_map(session))
            saved = await map_store.save_map(session, request.content, creator=call.principal.name)
            answer = messages.map_message(saved)
            return Change(resource=f"skuMaps/{saved.version}", before=before, after=answer, answer=answer)

        return await self._mutations.run(call, request, pb.SkuMap, act)


async def _take_in(
    session: AsyncSession,
    request: pb.ImportBillRequest,
    kind: BillFormat,
    lines: Sequence[BillLine],
    *,
    creator: str,
) -> BillImport:
    """Keep the lines of a piece, and with the last one take the file into the bill.

    Raises:
        ResourceNotFound: it is not the first piece of a file, and none came before.
        ResourceExists: it is the first piece, and one came before.
        WrongState: the file is complete already.
        InvalidRequest: it is not the piece that comes next.
    """
    import_id = UUID(request.import_id)
    # What a dry run sent before was not kept: its later pieces stand for themselves.
    found = await _begin(session, request, kind, creator) if _begins(request) else await _go_on(session, request)
    await import_store.receive(session, found, lines)
    if request.last:
        return await import_store.complete(session, import_id)
    return await import_store.get_import(session, import_id)


def _begins(request: pb.ImportBillRequest) -> bool:
    return request.line_offset == 0 or request.validate_only


async def _begin(session: AsyncSession, request: pb.ImportBillRequest, kind: BillFormat, creator: str) -> BillImport:
    import_id = UUID(request.import_id)
    try:
        await import_store.get_import(session, import_id)
    except ResourceNotFound:
        return await import_store.create_import(
            session, import_id, file_name=request.file_name, bill_format=kind.value, creator=creator
        )
    raise ResourceExists(name=str(BillImportName(str(import_id))))


async def _go_on(session: AsyncSession, request: pb.ImportBillRequest) -> BillImport:
    found = await import_store.get_import(session, UUID(request.import_id), lock=True)
    if found.state != "RECEIVING":
        raise WrongState(name=found.name, state=found.state, needed="RECEIVING")
    if found.line_count != request.line_offset:
        raise invalid("line_offset", f"must be {found.line_count}, the lines that are here")
    return found


def _filter(request: pb.ListBillVariancesRequest) -> VarianceFilter:
    return VarianceFilter(
        month=request.month,
        project=request.google_project,
        model=request.model,
        reason=pb.BillVariance.Reason.Name(request.reason).removeprefix("REASON_") if request.reason else "",
        state=pb.BillVariance.State.Name(request.state).removeprefix("STATE_") if request.state else "",
        blocking=True if request.blocking_only else None,
    )


def _not_negative(nanos: int, field: str) -> int:
    if nanos < 0:
        raise invalid(field, "must not be negative")
    return nanos
