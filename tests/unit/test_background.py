"""Tasks beside the work of a process: begun anew, failing, ended with it."""

import asyncio

import pytest
from tollhouse_server.background import background


async def test_a_task_that_cancels_itself_begins_anew() -> None:
    """A driver may let a cancellation of its own out; without its task the process would only seem to live."""
    begun = list[asyncio.Task[None] | None]()
    runs_on = asyncio.Event()

    async def watch() -> None:
        begun.append(asyncio.current_task())
        if len(begun) == 1:
            raise asyncio.CancelledError
        if len(begun) == 2:
            asyncio.get_running_loop().call_soon(cancel, begun[1])
            await asyncio.sleep(10)
        runs_on.set()
        await asyncio.sleep(10)

    def cancel(task: asyncio.Task[None] | None) -> None:
        assert task is not None
        task.cancel()

    async with asyncio.timeout(5), background() as tasks:
        tasks.keep(watch)
        await runs_on.wait()

    assert len(begun) == 3


async def test_a_task_that_fails_ends_the_process() -> None:
    """Its owner hears of it at once, and why."""

    async def watch() -> None:
        raise KeyError

    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.timeout(5), background() as tasks:
            tasks.keep(watch)
            await asyncio.sleep(10)

    assert raised.value.subgroup(KeyError) is not None


async def test_all_tasks_end_with_the_process() -> None:
    """Leaving the block waits for them."""
    ended = []

    async def watch() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            ended.append(1)

    async with asyncio.timeout(5), background() as tasks:
        tasks.keep(watch)
        tasks.keep(watch)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    assert len(ended) == 2
