"""The metrics port: /metrics for Prometheus, /healthz and /readyz for whoever starts and routes to this server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from tollhouse_server.telemetry.multiprocess import aggregated


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
        condition = await readiness()
        lines = condition.problems or ("ok", *condition.remarks)
        return web.Response(text="".join(f"{line}\n" for line in lines), status=503 if condition.problems else 200)

    application = web.Application()
    application.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)])
    return application
