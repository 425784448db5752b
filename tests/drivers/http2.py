"""Enough of HTTP/2 (RFC 9113) to be a rude client: frames by hand, header fields as literals without indexing."""

import struct
from collections.abc import Iterable

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING = 0, 1, 3, 4, 6
_END_STREAM, _END_HEADERS = 1, 4
_CANCEL = 8


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return one frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def settings() -> bytes:
    """Return an empty SETTINGS frame: everything as it is by default."""
    return frame(_SETTINGS, 0, 0, b"")


def ping(number: int) -> bytes:
    """Return a PING; its answer tells that the peer has come so far."""
    return frame(_PING, 0, 0, struct.pack(">Q", number))


def is_pong(kind: int, flags: int) -> bool:
    """Tell whether a frame answers a PING."""
    return kind == _PING and flags == 1


def request(stream: int, path: str, authority: str, metadata: Iterable[tuple[str, str]], message: bytes) -> bytes:
    """Return the frames of a whole gRPC request."""
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *metadata,
    ]
    block = b"".join(_literal(name, value) for name, value in fields)
    body = b"\0" + struct.pack(">I", len(message)) + message
    return frame(_HEADERS, _END_HEADERS, stream, block) + frame(_DATA, _END_STREAM, stream, body)


def reset(stream: int) -> bytes:
    """Return RST_STREAM with CANCEL."""
    return frame(_RST_STREAM, 0, stream, struct.pack(">I", _CANCEL))


def _literal(name: str, value: str) -> bytes:
    """Encode a field as a literal without indexing, new name, no Huffman code (RFC 7541, 6.2.2)."""
    return b"\0" + _text(name) + _text(value)


def _text(text: str) -> bytes:
    encoded = text.encode()
    return _integer(len(encoded)) + encoded


def _integer(value: int) -> bytes:
    """Encode an integer with a prefix of seven bits (RFC 7541, 5.1)."""
    if value < 127:
        return bytes([value])
    rest, encoded = value - 127, bytearray([127])
    while rest >= 128:
        encoded.append(rest % 128 + 128)
        rest //= 128
    return bytes(encoded + bytes([rest]))
