"""gRPC's own part of a call over HTTP/2: messages in frames, the deadline, the status in trailers.

Source of the format: github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md.
"""

import re
import struct
import zlib
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeAlias
from urllib.parse import quote

from google.rpc import status_pb2

from tollhouse_server.errors import RequestTooLarge
from tollhouse_server.names import invalid

Receive: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]
Pairs: TypeAlias = list[tuple[bytes, bytes]]

ENCODINGS: Final = ("identity", "gzip", "deflate")
"""How a message may be compressed."""

PREFIX: Final = struct.Struct(">BI")
"""Before each message: whether it is compressed, and its length in bytes."""

_TIMEOUT: Final = re.compile(r"(\d{1,8})([HMSmun])")
_UNIT_SECONDS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_UNESCAPED: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_ZLIB_OR_GZIP: Final = zlib.MAX_WBITS | 32


class HungUp(Exception):
    """The caller is gone; whatever else is sent reaches nobody."""


def timeout_seconds(timeout: str) -> float:
    """Return how long a caller waits, of what he sent as `grpc-timeout`.

    Raises:
        InvalidRequest: it is no timeout.
    """
    found = _TIMEOUT.fullmatch(timeout)
    if found is None:
        raise invalid("", "grpc-timeout is up to eight digits and a unit, such as 500m")
    return int(found[1]) * _UNIT_SECONDS[found[2]]


def framed(message: bytes) -> bytes:
    """Return a message as it is sent, not compressed."""
    return PREFIX.pack(0, len(message)) + message


async def messages(receive: Receive, *, encoding: str, limit_bytes: int) -> AsyncIterator[bytes]:
    """Yield the messages of a call as they come.

    Raises:
        RequestTooLarge: the next one is longer than the limit; it is not read.
        InvalidRequest: they are not framed or compressed as they should be.
        HungUp: the caller is gone.
    """
    body = _Body(receive)
    while prefix := await body.take(PREFIX.size):
        if len(prefix) < PREFIX.size:
            raise invalid("", "the call ends within a message")
        is_compressed, size_bytes = PREFIX.unpack(prefix)
        if size_bytes > limit_bytes:
            raise RequestTooLarge(size_bytes=size_bytes, limit_bytes=limit_bytes)
        message = await body.take(size_bytes)
        if len(message) < size_bytes:
            raise invalid("", "the call ends within a message")
        yield _inflated(message, encoding, limit_bytes) if is_compressed else message


async def only_message(receive: Receive, *, encoding: str, limit_bytes: int) -> bytes:
    """Return the message of a call that has one; raise as `messages` does, and for another number of them."""
    event = await receive()
    body: bytes = event.get("body", b"")
    # Nearly every call is one piece of body; it is read here, the rest by the piece.
    if not event.get("more_body") and len(body) >= PREFIX.size and PREFIX.unpack_from(body) == (0, len(body) - 5):
        if len(body) - PREFIX.size > limit_bytes:
            raise RequestTooLarge(size_bytes=len(body) - PREFIX.size, limit_bytes=limit_bytes)
        return body[PREFIX.size :]
    first = None
    async for message in messages(_beginning_with(event, receive), encoding=encoding, limit_bytes=limit_bytes):
        if first is not None:
            raise invalid("", "the call has more than one message")
        first = message
    if first is None:
        raise invalid("", "the call has no message")
    return first


def _beginning_with(event: dict[str, Any], receive: Receive) -> Receive:
    waiting = [event]

    async def next_event() -> dict[str, Any]:
        return waiting.pop() if waiting else await receive()

    return next_event


class _Body:
    """The bytes of a request, by the count."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._pieces: list[bytes] = []
        self._size_bytes = 0
        self._has_more = True

    async def take(self, count: int) -> bytes:
        """Return so many bytes; fewer only at the end."""
        while self._size_bytes < count and self._has_more:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                raise HungUp
            self._pieces.append(event["body"])
            self._size_bytes += len(event["body"])
            self._has_more = event["more_body"]
        # One copy for a message in many pieces, and none beside it.
        joined = b"".join(self._pieces) if len(self._pieces) != 1 else self._pieces[0]
        taken = joined if len(joined) == count else joined[:count]
        self._pieces = [joined[count:]] if len(joined) > count else []
        self._size_bytes -= len(taken)
        return taken


def _inflated(message: bytes, encoding: str, limit_bytes: int) -> bytes:
    if encoding not in ENCODINGS[1:]:
        raise invalid("", "a message is compressed, and grpc-encoding does not say how")
    inflater = zlib.decompressobj(_ZLIB_OR_GZIP)
    try:
        # A byte more than is allowed tells that there is more, and a bomb takes no more memory than that.
        found = inflater.decompress(message, limit_bytes + 1)
    except zlib.error:
        raise invalid("", f"a message is not {encoding}") from None
    if len(found) > limit_bytes:
        raise RequestTooLarge(size_bytes=len(found), limit_bytes=limit_bytes)
    if not inflater.eof:
        raise invalid("", f"a message is not {encoding}")
    return found


def status_pairs(status: status_pb2.Status) -> Pairs:
    """Return what says how a call ended: the code, the sentence, and the whole status with its details."""
    pairs = [(b"grpc-status", b"%d" % status.code)]
    if status.message:
        pairs.append((b"grpc-message", quote(status.message, safe=_UNESCAPED).encode()))
    if status.details:
        pairs.append((b"grpc-status-details-bin", b64encode(status.SerializeToString()).rstrip(b"=")))
    return pairs
