"""One door to all kinds: each call reaches the client of its kind."""

import ssl
from collections.abc import AsyncGenerator
from typing import Any
from uuid import uuid4

import pytest
from tollhouse_server.upstream.http import PooledTransport
from tollhouse_server.upstream.protocol import Destination, Method, Upstream, UpstreamCall, UpstreamKind
from tollhouse_server.upstream.tokens import AccessTokens
from tollhouse_server.upstream.upstreams import Upstreams, open_upstreams

from tests.drivers.wire import answer, answering


class Named:
    """A client that says its name."""

    def __init__(self, name: str) -> None:
        self._answer = {"name": name}

    async def call(self, call: UpstreamCall) -> dict[str, Any]:
        return self._answer | {"method": call.method}

    async def stream(self, call: UpstreamCall) -> AsyncGenerator[dict[str, Any], None]:
        yield self._answer | {"method": call.method}


def upstreams_of(clients: dict[UpstreamKind, Upstream]) -> Upstreams:
    """Build the door to these."""
    return Upstreams(clients, AccessTokens(PooledTransport(ssl.create_default_context()), token_urls=()))


def call_of(kind: UpstreamKind, url: str = "") -> UpstreamCall:
    """Build a call."""
    where = Destination(kind=kind, base_url=url, api_version="v1", model="m", project="p", region="r")
    body = b'{"contents":[{"role":"user","parts":[{"text":"Hello"}]}]}'
    return UpstreamCall(
        attempt_id=uuid4(), destination=where, method=Method.GENERATE, body=body, timeout_seconds=5.0, key="k"
    )


@pytest.mark.parametrize("kind", UpstreamKind)
async def test_the_client_of_the_kind_is_asked(kind: UpstreamKind) -> None:
    """Unary and streaming."""
    upstreams = upstreams_of({each: Named(each) for each in UpstreamKind})

    whole = await upstreams.call(call_of(kind))
    chunks = [chunk async for chunk in upstreams.stream(call_of(kind))]

    assert [whole, *chunks] == [{"name": kind, "method": Method.GENERATE}] * 2


async def test_a_kind_without_a_client_is_a_mistake() -> None:
    """No call is sent to another kind instead."""
    upstreams = upstreams_of({UpstreamKind.GEMINI_API: Named("gemini")})

    with pytest.raises(KeyError):
        await upstreams.call(call_of(UpstreamKind.VERTEX))


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (UpstreamKind.GEMINI_API, "/v1/models/m:generateContent"),
        (UpstreamKind.VERTEX, "/v1/projects/p/locations/r/publishers/google/models/m:generateContent"),
        (UpstreamKind.OPENAI_COMPATIBLE, "/v1/chat/completions"),
    ],
)
async def test_a_process_has_a_client_of_every_kind(kind: UpstreamKind, target: str) -> None:
    """Each speaks its own protocol over the same connections."""
    choice = b'{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"Hello"}}'
    said = b'{"candidates":[],"choices":[%b]}' % choice

    async with answering(answer(said)) as server, open_upstreams() as upstreams:
        await upstreams.call(call_of(kind, server.url))

    assert [seen.target for seen in server.seen] == [target]
