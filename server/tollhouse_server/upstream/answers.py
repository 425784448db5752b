"""Reading answers: JSON objects and events out of bytes; whatever is wrong with a success may have been charged."""

from collections.abc import AsyncGenerator
from typing import Any

import orjson

from tollhouse_server.long_values import LONG_BYTES
from tollhouse_server.unhurried import unhurried
from tollhouse_server.upstream import long_answers
from tollhouse_server.upstream.http import HttpAnswer
from tollhouse_server.upstream.protocol import Broken, Refused
from tollhouse_server.upstream.refusal_bodies import read_refusal
from tollhouse_server.upstream.sse import EventSplitter

_OK = 200
_REDIRECTION = 300


async def read_object(answer: HttpAnswer, *, secret: str = "") -> dict[str, Any]:
    """Return a unary answer; `secret` is what a refusal must not quote.

    In a long one, long inline media are LongMedia.

    Raises:
        Refused: the status is no success.
        Broken: the answer is not a JSON object, or not whole.
    """
    if answer.status != _OK:
        await check_status(answer, secret=secret)
    pieces = await answer.collect()
    if sum(map(len, pieces)) > LONG_BYTES:
        return await unhurried(long_answers.parsed(pieces, parse))
    return parse(pieces[0] if len(pieces) == 1 else b"".join(pieces))


async def read_events(
    answer: HttpAnswer, *, secret: str = "", pause_seconds: float | None = None
) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the JSON object of each server-sent event; `secret` is what a refusal must not quote.

    From the first event on the server may keep silent for `pause_seconds`; None: as before it.

    Raises:
        Refused: the status is no success.
        Broken: an event is not a JSON object, or the stream ends in the middle of one.
    """
    await check_status(answer, secret=secret)
    splitter = EventSplitter()
    async for piece in answer.pieces():
        for event in split(splitter, piece):
            chunk = parse(event)
            if pause_seconds is not None:
                answer.bear_silence(pause_seconds)
            yield chunk
    if not splitter.is_empty:
        raise Broken("the stream ended in the middle of an event")


async def check_status(answer: HttpAnswer, *, secret: str) -> None:
    """Let an answer pass whose status is 200.

    Raises:
        Refused: the status is no success.
        Broken: it is another success, which nobody sends who did not do something for it.
    """
    if answer.status == _OK:
        return
    raise_if_success(answer.status)
    raise Refused(answer.status, await read_refusal(answer, secret=secret))


def raise_if_success(status: int) -> None:
    """Raise Broken for a status such as 203, which a relay gives an answer that it has changed."""
    if _OK <= status < _REDIRECTION:
        raise Broken(f"the upstream answered HTTP {status}")


def split(splitter: EventSplitter, piece: bytes) -> list[bytes]:
    """Return the data of the events that a piece of the answer completes.

    Raises:
        Broken: an event is too large.
    """
    try:
        return splitter.feed(piece)
    except ValueError as error:
        raise Broken(str(error)) from None


def parse(body: bytes | bytearray) -> dict[str, Any]:
    """Parse an answer that was sent as a success.

    Raises:
        Broken: it is not a JSON object.
    """
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Broken("the answer is not JSON") from None
    if not isinstance(parsed, dict):
        raise Broken("the answer is not a JSON object")
    return parsed
