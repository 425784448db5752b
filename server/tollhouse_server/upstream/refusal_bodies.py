"""The body of a refusal: read as far as it can tell something, of a shape to rely on, and without our key."""

from collections.abc import Mapping
from typing import Any

import orjson

from tollhouse_server.upstream.http import HttpAnswer

_MAX_BYTES = 256 * 1024
"""Google's are some kilobytes. What is longer explains nothing, and reading it through would stop all other calls."""
_DEEPEST = 20
_INT32 = range(-(2**31), 2**31)
_LEAST_SECRET = 6
"""A shorter key would be found in any sentence; no upstream gives such ones."""


async def read_refusal(answer: HttpAnswer, *, secret: str = "") -> dict[str, Any]:
    """Return the body of an answer that is no success, empty where it is no JSON object.

    Raises:
        Broken: it did not come whole.
    """
    pieces, size = [], 0
    async for piece in answer.pieces():
        pieces.append(piece)
        size += len(piece)
        if size > _MAX_BYTES:
            return {}
    return refusal_body(b"".join(pieces), answer.status, secret=secret)


def refusal_body(body: bytes, status: int, *, secret: str = "") -> dict[str, Any]:
    """Return the body of a refusal; an `error` that is an object has an int32 as its code and a list of details.

    `secret` stands nowhere in it: some servers quote the key that they refuse.
    """
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(parsed, dict):
        return {}
    tidy: dict[str, Any] = _tidy(parsed, secret if len(secret) >= _LEAST_SECRET else "", 0)
    error = tidy.get("error")
    return tidy | {"error": _status(error, status)} if isinstance(error, Mapping) else tidy


def _status(error: Mapping[str, Any], status: int) -> dict[str, Any]:
    """Return an error whose members are of the types that google.rpc.Status has, those that are given."""
    kept = dict(error)
    if "code" in kept and not (type(kept["code"]) is int and kept["code"] in _INT32):
        kept["code"] = status
    if "details" in kept and not isinstance(kept["details"], list):
        del kept["details"]
    return kept


def _tidy(value: Any, secret: str, depth: int) -> Any:
    if isinstance(value, str):
        return value.replace(secret, "[key]") if secret else value
    if not isinstance(value, dict | list):
        return value
    if depth == _DEEPEST:
        return None
    if isinstance(value, list):
        return [_tidy(inner, secret, depth + 1) for inner in value]
    return {_tidy(name, secret, depth): _tidy(inner, secret, depth + 1) for name, inner in value.items()}
