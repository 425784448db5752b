"""TenantService: the companies that share this Tollhouse."""

from collections.abc import Mapping
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import tenants_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.masks import changed_fields
from tollhouse_server.api.mutation import Act, Change, MutationRequest, Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.values import etag, timestamp, version_of
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import Topic
from tollhouse_server.database.rows import change, check_version
from tollhouse_server.errors import ResourceInUse, ResourceNotFound
from tollhouse_server.names import PLATFORM, TenantName, invalid
from tollhouse_server.tenancy import lives, store
from tollhouse_server.tenancy.lives import DEFAULT_RETENTION_DAYS
from tollhouse_server.tenancy.tables import TenantRow

_CHANGEABLE = ("display_name", "time_zone", "fiscal_month_start_day")


class TenantService:
    """Creates, reads, changes, suspends, deletes and undeletes tenants."""

    def __init__(self, database: Database, mutations: Mutations, pages: PageTokens) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages

    async def create_tenant(self, request: pb.CreateTenantRequest, call: Call) -> pb.Tenant:
        name = TenantName.parse(f"tenants/{request.tenant_id}", "tenant_id")
        row = TenantRow(
            tenant_id=name.tenant,
            display_name=request.tenant.display_name,
            time_zone=checked_zone(request.tenant.time_zone or "UTC"),
            fiscal_month_start_day=checked_start_day(request.tenant.fiscal_month_start_day or 1),
        )

        async def act(session: AsyncSession) -> Change[pb.Tenant]:
            after = tenant_message(await store.create_tenant(session, row))
            return Change(resource=after.name, before=None, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Tenant, act)

    async def get_tenant(self, request: pb.GetTenantRequest, call: Call) -> pb.Tenant:
        async with self._database.within(call.domain) as session:
            return tenant_message(await store.get_tenant(session, TenantName.parse(request.name)))

    async def list_tenants(self, request: pb.ListTenantsRequest, call: Call) -> pb.ListTenantsResponse:
        async with self._database.within(call.domain) as session:
            rows = await store.list_tenants(
                session,
                after=self._pages.after(request),
                size=self._pages.size(request) + 1,
                show_deleted=request.show_deleted,
            )
        page, last = self._pages.split(request, rows)
        token = self._pages.next(request, last.tenant_id) if last else ""
        return pb.ListTenantsResponse(tenants=map(tenant_message, page), next_page_token=token)

    async def update_tenant(self, request: pb.UpdateTenantRequest, call: Call) -> pb.Tenant:
        fields = changed_fields(request.tenant, request.update_mask, _CHANGEABLE)
        values = {field: getattr(request.tenant, field) for field in fields}
        if "time_zone" in values:
            checked_zone(request.tenant.time_zone)
        if "fiscal_month_start_day" in values:
            checked_start_day(request.tenant.fiscal_month_start_day)
        # Limits cut their windows in the tenant's calendar: whoever keeps their definitions must read it again.
        return await self._change(call, request, request.tenant.name, request.tenant.etag, values, topic=Topic.LIMITS)

    async def suspend_tenant(self, request: pb.SuspendTenantRequest, call: Call) -> pb.Tenant:
        values: dict[str, object] = {"state": "SUSPENDED"}
        return await self._change(call, request, request.name, request.etag, values, topic=Topic.IDENTITY)

    async def resume_tenant(self, request: pb.ResumeTenantRequest, call: Call) -> pb.Tenant:
        return await self._change(call, request, request.name, request.etag, {"state": "ACTIVE"}, topic=Topic.IDENTITY)

    async def delete_tenant(self, request: pb.DeleteTenantRequest, call: Call) -> pb.Tenant:
        days = request.retention_days if request.HasField("retention_days") else DEFAULT_RETENTION_DAYS

        async def act(session: AsyncSession) -> Change[pb.Tenant]:
            row = await _locked(session, request.name, request.etag)
            if row.deleted_at is not None:
                raise ResourceNotFound(name=request.name)
            return await _changed(session, row, await lives.deletion(session, row, retention_days=days))

        return await self._run(call, request, act, Topic.IDENTITY)

    async def undelete_tenant(self, request: pb.UndeleteTenantRequest, call: Call) -> pb.Tenant:
        async def act(session: AsyncSession) -> Change[pb.Tenant]:
            row = await _locked(session, request.name, request.etag)
            return await _changed(session, row, await lives.undeletion(session, row))

        return await self._run(call, request, act, Topic.IDENTITY)

    async def _change(
        self, call: Call, request: MutationRequest, text: str, tag: str, values: Mapping[str, object], *, topic: Topic
    ) -> pb.Tenant:
        async def act(session: AsyncSession) -> Change[pb.Tenant]:
            row = await _locked(session, text, tag, is_state="state" in values)
            if row.deleted_at is not None:
                raise ResourceNotFound(name=text)
            return await _changed(session, row, values)

        return await self._run(call, request, act, topic)

    async def _run(self, call: Call, request: MutationRequest, act: Act[pb.Tenant], topic: Topic) -> pb.Tenant:
        return await self._mutations.run(call, request, pb.Tenant, act, topic)


async def _locked(session: AsyncSession, text: str, tag: str, *, is_state: bool = True) -> TenantRow:
    """Return a tenant that may be changed; the platform's own has one state for ever."""
    name = TenantName.parse(text)
    if name.tenant == PLATFORM and is_state:
        raise ResourceInUse(name=text, used_by="the administrators of the platform")
    row = await store.get_tenant(session, name, lock=True)
    check_version(row, version_of(tag, text), text)
    return row


async def _changed(session: AsyncSession, row: TenantRow, values: Mapping[str, object]) -> Change[pb.Tenant]:
    before = tenant_message(row)
    after = tenant_message(await change(session, row, **values))
    return Change(resource=after.name, before=before, after=after, answer=after)


def checked_zone(zone: str) -> str:
    """Return an IANA time zone's name.

    Raises:
        InvalidRequest: there is no such zone.
    """
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise invalid("tenant.time_zone", "is not an IANA time zone such as Europe/Berlin") from None
    return zone


def checked_start_day(day: int) -> int:
    """Return a day on which fiscal months can begin.

    Raises:
        InvalidRequest: some month is without it.
    """
    # No month is without a 28th, so every fiscal month begins on its day.
    if not 1 <= day <= 28:
        raise invalid("tenant.fiscal_month_start_day", "must be a day from 1 to 28")
    return day


def tenant_message(row: TenantRow) -> pb.Tenant:
    """Return a tenant as callers see it."""
    return pb.Tenant(
        name=str(TenantName(row.tenant_id)),
        display_name=row.display_name,
        time_zone=row.time_zone,
        fiscal_month_start_day=row.fiscal_month_start_day,
        state=pb.Tenant.State.Value(f"STATE_{row.state}"),
        create_time=timestamp(row.created_at),
        update_time=timestamp(row.updated_at),
        delete_time=timestamp(row.deleted_at),
        purge_time=timestamp(row.purge_at),
        etag=etag(row.version),
    )
