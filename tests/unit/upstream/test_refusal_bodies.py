"""What servers say that refuse a call: whatever it is, it can be told, it is short, and it has no key of ours."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import orjson
import pytest
from tollhouse_server.api.statuses import status_of
from tollhouse_server.generation.refusals import quota_violations, refusal_of, retry_delay_seconds
from tollhouse_server.upstream.protocol import Broken, Destination, Method, Refused, UpstreamCall, UpstreamKind
from tollhouse_server.upstream.refusal_bodies import refusal_body
from tollhouse_server.upstream.upstreams import Upstreams, open_upstreams

from tests.drivers.wire import answer, answering

KEY = "relay-key-of-no-known-look"
A_CALLERS_TRAILERS_BYTES = 6_000


@pytest.fixture
async def upstreams() -> AsyncIterator[Upstreams]:
    """The clients of one process."""
    async with open_upstreams() as upstreams:
        yield upstreams


def call_to(url: str, kind: UpstreamKind) -> UpstreamCall:
    where = Destination(
        kind=kind, base_url=url, api_version="v1", model="m", project="p", region="global", egress_url=""
    )
    body = orjson.dumps({"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]})
    return UpstreamCall(
        attempt_id=uuid4(), destination=where, method=Method.GENERATE, body=body, timeout_seconds=5.0, key=KEY
    )


def _nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


@pytest.mark.parametrize("status", [400, 429])
@pytest.mark.parametrize(
    "error",
    [
        b'{"code":"many"}',
        b'{"code":99999999999}',
        b'{"code":null,"status":7,"message":[]}',
        b'{"details":[{"violations":5,"retryDelay":"' + b"9" * 400 + b's"}]}',
        b'{"details":[{"a":' + _nested(90) + b"}]}",
        b'{"details":[{"a":' + _nested(1000) + b"}]}",
        b'{"details":{"violations":[1]}}',
        b'{"status":"' + b"S" * 20_000 + b'","message":"' + b"m" * 20_000 + b'"}',
        b'{"message":"' + "č".encode() * 20_000 + b'"}',
        b'{"details":[' + b",".join([b'{"violations":[{"quotaId":"' + b"q" * 3000 + b'"}]}'] * 9) + b"]}",
        b'"boom"',
    ],
    ids=lambda error: error[:30].decode(),
)
def test_whatever_a_refusal_says_the_caller_can_be_told(error: bytes, status: int) -> None:
    """With a status of the right kind, small enough for the trailers of his gRPC."""
    refused = Refused(status, refusal_body(b'{"error":' + error + b"}", status))

    message = status_of(refusal_of([refused]), "an id")

    assert message.code == {400: 3, 429: 8}[status]
    assert message.ByteSize() < A_CALLERS_TRAILERS_BYTES
    assert all(isinstance(violation, dict) for violation in quota_violations(refused))
    assert (retry_delay_seconds(refused) or 0.0) <= 86_400.0


@pytest.mark.parametrize("kind", list(UpstreamKind))
@pytest.mark.parametrize("status", [400, 401, 429, 500])
async def test_a_server_that_quotes_the_key_is_not_quoted(
    upstreams: Upstreams, kind: UpstreamKind, status: int
) -> None:
    """Whatever the key looks like, and wherever in the body it stands."""
    error: dict[str, Any] = {"code": status, "message": f"bad {KEY}", "status": KEY, "details": [{KEY: f"x{KEY}x"}]}
    async with answering(answer(orjson.dumps({"error": error}), status=f"{status} No")) as server:
        with pytest.raises(Refused) as refused:
            await upstreams.call(call_to(server.url, kind))

    assert KEY not in repr((refused.value.body, str(refused.value)))


@pytest.mark.parametrize("kind", list(UpstreamKind))
async def test_a_refusal_is_not_read_without_end(upstreams: Upstreams, kind: UpstreamKind) -> None:
    """Megabytes of apology are no explanation: parsing them would hold up all other calls."""
    said = orjson.dumps({"error": {"code": 400, "message": "x" * 2_000_000}})
    async with answering(answer(said, status="400 No")) as server:
        with pytest.raises(Refused) as refused:
            await upstreams.call(call_to(server.url, kind))

    assert len(repr(refused.value.body)) < 1000


@pytest.mark.parametrize("kind", list(UpstreamKind))
@pytest.mark.parametrize("status", ["201 Created", "203 Non-Authoritative Information", "206 Partial Content"])
async def test_another_success_than_200_may_have_been_charged(
    upstreams: Upstreams, kind: UpstreamKind, status: str
) -> None:
    """A relay that changes answers says 203: nobody may take that for a refusal, which costs nothing."""
    async with answering(answer(b"{}", status=status)) as server:
        with pytest.raises(Broken):
            await upstreams.call(call_to(server.url, kind))
        with pytest.raises(Broken):
            [chunk async for chunk in upstreams.stream(call_to(server.url, kind))]
