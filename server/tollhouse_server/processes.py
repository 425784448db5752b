"""The processes that a supervisor starts: what a worker and the housekeeper do from their start to their end."""

import asyncio

from tollhouse_server.garbage_collection import tune_garbage_collection
from tollhouse_server.parent import KILL_AFTER_DRAIN_SECONDS, say_ready
from tollhouse_server.settings import Settings
from tollhouse_server.supervisor import stop_on_signals
from tollhouse_server.wiring.housekeeper import open_housekeeper
from tollhouse_server.wiring.worker import open_worker


async def work(settings: Settings, ready_fd: int) -> None:
    """Be a worker until SIGTERM, then drain."""
    stop = asyncio.Event()
    stop_on_signals(stop, at_most_seconds=settings.drain_seconds + KILL_AFTER_DRAIN_SECONDS)
    async with open_worker(settings) as worker:
        tune_garbage_collection()
        say_ready(ready_fd)
        await stop.wait()
        await worker.drain(settings.drain_seconds)


async def keep_house(settings: Settings, ready_fd: int) -> None:
    """Be the housekeeper until SIGTERM."""
    stop = asyncio.Event()
    stop_on_signals(stop, at_most_seconds=KILL_AFTER_DRAIN_SECONDS)
    async with open_housekeeper(settings):
        say_ready(ready_fd)
        await stop.wait()
