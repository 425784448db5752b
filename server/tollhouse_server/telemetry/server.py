"""The metrics port: /metrics for Prometheus, /healthz and /readyz for whoever starts and routes to this server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from tollhouse_server.telemetry.multiprocess import aggregated

Readiness = Callable[[], Awaitable[tuple[str, ...]]]
"""Names what keeps this server from serving well; empty means ready."""


async def always_ready() -> tuple[str, ...]:
    """Name nothing: for a server that has no readiness of its own."""
    return ()


@asynccontextmanager
async def serve_metrics(
    port: int, directory: Path, *, host: str = "127.0.0.1", readiness: Readiness = always_ready
) -> AsyncIterator[int]:
    """Serve until the block is left; yield the port, which is a free one where 0 was asked for.

    Raises:
        OSError: the port is in use or may not be bound.
    """
    runner = web.AppRunner(_application(directory, readiness), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def _application(directory: Path, readiness: Readiness) -> web.Application:
    async def metrics(_: web.Request) -> web.Response:
        # Reading the files of every process takes milliseconds; the loop has other things to do.
        body = await asyncio.to_thread(aggregated, directory)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        problems = await readiness()
        text = "".join(f"{problem}\n" for problem in problems) or "ok\n"
        return web.Response(text=text, status=503 if problems else 200)

    application = web.Application()
    application.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)])
    return application
