"""The metrics port: /metrics for Prometheus, /healthz and /readyz for whoever starts and routes to this server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from aiohttp import web

from tollhouse_server.telemetry.exposition import OPENMETRICS, TEXT, Exposition


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
    runner = web.AppRunner(_application(exposition, readiness), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def _application(exposition: Exposition, readiness: Readiness) -> web.Application:
    async def metrics(request: web.Request) -> web.Response:
        # Only OpenMetrics has exemplars. Prometheus asks for it first, people and older collectors do not.
        openmetrics = "application/openmetrics-text" in request.headers.get("Accept", "")
        # Reading the files of every process takes milliseconds; the loop has other things to do.
        body = await asyncio.to_thread(partial(exposition.render, openmetrics=openmetrics))
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
