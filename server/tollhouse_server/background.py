"""The tasks that a process runs beside its work, for as long as it lives."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import structlog

Run: TypeAlias = Callable[[], Coroutine[Any, Any, None]]

_log = structlog.get_logger(__name__)


class Background:
    """Owns tasks that run for ever: one that fails ends the process, one that ends by a cancellation begins anew."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self.group = group

    def keep(self, run: Run) -> None:
        """Run `run` until the process ends."""
        self.group.create_task(keep(run))


async def keep(run: Run) -> None:
    """Run `run`, and run it again whenever a cancellation of its own, not of its owner's, has ended it."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(run())
        while await _is_cancelled_from_within(task):
            _log.error("task_begun_anew", task=repr(run))
            task = group.create_task(run())


async def _is_cancelled_from_within(task: asyncio.Task[None]) -> bool:
    """Wait for a task's end, and tell if a cancellation was it, such as the driver's: a task group takes no notice."""
    await asyncio.wait([task])
    return task.cancelled()


class _FinishedError(Exception):
    """The process has done its work."""


@asynccontextmanager
async def background() -> AsyncIterator[Background]:
    """Own the tasks of a process; leaving the block ends them all."""
    try:
        async with asyncio.TaskGroup() as group:
            yield Background(group)
            # The way to end a task group whose tasks run for ever.
            raise _FinishedError
    except* _FinishedError:
        pass
