"""Capture mode: the last raw requests, for tests of what goes over the wire. Keys appear as their id only."""

from __future__ import annotations

import base64
import re
from collections import deque
from typing import Any

from starlette.requests import Request

from tollhouse_server.simulator.keys import key_id

_SECRET_HEADERS = frozenset({"x-goog-api-key", "authorization"})
_KEY_PARAMETER = re.compile(r"(?<![\w-])(key|keyString)=([^&]*)")


class RequestsSeen:
    """The last `limit` requests; none when the limit is 0."""

    def __init__(self, limit: int) -> None:
        self._requests: deque[dict[str, Any]] = deque(maxlen=limit)

    def set_limit(self, limit: int) -> None:
        """Change how many are kept; 0 switches capture off."""
        self._requests = deque(self._requests, maxlen=limit)

    def add(self, request: Request, body: bytes) -> None:
        """Keep one request."""
        if self._requests.maxlen == 0:
            return
        query = _KEY_PARAMETER.sub(lambda found: f"{found[1]}=redacted:{key_id(found[2])}", request.url.query)
        headers = [[name, _redacted(name, value)] for name, value in request.headers.items()]
        entry: dict[str, Any] = {"method": request.method, "path": request.url.path, "query": query, "headers": headers}
        try:
            entry["body"] = body.decode()
        except UnicodeDecodeError:
            entry["body_base64"] = base64.b64encode(body).decode()
        self._requests.append(entry)

    def all(self) -> list[dict[str, Any]]:
        """Give those kept, oldest first."""
        return list(self._requests)


def _redacted(name: str, value: str) -> str:
    if name not in _SECRET_HEADERS:
        return value
    return f"redacted:{key_id(value.removeprefix('Bearer '))}"
