"""JSON as it goes upstream."""

import json
from collections.abc import Mapping
from typing import Any, Final

import orjson

from tollhouse_server.long_values import Json, LongMedia, long_json

# A LongText is a str: nothing else in a body is of a kind that is derived from one of JSON's.
_PLAIN: Final = orjson.OPT_PASSTHROUGH_SUBCLASS
_SORTED: Final = orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_SORT_KEYS


def encoded(body: Mapping[str, Any] | list[Any], *, sort_keys: bool = False) -> Json:
    """Return a body as UTF-8 JSON, in pieces where it has something long.

    Integers beyond 64 bits, which orjson refuses, take the standard library's way.
    """
    option = _SORTED if sort_keys else _PLAIN
    try:
        return orjson.dumps(body, option=option)
    except TypeError:
        pass
    try:
        return long_json(body, option)
    except TypeError:
        text = json.dumps(
            body, default=_whole, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=sort_keys
        )
        return text.encode()


def _whole(value: object) -> str:
    if isinstance(value, LongMedia):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
