"""Callers of one RPC that cost next to nothing: HTTP/2 by hand, so that half a core can keep a server busy.

`python -m tests.bench.governed_load` reads a Load as JSON from standard input and writes a Told as JSON. Every caller
has one call under way on a connection that he shares with seven others; requests are the same bytes each time. It knows
enough of HTTP/2 to load one server of ours, and of a call's end only whether a message came before it.
"""

import asyncio
import base64
import re
import struct
import time
from dataclasses import dataclass
from functools import partial
from typing import cast

from tests.bench.tally import Load, Tally, Told, run_callers

_SHARED_BY = 8
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_LARGEST_WINDOW = 2**31 - 1
_FRAME_BYTES = 9
_TEXTS = re.compile(rb"[ -~]{4,}")


@dataclass(slots=True)
class _Way:
    """One call under way."""

    began_at: float
    first_at: float = 0.0
    frames: int = 0


class _Connection(asyncio.Protocol):
    """One connection with some callers on it."""

    def __init__(self, tally: Tally, request: tuple[bytes, bytes], callers: int) -> None:
        self._tally, self._request, self._callers = tally, request, callers
        self._ways: dict[int, _Way] = {}
        self._next_id = 1
        self._buffer = b""
        self._unsaid_bytes = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        settings = struct.pack(">HIHI", 2, 0, 4, _LARGEST_WINDOW)
        window = _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _LARGEST_WINDOW - 65535))
        self._transport.write(_PREFACE + _frame(_SETTINGS, 0, 0, settings) + window)
        for _ in range(self._callers):
            self._call()

    def connection_lost(self, _: Exception | None) -> None:
        self._tally.failed("connection lost", len(self._ways))
        if not self.done.done():
            self.done.set_result(None)

    def _call(self) -> None:
        now = time.perf_counter()
        if now >= self._tally.ends_at:
            if not self._ways:
                self._transport.close()
            return
        stream, self._next_id = self._next_id, self._next_id + 2
        self._ways[stream] = _Way(now)
        identity = struct.pack(">I", stream)
        head, body = self._request
        self._transport.write(head[:5] + identity + head[9:] + body[:5] + identity + body[9:])

    def data_received(self, data: bytes) -> None:
        buffer, at = self._buffer + data, 0
        while len(buffer) - at >= _FRAME_BYTES:
            length = int.from_bytes(buffer[at : at + 3], "big")
            if len(buffer) - at < _FRAME_BYTES + length:
                break
            stream = int.from_bytes(buffer[at + 5 : at + 9], "big")
            self._on_frame(buffer[at + 3], buffer[at + 4], stream, buffer[at + 9 : at + 9 + length])
            at += _FRAME_BYTES + length
        self._buffer = buffer[at:]

    def _on_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _SETTINGS and not flags & _ACK:
            self._transport.write(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self._transport.write(_frame(_PING, _ACK, 0, payload))
        elif kind == _DATA:
            self._on_data(stream, len(payload))
        elif kind == _RST_STREAM and stream in self._ways:
            self._ways[stream].frames = 0
        elif kind == _GOAWAY:
            self._transport.close()
        ends = kind == _RST_STREAM or (kind in (_DATA, _HEADERS) and flags & _END_STREAM)
        # A server that has ended a call before it has read all of it resets the stream after that.
        if ends and stream in self._ways:
            self._ended(self._ways.pop(stream), payload)
            self._call()

    def _on_data(self, stream: int, size: int) -> None:
        way = self._ways[stream]
        if size:
            way.frames += 1
            way.first_at = way.first_at or time.perf_counter()
        self._unsaid_bytes += size
        if self._unsaid_bytes > _LARGEST_WINDOW // 2:
            self._transport.write(_frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", self._unsaid_bytes)))
            self._unsaid_bytes = 0

    def _ended(self, way: _Way, last: bytes) -> None:
        if way.frames:
            self._tally.answered(began_at=way.began_at, first_at=way.first_at, messages=way.frames)
        else:
            # gRPC writes trailers without Huffman's code: their texts can be read.
            self._tally.failed(" ".join(text.decode() for text in _TEXTS.findall(last)) or "no message")


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def _literal(name: str, value: str) -> bytes:
    """Return a header field that no table remembers (RFC 7541, 6.2.2)."""
    return b"\x00" + _string(name.encode()) + _string(value.encode())


def _string(value: bytes) -> bytes:
    if len(value) < 127:
        return bytes((len(value),)) + value
    rest, encoded = len(value) - 127, bytearray(b"\x7f")
    while rest >= 128:
        encoded.append(rest % 128 + 128)
        rest //= 128
    encoded.append(rest)
    return bytes(encoded) + value


def _request(load: Load) -> tuple[bytes, bytes]:
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": load.path,
        ":authority": load.target,
        "te": "trailers",
        "content-type": "application/grpc",
        **load.metadata,
    }
    message = base64.b64decode(load.body)
    data = b"\x00" + struct.pack(">I", len(message)) + message
    head = _frame(_HEADERS, _END_HEADERS, 0, b"".join(_literal(*pair) for pair in fields.items()))
    return head, _frame(_DATA, _END_STREAM, 0, data)


async def send(load: Load) -> Told:
    """Load the server until the time is up and every call has ended."""
    loop = asyncio.get_running_loop()
    host, _, port = load.target.rpartition(":")
    tally, request = Tally(load), _request(load)
    tally.begin()
    opened = []
    for first in range(0, load.callers, _SHARED_BY):
        callers = min(_SHARED_BY, load.callers - first)
        _, connection = await loop.create_connection(partial(_Connection, tally, request, callers), host, int(port))
        opened.append(connection)
    await asyncio.gather(*(one.done for one in opened))
    return tally.end()


if __name__ == "__main__":
    run_callers(send)
