"""A server that says the same whatever it is asked: a process of its own, so that only the client's time is counted.

`python -m tests.bench.canned_gemini [certificate and key]` prints its port and serves until its standard input ends.
"""

import asyncio
import ssl
import sys
from typing import cast

import httptools
import orjson
import uvloop

CHUNKS = 50
_TEXT = "The bridge is 1,280 metres long between its towers and was opened to traffic in May. "
_USAGE = {"promptTokenCount": 12, "candidatesTokenCount": 310, "totalTokenCount": 322}


def _answer(text: str) -> bytes:
    candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP", "index": 0}
    return orjson.dumps({"candidates": [candidate], "usageMetadata": _USAGE, "modelVersion": "gemini-3.5-flash"})


def _head(*lines: bytes) -> bytes:
    return b"\r\n".join(
        [b"HTTP/1.1 200 OK", b"date: Tue, 10 Nov 2026 10:00:00 GMT", b"server: canned", *lines, b"", b""]
    )


_WHOLE = _answer(_TEXT * 15)
_UNARY = _head(b"content-type: application/json; charset=UTF-8", b"content-length: %d" % len(_WHOLE)) + _WHOLE
_EVENT = b"data: " + _answer(_TEXT) + b"\r\n\r\n"
_STREAM_HEAD = _head(b"content-type: text/event-stream", b"transfer-encoding: chunked")
_PIECE = b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT)


class _Canned(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._url = url

    def on_message_complete(self) -> None:
        if b":streamGenerateContent" not in self._url:
            self._transport.write(_UNARY)
            return
        self._transport.write(_STREAM_HEAD)
        self._pieces(CHUNKS)

    def _pieces(self, left: int) -> None:
        """Send a chunk a millisecond, so that the client gets them one by one as from a model."""
        if not left:
            self._transport.write(b"0\r\n\r\n")
            return
        self._transport.write(_PIECE)
        asyncio.get_running_loop().call_later(0.001, self._pieces, left - 1)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    context = None
    if len(sys.argv) > 1:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[1])
    server = await loop.create_server(_Canned, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - the parent reads it
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(_serve())
