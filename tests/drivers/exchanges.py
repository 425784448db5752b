"""Exchanges over a transport, in one line."""

from contextlib import AbstractAsyncContextManager
from typing import Any

from tollhouse_server.upstream.http import HttpAnswer, Transport


def exchange(transport: Transport, url: str, **changes: Any) -> AbstractAsyncContextManager[HttpAnswer]:
    """Begin an exchange."""
    values: dict[str, Any] = {"headers": {"x-a": "b"}, "body": b"{}", "timeout_seconds": 5.0}
    return transport.exchange("POST", f"{url}/v1/x?y=z", **(values | changes))


async def ask(transport: Transport, url: str, **changes: Any) -> bytes:
    """Return the body of an answer."""
    async with exchange(transport, url, **changes) as given:
        return await given.read()
