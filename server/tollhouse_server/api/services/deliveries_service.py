"""DeliveryService: statements that go out by themselves."""

import secrets
from typing import Final

from google.protobuf.empty_pb2 import Empty
from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import deliveries_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.mutation import Change, Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.values import etag, timestamp, version_of
from tollhouse_server.database.engine import Database
from tollhouse_server.documents import delivery_store as store
from tollhouse_server.documents.formats import format_of
from tollhouse_server.documents.language import language_of
from tollhouse_server.documents.tables import DeliveryRow, DeliveryScheduleRow
from tollhouse_server.documents.ways import Ways
from tollhouse_server.names import (
    DeliveryName,
    DeliveryScheduleName,
    DepartmentName,
    TenantName,
    domain_of,
    invalid,
    parse_scope,
)
from tollhouse_server.tenancy.store import require_active

_SCHEDULE: Final = "delivery_schedule"


class DeliveryService:
    """Begins, reads and ends schedules, and shows what has become of deliveries; `ways` are the deployment's."""

    def __init__(self, database: Database, mutations: Mutations, pages: PageTokens, ways: Ways) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages
        self._ways = ways

    async def create_delivery_schedule(
        self, request: pb.CreateDeliveryScheduleRequest, call: Call
    ) -> pb.DeliverySchedule:
        row = _new_schedule(request, creator=call.principal.name)
        field = f"{_SCHEDULE}.recipients"
        self._ways.check(to_folder=row.to_folder, to_bucket=row.to_bucket, recipients=row.recipients, field=field)

        async def act(session: AsyncSession) -> Change[pb.DeliverySchedule]:
            await require_active(session, _scope(row))
            after = _schedule_message(await store.create_schedule(session, row))
            return Change(resource=after.name, before=None, after=after, answer=after)

        return await self._mutations.run(call, request, pb.DeliverySchedule, act)

    async def get_delivery_schedule(self, request: pb.GetDeliveryScheduleRequest, call: Call) -> pb.DeliverySchedule:
        async with self._database.within(call.domain) as session:
            return _schedule_message(await store.get_schedule(session, DeliveryScheduleName.parse(request.name)))

    async def list_delivery_schedules(
        self, request: pb.ListDeliverySchedulesRequest, call: Call
    ) -> pb.ListDeliverySchedulesResponse:
        tenant = TenantName.parse(request.parent, "parent").tenant
        after, size = self._pages.after(request), self._pages.size(request) + 1
        async with self._database.within(call.domain) as session:
            rows = await store.list_schedules(session, tenant, after=after, size=size)
        page, last = self._pages.split(request, rows)
        token = self._pages.next(request, last.schedule_id) if last else ""
        return pb.ListDeliverySchedulesResponse(delivery_schedules=map(_schedule_message, page), next_page_token=token)

    async def delete_delivery_schedule(self, request: pb.DeleteDeliveryScheduleRequest, call: Call) -> Empty:
        name = DeliveryScheduleName.parse(request.name)
        version = version_of(request.etag, request.name)

        async def act(session: AsyncSession) -> Change[Empty]:
            row = await store.get_schedule(session, name, lock=True)
            before = _schedule_message(row)
            await store.end_schedule(session, row, expected_version=version)
            return Change(resource=request.name, before=before, after=None, answer=Empty())

        return await self._mutations.run(call, request, Empty, act)

    async def get_delivery(self, request: pb.GetDeliveryRequest, call: Call) -> pb.Delivery:
        async with self._database.within(call.domain) as session:
            return _delivery_message(await store.get_delivery(session, DeliveryName.parse(request.name)))

    async def list_deliveries(self, request: pb.ListDeliveriesRequest, call: Call) -> pb.ListDeliveriesResponse:
        tenant = TenantName.parse(request.parent, "parent").tenant
        state = pb.Delivery.State.Name(request.state).removeprefix("STATE_") if request.state else ""
        after, size = self._pages.after(request), self._pages.size(request) + 1
        async with self._database.within(call.domain) as session:
            rows = await store.list_deliveries(session, tenant, state=state, after=after, size=size)
        page, last = self._pages.split(request, rows)
        token = self._pages.next(request, last.delivery_id) if last else ""
        return pb.ListDeliveriesResponse(deliveries=map(_delivery_message, page), next_page_token=token)

    async def retry_delivery(self, request: pb.RetryDeliveryRequest, call: Call) -> pb.Delivery:
        name = DeliveryName.parse(request.name)
        version = version_of(request.etag, request.name)

        async def act(session: AsyncSession) -> Change[pb.Delivery]:
            row = await store.get_delivery(session, name, lock=True)
            before = _delivery_message(row)
            # What a mail server has answered may have people's addresses in it, and the trail keeps for ever.
            before.ClearField("fault")
            after = _delivery_message(await store.retry(session, row, expected_version=version))
            return Change(resource=request.name, before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Delivery, act)


