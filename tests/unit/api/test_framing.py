"""gRPC's frames, timeouts and statuses, as bytes."""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from google.rpc import code_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st
from tollhouse_server.api.transports.framing import (
    HungUp,
    Receive,
    framed,
    messages,
    only_message,
    status_pairs,
    timeout_seconds,
)
from tollhouse_server.errors import InvalidRequest, RequestTooLarge

LIMIT_BYTES = 10_000


def receiving(pieces: Sequence[bytes]) -> Receive:
    """Return what hands over a body in these pieces."""
    left = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces] or [{}]
    left[-1] = {"type": "http.request", "body": b"".join(pieces[-1:]), "more_body": False}
    events = iter(left)

    async def receive() -> dict[str, Any]:
        return next(events)

    return receive


def compressed(message: bytes) -> bytes:
    """Return a frame that says so."""
    return b"\x01" + len(message).to_bytes(4, "big") + message


@given(sent=st.lists(st.binary(max_size=40), max_size=5), cuts=st.lists(st.integers(0, 250), max_size=8))
async def test_messages_come_out_as_they_went_in_however_the_body_is_cut(sent: list[bytes], cuts: list[int]) -> None:
    """Frames and pieces of a body have nothing to do with each other."""
    body = b"".join(map(framed, sent))
    places = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    pieces = [body[start:end] for start, end in pairwise(places)]

    came = [message async for message in messages(receiving(pieces), encoding="gzip", limit_bytes=LIMIT_BYTES)]

    assert came == sent


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
async def test_a_compressed_message_is_read_up_to_the_limit(compress: Any) -> None:
    """What it becomes counts, not what it was."""
    fits, bomb = compressed(compress(b"0" * LIMIT_BYTES)), compressed(compress(b"0" * (LIMIT_BYTES + 1)))

    assert await only_message(receiving([fits]), encoding="gzip", limit_bytes=LIMIT_BYTES) == b"0" * LIMIT_BYTES
    with pytest.raises(RequestTooLarge):
        await only_message(receiving([bomb]), encoding="gzip", limit_bytes=LIMIT_BYTES)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0\0",
        framed(b"abc")[:-1],
        framed(b"a") * 2,
        compressed(b"no"),
        compressed(gzip.compress(b"x", mtime=0)[:-3]),
    ],
)
async def test_what_is_not_one_message_is_an_invalid_request(body: bytes) -> None:
    """None, a part of one, two, and one that is compressed otherwise than it says."""
    with pytest.raises(InvalidRequest):
        await only_message(receiving([body]), encoding="gzip", limit_bytes=LIMIT_BYTES)


async def test_a_message_that_is_too_large_is_refused_by_its_length() -> None:
    """Before it has come."""
    begin = (LIMIT_BYTES + 1).to_bytes(5, "big") + b"x"

    with pytest.raises(RequestTooLarge) as caught:
        await only_message(receiving([begin, b""]), encoding="gzip", limit_bytes=LIMIT_BYTES)

    assert (caught.value.size_bytes, caught.value.limit_bytes) == (LIMIT_BYTES + 1, LIMIT_BYTES)


async def test_a_caller_who_hangs_up_within_his_request_is_gone() -> None:
    """Nothing is made of what came."""
    came = {"type": "http.request", "body": b"\0\0", "more_body": True}
    events: Iterator[dict[str, Any]] = iter([came, {"type": "http.disconnect"}])

    async def receive() -> dict[str, Any]:
        return next(events)

    with pytest.raises(HungUp):
        await only_message(receive, encoding="gzip", limit_bytes=LIMIT_BYTES)


def test_timeouts_have_a_unit() -> None:
    """Up to eight digits and one letter."""
    said = {"1H": 3600, "2M": 120, "3S": 3, "500m": 0.5, "7u": 7e-6, "99999999n": 0.099999999}

    assert {text: timeout_seconds(text) for text in said} == pytest.approx(said)
    for bad in ("", "1", "s", "1s", "-1S", "123456789S", "1.5S"):
        with pytest.raises(InvalidRequest):
            timeout_seconds(bad)


def test_a_sentence_is_percent_encoded() -> None:
    """All but printable ASCII, and the percent sign; details come whole, in base64."""
    status = status_pb2.Status(code=code_pb2.NOT_FOUND, message="5 % of Ж\n")

    assert status_pairs(status) == [(b"grpc-status", b"5"), (b"grpc-message", b"5 %25 of %D0%96%0A")]
