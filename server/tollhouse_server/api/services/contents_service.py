"""ContentService: what is kept of calls, for those who may read it, and its end."""

from google.protobuf.empty_pb2 import Empty
from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import contents_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.content_messages import (
    READERS,
    content_message,
    filter_of,
    policy_message,
    position_of,
    values_of,
)
from tollhouse_server.api.masks import changed_fields
from tollhouse_server.api.mutation import Change, Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.usage_requests import require_scope
from tollhouse_server.api.values import version_of
from tollhouse_server.api.witness import Witness
from tollhouse_server.audit.store import record
from tollhouse_server.content import store
from tollhouse_server.content.packing import unpacked
from tollhouse_server.content.tables import KeptContentRow
from tollhouse_server.content.terms import Part, context_of
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import Topic
from tollhouse_server.names import ContentName, ContentPolicyName, Scope, TenantName, invalid, parse_scope
from tollhouse_server.tenancy import store as tenancy
from tollhouse_server.vault.store import begin_destruction
from tollhouse_server.vault.tenant_keys import TenantKeys


class ContentService:
    """Says what is kept, opens it, deletes it."""

    def __init__(
        self, database: Database, mutations: Mutations, pages: PageTokens, *, keys: TenantKeys, witness: Witness
    ) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages
        self._keys = keys
        self._witness = witness

    async def get_content_policy(self, request: pb.GetContentPolicyRequest, call: Call) -> pb.ContentPolicy:
        tenant = _tenant_of(request.name, "name")
        async with self._database.within(call.domain) as session:
            return policy_message(await store.get_policy(session, tenant))

    async def update_content_policy(self, request: pb.UpdateContentPolicyRequest, call: Call) -> pb.ContentPolicy:
        policy = request.content_policy
        tenant = _tenant_of(policy.name, "content_policy.name")
        values = values_of(policy, changed_fields(policy, request.update_mask, READERS))
        version = version_of(policy.etag, policy.name)

        async def act(session: AsyncSession) -> Change[pb.ContentPolicy]:
            before = policy_message(await store.get_policy(session, tenant, lock=True))
            after = policy_message(await store.change_policy(session, tenant, values, version=version))
            return Change(resource=policy.name, before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.ContentPolicy, act, Topic.CONTENT)

    async def get_content(self, request: pb.GetContentRequest, call: Call) -> pb.Content:
        name = ContentName.parse(request.name)
        scope = _scope_in(request.scope, name.tenant)
        event = await self._witness.reading(call, request.name)
        async with self._database.within(call.domain) as session:
            row = await store.get_content(session, name, scope)
            # Before anything is opened: a reading that nobody can know of is none.
            await record(session, event)
        prompt = await self._opened(row, Part.PROMPT, row.prompt)
        answer = b"" if row.answer is None else await self._opened(row, Part.ANSWER, row.answer)
        return content_message(row, prompt=prompt, answer=answer)

    async def list_contents(self, request: pb.ListContentsRequest, call: Call) -> pb.ListContentsResponse:
        wanted = filter_of(request)
        async with self._database.within(call.domain) as session:
            await require_scope(session, wanted.scope)
            rows = await store.list_contents(
                session, wanted, after=position_of(self._pages.after(request)), size=self._pages.size(request) + 1
            )
        page, last = self._pages.split(request, rows)
        token = self._pages.next(request, f"{last.created_at.isoformat()} {last.attempt_id}") if last else ""
        return pb.ListContentsResponse(contents=map(content_message, page), next_page_token=token)

    async def delete_content(self, request: pb.DeleteContentRequest, call: Call) -> Empty:
        name = ContentName.parse(request.name)

        async def act(session: AsyncSession) -> Change[Empty]:
            row = await store.get_content(session, name, None)
            before = content_message(row)
            await store.delete_content(session, row)
            return Change(resource=request.name, before=before, after=None, answer=Empty())

        return await self._mutations.run(call, request, Empty, act)

    async def delete_contents(self, request: pb.DeleteContentsRequest, call: Call) -> pb.DeleteContentsResponse:
        wanted = filter_of(request)

        async def act(session: AsyncSession) -> Change[pb.DeleteContentsResponse]:
            await require_scope(session, wanted.scope)
            if request.validate_only:
                answer = pb.DeleteContentsResponse(deleted_count=await store.count_contents(session, wanted))
            else:
                deleted = await store.delete_contents(session, wanted)
                answer = pb.DeleteContentsResponse(deleted_count=deleted, has_more=deleted == store.MOST_DELETED)
            asked = pb.DeleteContentsRequest()
            asked.CopyFrom(request)
            return Change(resource=request.parent, before=asked, after=answer, answer=answer)

        return await self._mutations.run(call, request, pb.DeleteContentsResponse, act)

    async def erase_tenant_content(
        self, request: pb.EraseTenantContentRequest, call: Call
    ) -> pb.EraseTenantContentResponse:
        tenant = TenantName.parse(request.name)

        async def act(session: AsyncSession) -> Change[pb.EraseTenantContentResponse]:
            await tenancy.get_tenant(session, tenant)
            answer = pb.EraseTenantContentResponse(
                erased_count=await store.count_contents(session, store.ContentFilter(scope=tenant)),
                destroyed_keys=await begin_destruction(session, tenant.tenant),
            )
            return Change(resource=request.name, before=None, after=answer, answer=answer)

        answer = await self._mutations.run(call, request, pb.EraseTenantContentResponse, act)
        if not request.validate_only:
            # The act is on record and the keys are marked: should Vault fail now, the housekeeper goes on with it.
            await self._keys.finish_destruction(tenant.tenant)
        return answer

    async def _opened(self, row: KeptContentRow, part: Part, sealed: bytes) -> bytes:
        context = context_of(row.tenant_id, row.attempt_id, part)
        return unpacked(await self._keys.open(row.tenant_id, sealed, context=context))


def _tenant_of(name: str, field: str) -> TenantName:
    return TenantName(ContentPolicyName.parse(name, field).tenant)


def _scope_in(text: str, tenant: str) -> Scope | None:
    if not text:
        return None
    scope = parse_scope(text, "scope")
    if scope.tenant != tenant:
        raise invalid("scope", "must belong to the tenant that the request names")
    return scope
