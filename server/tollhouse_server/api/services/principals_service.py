"""PrincipalService: the people and services that act."""

from datetime import UTC, datetime

from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import principals_pb2 as pb

from tollhouse_server.access.store import delete_grant, grants_of
from tollhouse_server.api.call import Call
from tollhouse_server.api.masks import changed_fields
from tollhouse_server.api.mutation import Change, MutationRequest, Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.values import etag, timestamp, version_of
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import Topic
from tollhouse_server.database.rows import change, check_version
from tollhouse_server.names import PrincipalName, TenantName, invalid
from tollhouse_server.tenancy import store
from tollhouse_server.tenancy.tables import PrincipalRow


class PrincipalService:
    """Creates, reads, renames, disables, enables and deletes principals."""

    def __init__(self, database: Database, mutations: Mutations, pages: PageTokens) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages

    async def create_principal(self, request: pb.CreatePrincipalRequest, call: Call) -> pb.Principal:
        name = PrincipalName.parse(f"{request.parent}/principals/{request.principal_id}", "principal_id")
        if request.principal.kind == pb.Principal.KIND_UNSPECIFIED:
            raise invalid("principal.kind", "must be KIND_USER or KIND_SERVICE_ACCOUNT")

        async def act(session: AsyncSession) -> Change[pb.Principal]:
            row = PrincipalRow(
                tenant_id=name.tenant,
                principal_id=name.principal,
                kind=pb.Principal.Kind.Name(request.principal.kind).removeprefix("KIND_"),
                display_name=request.principal.display_name,
            )
            after = _message(await store.create_principal(session, row))
            return Change(resource=after.name, before=None, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Principal, act)

    async def get_principal(self, request: pb.GetPrincipalRequest, call: Call) -> pb.Principal:
        async with self._database.within(call.domain) as session:
            return _message(await store.get_principal(session, PrincipalName.parse(request.name)))

    async def list_principals(self, request: pb.ListPrincipalsRequest, call: Call) -> pb.ListPrincipalsResponse:
        async with self._database.within(call.domain) as session:
            rows = await store.list_principals(
                session,
                TenantName.parse(request.parent, "parent").tenant,
                after=self._pages.after(request),
                size=self._pages.size(request) + 1,
                show_deleted=request.show_deleted,
            )
        page, last = self._pages.split(request, rows)
        token = self._pages.next(request, last.principal_id) if last else ""
        return pb.ListPrincipalsResponse(principals=map(_message, page), next_page_token=token)

    async def update_principal(self, request: pb.UpdatePrincipalRequest, call: Call) -> pb.Principal:
        fields = changed_fields(request.principal, request.update_mask, ("display_name",))
        values = {field: getattr(request.principal, field) for field in fields}
        return await self._change(call, request, request.principal.name, request.principal.etag, values)

    async def disable_principal(self, request: pb.DisablePrincipalRequest, call: Call) -> pb.Principal:
        return await self._change(call, request, request.name, request.etag, {"state": "DISABLED"}, Topic.IDENTITY)

    async def enable_principal(self, request: pb.EnablePrincipalRequest, call: Call) -> pb.Principal:
        return await self._change(call, request, request.name, request.etag, {"state": "ACTIVE"}, Topic.IDENTITY)

    async def delete_principal(self, request: pb.DeletePrincipalRequest, call: Call) -> pb.Principal:
        values = {"state": "DELETED", "deleted_at": datetime.now(UTC)}
        return await self._change(call, request, request.name, request.etag, values, Topic.IDENTITY, Topic.ACCESS)

    async def _change(
        self, call: Call, request: MutationRequest, text: str, tag: str, values: dict[str, object], *topics: Topic
    ) -> pb.Principal:
        name = PrincipalName.parse(text)

        async def act(session: AsyncSession) -> Change[pb.Principal]:
            row = await store.active_principal(session, name)
            check_version(row, version_of(tag, text), text)
            before = _message(row)
            after = _message(await change(session, row, **values))
            if row.deleted_at is not None:
                for grant in await grants_of(session, name.tenant, name.principal):
                    await delete_grant(session, grant)
            return Change(resource=text, before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Principal, act, *topics)


def _message(row: PrincipalRow) -> pb.Principal:
    return pb.Principal(
        name=str(PrincipalName(row.tenant_id, row.principal_id)),
        display_name=row.display_name,
        kind=pb.Principal.Kind.Value(f"KIND_{row.kind}"),
        state=pb.Principal.State.Value(f"STATE_{row.state}"),
        create_time=timestamp(row.created_at),
        update_time=timestamp(row.updated_at),
        delete_time=timestamp(row.deleted_at),
        etag=etag(row.version),
    )
