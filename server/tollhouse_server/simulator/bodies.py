"""Reading a request's body, up to a limit."""

from __future__ import annotations

from starlette.requests import Request

from tollhouse_server.simulator import errors


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """Read the whole body, or raise a 400 when it is larger."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit_bytes:
            raise errors.invalid_argument(f"Request payload size exceeds the limit: {limit_bytes} bytes.")
        parts.append(part)
    return b"".join(parts)