def _new_schedule(request: pb.CreateDeliveryScheduleRequest, *, creator: str) -> DeliveryScheduleRow:
    asked = request.delivery_schedule
    chosen = request.delivery_schedule_id or f"ds-{secrets.token_hex(8)}"
    name = DeliveryScheduleName.parse(f"{request.parent}/deliverySchedules/{chosen}", "delivery_schedule_id")
    scope = parse_scope(asked.scope or request.parent, f"{_SCHEDULE}.scope")
    if domain_of(str(scope)) != name.tenant:
        raise invalid(f"{_SCHEDULE}.scope", "must be in the schedule's own tenant")
    if not (asked.to_folder or asked.to_bucket or asked.recipients):
        raise invalid(f"{_SCHEDULE}.recipients", "are required unless to_folder or to_bucket is set")
    return DeliveryScheduleRow(
        tenant_id=name.tenant,
        schedule_id=name.delivery_schedule,
        department_id=scope.department if isinstance(scope, DepartmentName) else "",
        formats=[format_of(wanted, f"{_SCHEDULE}.formats").name for wanted in asked.formats],
        language=language_of(asked.language, f"{_SCHEDULE}.language").tag,
        day=asked.day,
        to_folder=asked.to_folder,
        to_bucket=asked.to_bucket,
        recipients=list(asked.recipients),
        creator=creator,
    )


def _scope(row: DeliveryScheduleRow) -> TenantName | DepartmentName:
    if row.department_id:
        return DepartmentName(row.tenant_id, row.department_id)
    return TenantName(row.tenant_id)


def _schedule_message(row: DeliveryScheduleRow) -> pb.DeliverySchedule:
    return pb.DeliverySchedule(
        name=str(DeliveryScheduleName(row.tenant_id, row.schedule_id)),
        scope=str(_scope(row)),
        formats=row.formats,
        language=row.language,
        day=row.day,
        to_folder=row.to_folder,
        to_bucket=row.to_bucket,
        recipients=row.recipients,
        creator=row.creator,
        create_time=timestamp(row.created_at),
        etag=etag(row.version),
    )


def _delivery_message(row: DeliveryRow) -> pb.Delivery:
    return pb.Delivery(
        name=str(DeliveryName(row.tenant_id, row.delivery_id)),
        schedule=str(DeliveryScheduleName(row.tenant_id, row.schedule_id)),
        month=row.month,
        sha256=row.sha256,
        way=pb.Delivery.Way.Value(f"WAY_{row.way}"),
        state=pb.Delivery.State.Value(f"STATE_{row.state}"),
        attempts=row.attempts,
        fault=row.fault,
        next_attempt_time=timestamp(row.next_attempt_at) if row.state == "PENDING" else None,
        deliver_time=timestamp(row.delivered_at),
        create_time=timestamp(row.created_at),
        etag=etag(row.version),
    )
