"""DataPolicyService: what scopes let pass in prompts and answers, tried out on texts, and what was found in calls."""

import base64
import json
from datetime import datetime
from uuid import UUID

from google.protobuf.empty_pb2 import Empty
from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import data_policies_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.data_policy_messages import (
    DIRECTIONS,
    READERS,
    Digest,
    action_number,
    detector_message,
    finding_message,
    policy_message,
    policy_of,
)
from tollhouse_server.api.masks import changed_fields
from tollhouse_server.api.mutation import Change, Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.values import etag, timestamp, version_of
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import Topic
from tollhouse_server.dlp import finding_store, store
from tollhouse_server.dlp.detectors import detectors
from tollhouse_server.dlp.policy import DigestKey, Direction, screens_of
from tollhouse_server.dlp.store import DataScope
from tollhouse_server.dlp.tables import DataFindingRow, DataPolicyRow
from tollhouse_server.dlp.trial import trial
from tollhouse_server.names import DepartmentName, TenantName, invalid, parse_scope
from tollhouse_server.unhurried import unhurried

_SUFFIX = "/dataPolicy"


class DataPolicyService:
    """Reads, changes and tries policies, in force when every process has loaded them; `key` is for exceptions."""

    def __init__(self, database: Database, mutations: Mutations, pages: PageTokens, key: bytes) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages
        self._key = DigestKey(key)

    async def get_data_policy(self, request: pb.GetDataPolicyRequest, call: Call) -> pb.DataPolicy:
        scope = _scope(request.name, "name")
        async with self._database.within(call.domain) as session:
            return await _read(session, scope)

    async def update_data_policy(self, request: pb.UpdateDataPolicyRequest, call: Call) -> pb.DataPolicy:
        given = request.data_policy
        scope = _scope(given.name, "data_policy.name")
        fields = changed_fields(given, request.update_mask, READERS)
        version, digest = version_of(given.etag, given.name), Digest(self._key, scope.tenant)

        async def act(session: AsyncSession) -> Change[pb.DataPolicy]:
            row = await store.find_policy(session, scope, lock=True)
            before = _message(scope, row)
            policy = policy_of(given, fields, store.policy_of(row), digest)
            after = _message(scope, await store.put_policy(session, scope, policy, version=version))
            return Change(resource=given.name, before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.DataPolicy, act, Topic.DATA_POLICIES)

    async def delete_data_policy(self, request: pb.DeleteDataPolicyRequest, call: Call) -> Empty:
        scope = _scope(request.name, "name")
        version = version_of(request.etag, request.name)

        async def act(session: AsyncSession) -> Change[Empty]:
            before = await _read(session, scope)
            await store.delete_policy(session, scope, version=version)
            return Change(resource=request.name, before=before, after=None, answer=Empty())

        return await self._mutations.run(call, request, Empty, act, Topic.DATA_POLICIES)

    async def test_data_policy(self, request: pb.TestDataPolicyRequest, call: Call) -> pb.TestDataPolicyResponse:
        scope = _scope(request.name, "name")
        async with self._database.within(call.domain) as session:
            await store.find_policy(session, scope)
            policies = [policy for _, policy in await store.policies_above(session, scope)]
        screens = screens_of(scope.tenant, policies, self._key)
        is_answer = DIRECTIONS.get(request.direction) is Direction.ANSWER
        tried = await unhurried(trial(request.text, screens.answer if is_answer else screens.prompt))
        return pb.TestDataPolicyResponse(
            matches=[
                pb.TestDataPolicyResponse.Match(
                    detector=one.detector, action=action_number(one.action), start=one.start, end=one.end
                )
                for one in tried.matches
            ],
            masked_text=tried.masked_text,
            blocked=tried.is_blocked,
        )

    async def list_data_detectors(
        self, request: pb.ListDataDetectorsRequest, call: Call
    ) -> pb.ListDataDetectorsResponse:
        after = self._pages.after(request)
        found = [one for name, one in sorted(detectors().items()) if name > after]
        shown, last = self._pages.split(request, found[: self._pages.size(request) + 1])
        token = self._pages.next(request, last.name) if last is not None else ""
        return pb.ListDataDetectorsResponse(data_detectors=map(detector_message, shown), next_page_token=token)

    async def list_data_findings(self, request: pb.ListDataFindingsRequest, call: Call) -> pb.ListDataFindingsResponse:
        parent = _data_scope(request.parent, "parent")
        department = parent.department if isinstance(parent, DepartmentName) else ""
        before = _key_of(self._pages.after(request))
        size = self._pages.size(request) + 1
        async with self._database.within(call.domain) as session:
            rows = await finding_store.list_findings(
                session, parent.tenant, department_id=department, before=before, size=size
            )
        shown, last = self._pages.split(request, rows)
        token = self._pages.next(request, _position(last)) if last is not None else ""
        return pb.ListDataFindingsResponse(data_findings=map(finding_message, shown), next_page_token=token)


def _scope(name: str, field: str) -> DataScope:
    if not name.endswith(_SUFFIX):
        raise invalid(field, f"must be the name of a tenant or department and {_SUFFIX}")
    return _data_scope(name.removesuffix(_SUFFIX), field)


def _data_scope(name: str, field: str) -> DataScope:
    scope = parse_scope(name, field)
    if not isinstance(scope, TenantName | DepartmentName):
        raise invalid(field, "must be a tenant or a department")
    return scope


async def _read(session: AsyncSession, scope: DataScope) -> pb.DataPolicy:
    return _message(scope, await store.find_policy(session, scope))


def _message(scope: DataScope, row: DataPolicyRow | None) -> pb.DataPolicy:
    message = policy_message(store.policy_of(row))
    message.name = f"{scope}{_SUFFIX}"
    message.etag = etag(0 if row is None else row.version)
    if row is not None:
        moments = pb.DataPolicy(create_time=timestamp(row.created_at), update_time=timestamp(row.updated_at))
        message.MergeFrom(moments)
    return message


def _position(row: DataFindingRow) -> str:
    key = [row.found_at.isoformat(), str(row.request_id), row.direction, row.detector, row.action]
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


def _key_of(position: str) -> tuple[object, ...] | None:
    if not position:
        return None
    found_at, request_id, *rest = json.loads(base64.urlsafe_b64decode(position))
    return (datetime.fromisoformat(found_at), UUID(request_id), *rest)
