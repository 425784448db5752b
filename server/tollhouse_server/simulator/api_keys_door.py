"""The REST paths of Google's API Keys API, version 2, as its client libraries use them."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

import orjson
from starlette.requests import Request
from starlette.responses import Response

from tollhouse_server.simulator import errors
from tollhouse_server.simulator.api_keys import KEY_TYPE, SERVICE, ApiKeys, ManagedKey
from tollhouse_server.simulator.bodies import read_body
from tollhouse_server.simulator.control import Struck, strike
from tollhouse_server.simulator.errors import GeminiError, JsonObject
from tollhouse_server.simulator.faults import FaultPlans
from tollhouse_server.simulator.keys import Caller, KeyBook
from tollhouse_server.simulator.requests_seen import RequestsSeen
from tollhouse_server.simulator.service_accounts import ServiceAccounts

PREFIX = "/v2/"
_KEYS = re.compile(
    r"^/v2/projects/(?P<project>[^/]+)/locations/global/keys(?:/(?P<key>[^/:]+)(?P<rest>/keyString|:undelete)?)?$"
)
_OPERATION = re.compile(r"^/v2/(?P<name>operations/[^/]+)$")
_LOOKUP = "/v2/keys:lookupKey"
_BODY_LIMIT_BYTES = 1024 * 1024
_PAGE_SIZE = 50
_PAGE_LIMIT = 300
_JSON = "application/json; charset=UTF-8"
# (HTTP method, with a key id?, rest of the path) -> RPC, which is what a fault plan names as `method`.
_METHODS = {
    ("POST", False, None): "CreateKey",
    ("GET", False, None): "ListKeys",
    ("GET", True, None): "GetKey",
    ("GET", True, "/keyString"): "GetKeyString",
    ("PATCH", True, None): "UpdateKey",
    ("DELETE", True, None): "DeleteKey",
    ("POST", True, ":undelete"): "UndeleteKey",
}


@dataclass(frozen=True, slots=True)
class _Operation:
    name: str
    done_at: float
    result: JsonObject

    def shown(self, now: float) -> JsonObject:
        if now < self.done_at:
            return {"name": self.name, "done": False}
        return {"name": self.name, "done": True, "response": {"@type": KEY_TYPE, **self.result}}


@dataclass(slots=True)
class ApiKeysDoor:
    """Answers the API Keys API. `operation_seconds`: how long a long-running operation runs."""

    keys: ApiKeys
    accounts: ServiceAccounts
    book: KeyBook
    faults: FaultPlans
    seen: RequestsSeen
    clock: Callable[[], float]
    operation_seconds: float = 0.0
    _operations: dict[str, _Operation] = field(default_factory=dict)

    async def answer(self, request: Request) -> Response:
        """Answer one request, refusals included."""
        try:
            return await self._answer(request)
        except GeminiError as refusal:
            return Response(orjson.dumps(refusal.body()), status_code=refusal.code, media_type=_JSON)

    async def _answer(self, request: Request) -> Response:
        body = await read_body(request, _BODY_LIMIT_BYTES)
        self.seen.add(request, body)
        path = request.url.path
        operation = _OPERATION.match(path)
        if operation is not None and request.method == "GET":
            return self._show_operation(request, operation["name"])
        if path == _LOOKUP and request.method == "GET":
            return self._look_up(request)
        found = _KEYS.match(path)
        method = _METHODS.get((request.method, bool(found and found["key"]), found["rest"] if found else None))
        if found is None or method is None:
            raise errors.path_not_found()
        call = _Call(request, body, self.keys.project(found["project"]), found["key"] or "")
        struck = strike(self.faults, self._caller(request, call.project), method)
        if struck.is_lost:
            return struck.deliver(b"{}")
        return self._run(method, call, struck)

    def _run(self, method: str, call: _Call, struck: Struck) -> Response:
        pages: dict[str, Callable[[_Call], JsonObject]] = {
            "CreateKey": self._create,
            "ListKeys": self._list,
            "GetKey": self._get,
            "GetKeyString": self._key_string,
            "UpdateKey": self._update,
            "DeleteKey": self._delete,
            "UndeleteKey": self._undelete,
        }
        return struck.deliver(orjson.dumps(pages[method](call)))

    def _caller(self, request: Request, project: str | None) -> Caller:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or not token:
            raise errors.credentials_missing(SERVICE)
        grant = self.accounts.admit(token, project=project, service=SERVICE)
        name = grant.private_key_id if grant else token
        key_id = self.book.admit_token(name, service=SERVICE, model="", vouched=grant is not None)
        return Caller(key_id, project or (grant.account.project if grant else ""))

    def _show_operation(self, request: Request, name: str) -> Response:
        strike(self.faults, self._caller(request, None), "GetOperation")
        operation = self._operations.get(name)
        if operation is None:
            raise errors.path_not_found()
        return _json(operation.shown(self.clock()))

    def _look_up(self, request: Request) -> Response:
        strike(self.faults, self._caller(request, None), "LookupKey")
        key = self.keys.lookup(request.query_params.get("keyString", ""))
        self._caller(request, key.project)
        return _json({"parent": key.name.rpartition("/keys/")[0], "name": key.name})

    def _create(self, call: _Call) -> JsonObject:
        key = self.keys.create(call.project, call.query("keyId"), call.message())
        # The real operation's result shows the key string, unlike every other answer.
        return self._operation(key, key.resource() | {"keyString": key.key_string})

    def _list(self, call: _Call) -> JsonObject:
        token, size = call.query("pageToken") or "0", call.query("pageSize") or "0"
        if not token.isdecimal() or not size.isdecimal():
            raise errors.invalid_argument("Invalid page token or page size.")
        start, limit = int(token), min(int(size) or _PAGE_SIZE, _PAGE_LIMIT)
        keys = self.keys.of_project(call.project, show_deleted=call.query("showDeleted") == "true")
        shown: JsonObject = {"keys": [key.resource() for key in keys[start : start + limit]]}
        return shown | ({"nextPageToken": str(start + limit)} if start + limit < len(keys) else {})

    def _get(self, call: _Call) -> JsonObject:
        return self.keys.get(call.project, call.key_id).resource()

    def _key_string(self, call: _Call) -> JsonObject:
        return {"keyString": self.keys.get(call.project, call.key_id).key_string}

    def _update(self, call: _Call) -> JsonObject:
        key = self.keys.get(call.project, call.key_id)
        mask = [each for each in (call.query("updateMask") or "").split(",") if each]
        self.keys.update(key, call.message(), [_camel(each) for each in mask])
        return self._operation(key, key.resource())

    def _delete(self, call: _Call) -> JsonObject:
        key = self.keys.get(call.project, call.key_id)
        self.keys.delete(key, call.query("etag"))
        return self._operation(key, key.resource())

    def _undelete(self, call: _Call) -> JsonObject:
        key = self.keys.get(call.project, call.key_id)
        self.keys.undelete(key)
        return self._operation(key, key.resource())

    def _operation(self, key: ManagedKey, result: JsonObject) -> JsonObject:
        number = key.name.split("/")[1]
        name = f"operations/akmf.p7-{number}-{uuid.uuid4()}"
        operation = _Operation(name, self.clock() + self.operation_seconds, result)
        self._operations[name] = operation
        return operation.shown(self.clock())


@dataclass(frozen=True, slots=True)
class _Call:
    request: Request
    body: bytes
    project: str
    key_id: str

    def query(self, name: str) -> str | None:
        return self.request.query_params.get(name)

    def message(self) -> JsonObject:
        try:
            parsed = orjson.loads(self.body or b"{}")
        except orjson.JSONDecodeError:
            raise errors.invalid_argument("Invalid JSON payload received. Unexpected token.") from None
        if not isinstance(parsed, dict):
            raise errors.invalid_argument("Invalid JSON payload received. Root element must be a message.")
        return parsed


def _camel(path: str) -> str:
    first, *rest = path.split("_")
    return first + "".join(each.capitalize() for each in rest)


def _json(shown: JsonObject) -> Response:
    return Response(orjson.dumps(shown), media_type=_JSON)
