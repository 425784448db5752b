"""BoundLabelService: labels that no caller can forge."""

from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import bound_labels_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.charge_dates import optional_month
from tollhouse_server.api.limit_scopes import require_limit_scope
from tollhouse_server.api.mutation import Change, Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.values import etag, timestamp, version_of
from tollhouse_server.chargeback.charge_tables import BoundLabelsRow
from tollhouse_server.chargeback.free_label_store import count_values, list_labels
from tollhouse_server.chargeback.label_bounds import month_now
from tollhouse_server.chargeback.label_store import labels_of, write_labels
from tollhouse_server.chargeback.labels import holder_of
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import Topic
from tollhouse_server.names import ProjectKeyName, ProjectName, TenantName, invalid
from tollhouse_server.reporting.store import begin_snapshot

_TAIL = "/boundLabels"


class BoundLabelService:
    """Reads and writes bound labels."""

    def __init__(self, database: Database, mutations: Mutations, pages: PageTokens, *, most_values: int) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages
        self._most_values = most_values

    async def get_bound_labels(self, request: pb.GetBoundLabelsRequest, call: Call) -> pb.BoundLabels:
        holder = _holder(request.name, "name")
        async with self._database.within(call.domain) as session:
            await require_limit_scope(session, str(holder), "name")
            return _message(request.name, await labels_of(session, holder.tenant, holder_of(holder)))

    async def update_bound_labels(self, request: pb.UpdateBoundLabelsRequest, call: Call) -> pb.BoundLabels:
        asked, field = request.bound_labels, "bound_labels.name"
        holder = _holder(asked.name, field)
        version = version_of(asked.etag, asked.name)
        if any("\0" in value for value in asked.labels.values()):
            raise invalid("bound_labels.labels", "must not have a NUL character")

        async def act(session: AsyncSession) -> Change[pb.BoundLabels]:
            await require_limit_scope(session, str(holder), field)
            key = holder_of(holder)
            before = _message(asked.name, await labels_of(session, holder.tenant, key))
            row = await write_labels(session, holder.tenant, key, asked.labels, expected_version=version)
            after = _message(asked.name, row)
            return Change(resource=asked.name, before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.BoundLabels, act, Topic.LABELS)

    async def list_free_labels(self, request: pb.ListFreeLabelsRequest, call: Call) -> pb.ListFreeLabelsResponse:
        tenant = TenantName.parse(request.parent, "parent").tenant
        month = optional_month(request.month, "month") or month_now()
        async with self._database.within(call.domain, begin=begin_snapshot) as session:
            size, after = self._pages.size(request), self._pages.after(request)
            rows = await list_labels(session, tenant, month, after=after, size=size + 1)
            total = await count_values(session, tenant, month)
        page, last = self._pages.split(request, rows)
        return pb.ListFreeLabelsResponse(
            free_labels=[pb.FreeLabel(label=row.label, value_count=row.values) for row in page],
            next_page_token=self._pages.next(request, last.label) if last else "",
            value_count=total,
            most_values=self._most_values,
        )


def _holder(name: str, field: str) -> ProjectName | ProjectKeyName:
    held = name.removesuffix(_TAIL)
    return ProjectKeyName.parse(held, field) if "/apiKeys/" in held else ProjectName.parse(held, field)


def _message(name: str, row: BoundLabelsRow | None) -> pb.BoundLabels:
    if row is None:
        return pb.BoundLabels(name=name, etag=etag(0))
    return pb.BoundLabels(name=name, labels=row.labels, update_time=timestamp(row.updated_at), etag=etag(row.version))
