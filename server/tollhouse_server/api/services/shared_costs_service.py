"""SharedCostService: costs that departments share."""

import secrets

from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import shared_costs_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.charge_dates import end_after, month_of, optional_month
from tollhouse_server.api.mutation import Change, Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.values import etag, money, nanos_of, timestamp, version_of, written
from tollhouse_server.chargeback import shared_cost_store as store
from tollhouse_server.chargeback.charge_tables import SharedCostRow
from tollhouse_server.chargeback.closed_month_store import require_open_months
from tollhouse_server.chargeback.shared_costs import Method
from tollhouse_server.database.engine import Database
from tollhouse_server.names import DepartmentName, SharedCostName, TenantName, invalid
from tollhouse_server.tenancy.store import require_active


class SharedCostService:
    """Begins, reads and ends shared costs."""

    def __init__(self, database: Database, mutations: Mutations, pages: PageTokens) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages

    async def create_shared_cost(self, request: pb.CreateSharedCostRequest, call: Call) -> pb.SharedCost:
        row = _new_cost(request, creator=call.principal.name)

        async def act(session: AsyncSession) -> Change[pb.SharedCost]:
            await require_active(session, TenantName(row.tenant_id))
            for department in sorted(row.shares):
                await require_active(session, DepartmentName(row.tenant_id, department))
            await require_open_months(session, request.parent, row.starts_on, row.ends_on)
            after = _message(await store.create_cost(session, row))
            return Change(resource=after.name, before=None, after=after, answer=after)

        return await self._mutations.run(call, request, pb.SharedCost, act)

    async def get_shared_cost(self, request: pb.GetSharedCostRequest, call: Call) -> pb.SharedCost:
        name = SharedCostName.parse(request.name)
        async with self._database.within(call.domain) as session:
            return _message(await store.get_cost(session, name))

    async def list_shared_costs(self, request: pb.ListSharedCostsRequest, call: Call) -> pb.ListSharedCostsResponse:
        async with self._database.within(call.domain) as session:
            rows = await store.list_costs(
                session,
                TenantName.parse(request.parent, "parent").tenant,
                month=optional_month(request.month, "month"),
                after=self._pages.after(request),
                size=self._pages.size(request) + 1,
            )
        page, last = self._pages.split(request, rows)
        token = self._pages.next(request, last.cost_id) if last else ""
        return pb.ListSharedCostsResponse(shared_costs=map(_message, page), next_page_token=token)

    async def end_shared_cost(self, request: pb.EndSharedCostRequest, call: Call) -> pb.SharedCost:
        name = SharedCostName.parse(request.name)
        version = version_of(request.etag, request.name)
        asked = month_of(request.end_month, "end_month")

        async def act(session: AsyncSession) -> Change[pb.SharedCost]:
            row = await store.get_cost(session, name, lock=True)
            before = _message(row)
            ends_on = end_after(asked, starts=row.starts_on, ended=row.ends_on, field="end_month")
            await require_open_months(session, request.name, ends_on, row.ends_on)
            after = _message(await store.end_cost(session, row, ends_on, expected_version=version))
            return Change(resource=request.name, before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.SharedCost, act)


def _new_cost(request: pb.CreateSharedCostRequest, *, creator: str) -> SharedCostRow:
    asked = request.shared_cost
    chosen = request.shared_cost_id or f"sc-{secrets.token_hex(8)}"
    name = SharedCostName.parse(f"{request.parent}/sharedCosts/{chosen}", "shared_cost_id")
    amount = nanos_of(asked.amount, "shared_cost.amount")
    if amount == 0:
        raise invalid("shared_cost.amount", "must not be zero")
    if not asked.method:
        raise invalid("shared_cost.method", "is required")
    method = Method(pb.SharedCostMethod.Name(asked.method).removeprefix("SHARED_COST_METHOD_"))
    starts_on = month_of(asked.start_month, "shared_cost.start_month")
    ends_on = optional_month(asked.end_month, "shared_cost.end_month")
    if ends_on is not None:
        end_after(ends_on, starts=starts_on, ended=None, field="shared_cost.end_month")
    return SharedCostRow(
        tenant_id=name.tenant,
        cost_id=name.shared_cost,
        display_name=written(asked.display_name, "shared_cost.display_name"),
        kind=pb.SharedCost.Kind.Name(asked.kind or pb.SharedCost.KIND_OTHER).removeprefix("KIND_"),
        amount_nanos=amount,
        method=method,
        shares=_shares(asked, method, name.tenant),
        reason=written(asked.reason, "shared_cost.reason"),
        starts_on=starts_on,
        ends_on=ends_on,
        creator=creator,
    )


def _shares(asked: pb.SharedCost, method: Method, tenant: str) -> dict[str, int]:
    field = "shared_cost.departments"
    shares: dict[str, int] = {}
    for entry in asked.departments:
        name = DepartmentName.parse(entry.department, f"{field}.department")
        if name.tenant != tenant or name.department in shares:
            raise invalid(f"{field}.department", "must be in the tenant, and each one once")
        if (entry.share > 0) != (method is Method.FIXED):
            raise invalid(f"{field}.share", "must be more than zero for FIXED, and absent for other methods")
        shares[name.department] = entry.share
    if method is Method.FIXED and not shares:
        raise invalid(field, "are required for FIXED")
    return shares


def _message(row: SharedCostRow) -> pb.SharedCost:
    departments = [
        pb.DepartmentShare(department=str(DepartmentName(row.tenant_id, department)), share=share)
        for department, share in sorted(row.shares.items())
    ]
    return pb.SharedCost(
        name=str(SharedCostName(row.tenant_id, row.cost_id)),
        display_name=row.display_name,
        kind=pb.SharedCost.Kind.Value(f"KIND_{row.kind}"),
        amount=money(row.amount_nanos),
        method=pb.SharedCostMethod.Value(f"SHARED_COST_METHOD_{row.method}"),
        departments=departments,
        reason=row.reason,
        start_month=f"{row.starts_on:%Y-%m}",
        end_month=f"{row.ends_on:%Y-%m}" if row.ends_on else "",
        creator=row.creator,
        create_time=timestamp(row.created_at),
        update_time=timestamp(row.updated_at),
        etag=etag(row.version),
    )
