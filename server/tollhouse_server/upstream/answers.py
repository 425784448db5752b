"""Reading answers: JSON objects and events out of bytes; whatever is wrong with a success may have been charged."""

from collections.abc import AsyncGenerator
from typing import Any

import orjson

from tollhouse_server.upstream.http import HttpAnswer
from tollhouse_server.upstream.protocol import Broken, Refused
from tollhouse_server.upstream.sse import EventSplitter


async def read_object(answer: HttpAnswer) -> dict[str, Any]:
    """Return a unary answer.

    Raises:
        Refused: the status is another than 200.
        Broken: the answer is not a JSON object, or not whole.
    """
    body = await answer.read()
    if answer.status != 200:
        raise Refused(answer.status, error_body(body))
    return parse(body)


async def read_events(answer: HttpAnswer) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the JSON object of each server-sent event.

    Raises:
        Refused: the status is another than 200.
        Broken: an event is not a JSON object, or the stream ends in the middle of one.
    """
    if answer.status != 200:
        raise Refused(answer.status, error_body(await answer.read()))
    splitter = EventSplitter()
    async for piece in answer.pieces():
        for event in split(splitter, piece):
            yield parse(event)
    if not splitter.is_empty:
        raise Broken("the stream ended in the middle of an event")


def split(splitter: EventSplitter, piece: bytes) -> list[bytes]:
    """Return the data of the events that a piece of the answer completes.

    Raises:
        Broken: an event is too large.
    """
    try:
        return splitter.feed(piece)
    except ValueError as error:
        raise Broken(str(error)) from None


def parse(body: bytes) -> dict[str, Any]:
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


def error_body(body: bytes) -> dict[str, Any]:
    """Parse the body of a refusal; whatever is no JSON object is empty."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return parsed if isinstance(parsed, dict) else {}
