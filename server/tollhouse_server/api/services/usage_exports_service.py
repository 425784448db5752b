"""UsageExportService: months of usage records, taken out of the ledger once they are safe elsewhere."""

from datetime import date, datetime
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import usage_exports_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.mutation import Change, Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.values import money, nanos_of, timestamp
from tollhouse_server.database.engine import Database
from tollhouse_server.names import UsageExportName
from tollhouse_server.reporting import export_store, exports
from tollhouse_server.reporting.export_store import Place, UsageExport
from tollhouse_server.reporting.exports import Download, first_of
from tollhouse_server.reporting.rollup_store import read_watermark


class UsageExportService:
    """Takes stock of months, hands out their records, and drops them when they are confirmed."""

    def __init__(self, database: Database, mutations: Mutations, pages: PageTokens) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages

    async def create_usage_export(self, request: pb.CreateUsageExportRequest, call: Call) -> pb.UsageExport:
        # A transaction of its own: the ledger's ticks wait while it is open.
        async with self._database.within(call.domain) as session:
            watermark = await read_watermark(session)

        async def act(session: AsyncSession) -> Change[pb.UsageExport]:
            export = await exports.create_export(
                session, request.month, watermark=watermark, creator=call.principal.name
            )
            answer = _message(export)
            return Change(resource=export.name, before=None, after=answer, answer=answer)

        return await self._mutations.run(call, request, pb.UsageExport, act)

    async def get_usage_export(self, request: pb.GetUsageExportRequest, call: Call) -> pb.UsageExport:
        async with self._database.within(call.domain) as session:
            return _message(await export_store.get_export(session, first_of(_month(request.name))))

    async def list_usage_exports(self, request: pb.ListUsageExportsRequest, call: Call) -> pb.ListUsageExportsResponse:
        after = self._pages.after(request)
        async with self._database.within(call.domain) as session:
            found = await export_store.list_exports(
                session, after=first_of(after) if after else date.min, size=self._pages.size(request) + 1
            )
        page, last = self._pages.split(request, found)
        token = self._pages.next(request, f"{last.month:%Y-%m}") if last else ""
        return pb.ListUsageExportsResponse(usage_exports=map(_message, page), next_page_token=token)

    async def list_usage_export_lines(
        self, request: pb.ListUsageExportLinesRequest, call: Call
    ) -> pb.ListUsageExportLinesResponse:
        after = _place(self._pages.after(request))
        async with self._database.within(call.domain) as session:
            found = await exports.read_lines(
                session, _month(request.name), after=after, size=self._pages.size(request) + 1
            )
        page, last = self._pages.split(request, found)
        return pb.ListUsageExportLinesResponse(
            lines=[one.line for one in page],
            next_page_token=self._pages.next(request, _text(last.place)) if last else "",
        )

    async def confirm_usage_export(self, request: pb.ConfirmUsageExportRequest, call: Call) -> pb.UsageExport:
        download = Download(
            record_count=request.record_count,
            cost_nanos=nanos_of(request.cost, "cost"),
            checksum=int(request.checksum),
            content_sha256=request.content_sha256,
            location=request.location,
        )

        async def act(session: AsyncSession) -> Change[pb.UsageExport]:
            month = _month(request.name)
            before = await export_store.get_export(session, first_of(month))
            after = await exports.confirm_export(session, month, download, confirmer=call.principal.name)
            return _changed(before, after)

        return await self._mutations.run(call, request, pb.UsageExport, act)

    async def drop_usage_export_records(self, request: pb.DropUsageExportRecordsRequest, call: Call) -> pb.UsageExport:
        async def act(session: AsyncSession) -> Change[pb.UsageExport]:
            month = _month(request.name)
            before = await export_store.get_export(session, first_of(month))
            return _changed(before, await exports.drop_records(session, month))

        return await self._mutations.run(call, request, pb.UsageExport, act)


def _month(name: str) -> str:
    return UsageExportName.parse(name).month


def _place(position: str) -> Place | None:
    if not position:
        return None
    tenant_id, settled_at, attempt_id = position.split(" ")
    return Place(tenant_id=tenant_id, settled_at=datetime.fromisoformat(settled_at), attempt_id=UUID(attempt_id))


def _text(place: Place) -> str:
    return f"{place.tenant_id} {place.settled_at.isoformat()} {place.attempt_id}"


def _changed(before: UsageExport, after: UsageExport) -> Change[pb.UsageExport]:
    answer = _message(after)
    return Change(resource=after.name, before=_message(before), after=answer, answer=answer)


def _message(export: UsageExport) -> pb.UsageExport:
    return pb.UsageExport(
        name=export.name,
        month=f"{export.month:%Y-%m}",
        state=pb.UsageExport.State.Value(f"STATE_{export.state}"),
        record_count=export.record_count,
        cost=money(export.cost_nanos),
        checksum=str(export.checksum),
        content_sha256=export.content_sha256,
        location=export.location,
        create_time=timestamp(export.created_at),
        creator=export.created_by,
        confirm_time=timestamp(export.confirmed_at),
        confirmer=export.confirmed_by,
        drop_time=timestamp(export.dropped_at),
    )
