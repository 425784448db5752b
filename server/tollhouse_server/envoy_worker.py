"""A worker inside Envoy: the application that Envoy loads once a process has become it."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tollhouse_server.garbage_collection import tune_garbage_collection, without_garbage_collection

# structlog loads rich where it is installed, 4 MB, for tracebacks at terminals; ours are text before it sees them.
sys.modules.setdefault("rich", None)  # type: ignore[arg-type]

# pyvoy loads this module by its name: nothing of ours runs before it that could do so. To load all without
# looking for garbage takes a sixth of the time less.
with without_garbage_collection():
    from tollhouse_server.api.transports import envoy_life
    from tollhouse_server.settings import Settings
    from tollhouse_server.wiring.worker import BuildTransport, Worker, open_worker


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Be a worker until SIGTERM, then drain."""
    await envoy_life.run(_opened, scope, receive, send)


@asynccontextmanager
async def _opened(settings: Settings, build: BuildTransport) -> AsyncIterator[Worker]:
    async with open_worker(settings, build) as worker:
        tune_garbage_collection()
        yield worker
