"""JSON as it goes upstream."""

import json
from collections.abc import Mapping
from typing import Any

import orjson


def encoded(body: Mapping[str, Any] | list[Any], *, sort_keys: bool = False) -> bytes:
    """Return a body as UTF-8 JSON. Integers beyond 64 bits, which orjson refuses, take the standard library's way."""
    try:
        return orjson.dumps(body, option=orjson.OPT_SORT_KEYS if sort_keys else None)
    except TypeError:
        text = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=sort_keys)
        return text.encode()
