"""Work on the database that is done again and again beside all other, for as long as a process lives."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import structlog
from sqlalchemy.exc import DBAPIError

from tollhouse_server.errors import StoreUnavailable

_log = structlog.get_logger(__name__)


async def in_rounds(work: Callable[[], Awaitable[object]], name: str, *, pause_seconds: float) -> None:
    """Do `work` for ever; what an outage of the database keeps from being done is left to the next round."""
    while True:
        with postponing(name):
            await work()
        await asyncio.sleep(pause_seconds)


@contextmanager
def postponing(name: str) -> Iterator[None]:
    """Let an outage of the database end the block, and say so: what was not done there waits for another time."""
    try:
        yield
    except StoreUnavailable as error:
        _log.warning("work_postponed", work=name, detail=error.detail)
    except DBAPIError as error:
        # PostgreSQL is there and refuses it: somebody has to look.
        _log.error("work_refused", work=name, error=type(error.orig).__name__)
