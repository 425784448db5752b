"""A server that says the same whatever it is asked: a process of its own, so that only the client's time is counted.

`python -m tests.bench.canned_gemini [certificate and key]` prints its port and serves until its standard input ends. A
line there is a Manner as JSON, which it takes on and says `ok`. It answers as Gemini, or as OpenAI where asked so.
"""

import asyncio
import base64
import json
import os
import ssl
import sys
from dataclasses import dataclass
from functools import cache, partial
from typing import cast

import httptools
import orjson
import uvloop

CHUNKS = 50
_TEXT = "The bridge is 1,280 metres long between its towers and was opened to traffic in May. "
_USAGE = {"promptTokenCount": 12, "candidatesTokenCount": 310, "totalTokenCount": 322}
_OPENAI_USAGE = {"prompt_tokens": 12, "completion_tokens": 310, "total_tokens": 322}


@dataclass(slots=True, kw_only=True)
class Manner:
    """How it answers: after what delay, in how many chunks where they stream, and how far apart these are.

    A millisecond apart the client gets them one by one, as from a model. With `pictures` its unary answer has so many,
    and no text.
    """

    delay_seconds: float = 0.0
    chunks: int = CHUNKS
    pause_seconds: float = 0.001
    pictures: int = 0
    picture_bytes: int = 0


def _answer(text: str) -> bytes:
    candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP", "index": 0}
    return orjson.dumps({"candidates": [candidate], "usageMetadata": _USAGE, "modelVersion": "gemini-3.5-flash"})


@cache
def _pictures(count: int, size_bytes: int) -> bytes:
    parts = [
        {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(os.urandom(size_bytes)).decode()}}
        for _ in range(count)
    ]
    candidate = {"content": {"role": "model", "parts": parts}, "finishReason": "STOP", "index": 0}
    return _whole(
        orjson.dumps({"candidates": [candidate], "usageMetadata": _USAGE, "modelVersion": "gemini-3.5-flash"})
    )


def _completion(text: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    said = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "canned", "choices": [choice]}
    return orjson.dumps({**said, "usage": _OPENAI_USAGE})


def _head(*lines: bytes) -> bytes:
    return b"\r\n".join(
        [b"HTTP/1.1 200 OK", b"date: Tue, 10 Nov 2026 10:00:00 GMT", b"server: canned", *lines, b"", b""]
    )


def _whole(body: bytes) -> bytes:
    return _head(b"content-type: application/json; charset=UTF-8", b"content-length: %d" % len(body)) + body


UNARY = _whole(_answer(_TEXT * 15))
_OPENAI = _whole(_completion(_TEXT * 15))
_EVENT = b"data: " + _answer(_TEXT) + b"\r\n\r\n"
STREAM_HEAD = _head(b"content-type: text/event-stream", b"transfer-encoding: chunked")
STREAM_PIECE = b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT)


class _Canned(asyncio.Protocol):
    """One connection."""

    def __init__(self, manner: Manner) -> None:
        self._manner = manner

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._url = url

    def on_message_complete(self) -> None:
        if self._manner.delay_seconds:
            asyncio.get_running_loop().call_later(self._manner.delay_seconds, self._answer, self._url)
        else:
            self._answer(self._url)

    def _answer(self, url: bytes) -> None:
        if b":streamGenerateContent" in url:
            self._transport.write(STREAM_HEAD)
            self._pieces(self._manner.chunks)
        elif self._manner.pictures:
            self._transport.write(_pictures(self._manner.pictures, self._manner.picture_bytes))
        else:
            self._transport.write(_OPENAI if url.endswith(b"/chat/completions") else UNARY)

    def _pieces(self, left: int) -> None:
        if not left:
            self._transport.write(b"0\r\n\r\n")
            return
        self._transport.write(STREAM_PIECE)
        asyncio.get_running_loop().call_later(self._manner.pause_seconds, self._pieces, left - 1)


def _obey(manner: Manner) -> None:
    """Take on what is read until there is no more."""
    for line in sys.stdin:
        for name, value in json.loads(line).items():
            setattr(manner, name, value)
        print("ok", flush=True)  # noqa: T201 - the parent waits for it


async def _serve() -> None:
    loop, manner = asyncio.get_running_loop(), Manner()
    context = None
    if len(sys.argv) > 1:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[1])
    server = await loop.create_server(partial(_Canned, manner), "127.0.0.1", 0, ssl=context, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - the parent reads it
    await loop.run_in_executor(None, _obey, manner)


if __name__ == "__main__":
    uvloop.run(_serve())
