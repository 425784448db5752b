"""The metrics port: /metrics for Prometheus, /healthz and /readyz for whoever starts and routes to this server."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from tollhouse_server.telemetry.exposition import OPENMETRICS, TEXT, Exposition

_MOST_CONNECTIONS: Final = 64
"""More than that nobody needs: each is a file that the supervisor may not have left for a process to be started."""

_SHUTDOWN_SECONDS: Final = 1.0
"""How long a server that ends waits for those who have not read their answer."""

_LOGGER: Final = "tollhouse_server.metrics_port"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """How a server is: `problems` keep it from serving, `remarks` do not."""

    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


Readiness = Callable[[], Awaitable[Condition]]
"""Looks how the server is now."""


async def always_ready() -> Condition:
    """Name nothing: for a server that has no readiness of its own."""
    return Condition()


@asynccontextmanager
async def serve_metrics(
    port: int, exposition: Exposition, *, host: str = "127.0.0.1", readiness: Readiness = always_ready
) -> AsyncIterator[int]:
    """Serve until the block is left; yield the port, which is a free one where 0 was asked for.

    Raises:
        OSError: the port is in use or may not be bound.
    """
    runner = web.AppRunner(
        _application(exposition, readiness),
        access_log=None,
        logger=_quiet_logger(),
        shutdown_timeout=_SHUTDOWN_SECONDS,
    )
    await runner.setup()
    server = runner.server
    assert server is not None  # noqa: S101 - it is set up

    def protocol() -> asyncio.BaseProtocol:
        # The oldest gives way: one that says nothing would keep its place for ever, and Prometheus connects again.
        for oldest in server.connections[: -_MOST_CONNECTIONS + 1]:
            if isinstance(oldest.transport, asyncio.Transport):
                # Not closed: that would wait for a reader who does not read.
                oldest.transport.abort()
        return server()

    try:
        listening = await asyncio.get_running_loop().create_server(protocol, host, port, reuse_address=True)
        try:
            yield int(listening.sockets[0].getsockname()[1])
        finally:
            # Not waited for: that it has no connections any more is for the runner to see to.
            listening.close()
    finally:
        await runner.cleanup()


def _quiet_logger() -> logging.Logger:
    """Return a logger that says what breaks here; what others send that is no HTTP, anybody could fill a disk with."""
    logger = logging.getLogger(_LOGGER)
    logger.addFilter(_is_of_ours)
    return logger


def _is_of_ours(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)


class _Renders:
    """Renders for all who ask meanwhile: many scrapes at once cost no more than one."""

    def __init__(self, exposition: Exposition) -> None:
        self._exposition = exposition
        self._running: dict[bool, asyncio.Future[bytes]] = {}

    async def render(self, *, openmetrics: bool) -> bytes:
        running = self._running.get(openmetrics)
        if running is None or running.done():
            # Reading the files of every process takes milliseconds; the loop has other things to do.
            work = partial(self._exposition.render, openmetrics=openmetrics)
            running = self._running[openmetrics] = asyncio.get_running_loop().run_in_executor(None, work)
        # Whoever hangs up does not take it from the others.
        return await asyncio.shield(running)


def _application(exposition: Exposition, readiness: Readiness) -> web.Application:
    renders = _Renders(exposition)

    async def metrics(request: web.Request) -> web.Response:
        # Only OpenMetrics has exemplars. Prometheus asks for it first, people and older collectors do not.
        openmetrics = "application/openmetrics-text" in request.headers.get("Accept", "")
        body = await renders.render(openmetrics=openmetrics)
        return web.Response(body=body, headers={"Content-Type": OPENMETRICS if openmetrics else TEXT})

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        condition = await readiness()
        lines = condition.problems or ("ok", *condition.remarks)
        return web.Response(text="".join(f"{line}\n" for line in lines), status=503 if condition.problems else 200)

    application = web.Application()
    application.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)])
    return application
