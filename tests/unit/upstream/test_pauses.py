"""A stream that has begun may pause for longer than one may keep silent that has not, at every kind of upstream."""

import asyncio
import json

import pytest
from tollhouse_server.ledger.ledger import new_attempt_id
from tollhouse_server.upstream.protocol import Broken, Destination, Method, UpstreamCall, UpstreamKind
from tollhouse_server.upstream.upstreams import open_upstreams

from tests.drivers.wire import Server, Wire, serving

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
_GEMINI = [
    {"candidates": [{"content": {"parts": [{"text": "It is "}]}}]},
    {"candidates": [{"content": {"parts": [{"text": "long."}]}, "finishReason": "STOP"}]},
]
_OPENAI = [
    {"choices": [{"index": 0, "delta": {"content": "It is "}}]},
    {"choices": [{"index": 0, "delta": {"content": "long."}, "finish_reason": "stop"}]},
]


def events_of(kind: UpstreamKind) -> list[bytes]:
    """Return a stream of two events."""
    chunks = _OPENAI if kind is UpstreamKind.OPENAI_COMPATIBLE else _GEMINI
    end = [b"data: [DONE]\n\n"] if kind is UpstreamKind.OPENAI_COMPATIBLE else []
    return [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks] + end


def call_to(server: Server, kind: UpstreamKind) -> UpstreamCall:
    """Build a streaming call that bears little silence at first, and more of it later."""
    return UpstreamCall(
        attempt_id=new_attempt_id(),
        destination=Destination(
            kind=kind, base_url=server.url, api_version="v1", model="model", project="acme", region="europe-west4"
        ),
        method=Method.STREAM,
        body=json.dumps({"contents": [{"role": "user", "parts": [{"text": "How long?"}]}]}).encode(),
        timeout_seconds=10.0,
        silence_seconds=0.2,
        pause_seconds=0.8,
        key="token",
    )


@pytest.mark.parametrize("kind", UpstreamKind)
async def test_a_stream_may_pause_for_longer_than_it_may_take_to_begin(kind: UpstreamKind) -> None:
    """Nothing can take the place of a stream that has begun."""
    first, *rest = events_of(kind)

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.say(_HEAD, first)
        await asyncio.sleep(0.4)
        await wire.say(*rest)

    async with serving(script) as server, open_upstreams(token_urls=()) as upstreams:
        chunks = [chunk async for chunk in upstreams.stream(call_to(server, kind))]

    assert [part["text"] for chunk in chunks for part in chunk["candidates"][0]["content"]["parts"]] == [
        "It is ",
        "long.",
    ]


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("kind", UpstreamKind)
async def test_a_stream_that_never_goes_on_is_given_up(kind: UpstreamKind, begun: bool) -> None:
    """After the pause that it may make, and sooner where it has not begun."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.say(_HEAD, *events_of(kind)[:begun])
        await wire.reader.read()

    async with serving(script) as server, open_upstreams(token_urls=()) as upstreams:
        with pytest.raises(Broken, match=r"silent for 0\.8 s" if begun else r"silent for 0\.2 s"):
            assert [chunk async for chunk in upstreams.stream(call_to(server, kind))]
