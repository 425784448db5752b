"""A connection that is kept for the next call."""

import asyncio
import gc
import ssl
import weakref
from contextvars import ContextVar

import pytest
from tollhouse_server.upstream import dialling
from tollhouse_server.upstream.connection import Connection
from tollhouse_server.upstream.dialling import parse_origin
from tollhouse_server.upstream.http import open_transport

from tests.drivers.exchanges import ask
from tests.drivers.wire import answer, answering


class _Notes:
    """What belongs to one call."""


_NOTES: ContextVar[_Notes | None] = ContextVar("notes", default=None)


@pytest.mark.parametrize("calls", [1, 2])
async def test_a_connection_that_is_kept_keeps_nothing_of_the_calls_before(calls: int) -> None:
    """What a call notes hangs on a context variable: an idle connection must not keep it for minutes."""
    notes = [_Notes() for _ in range(calls)]
    kept = [weakref.ref(one) for one in notes]

    async def call(note: _Notes, seconds: float) -> None:
        _NOTES.set(note)
        assert await ask(transport, server.url, timeout_seconds=seconds) == b"body"

    async with open_transport() as transport, answering(answer(b"body")) as server:
        while notes:
            # A shorter time than before sets the timer anew.
            await asyncio.create_task(call(notes.pop(), 10.0 + len(notes)))
        await asyncio.sleep(0)
        gc.collect()

        assert [one() for one in kept] == [None] * calls
        assert len(server.seen) == calls


async def test_a_connection_that_opens_as_its_caller_goes_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would ever use it, or close it."""
    async with answering(answer(b"body")) as server:
        opened = await dialling.dial(origin := parse_origin(server.url, ""), ssl.create_default_context(), 5.0)

        async def at_once(*_: object) -> Connection:
            return opened

        monkeypatch.setattr(dialling, "_dial", at_once)
        caller = asyncio.create_task(dialling.dial(origin, ssl.create_default_context(), 5.0))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert opened.is_open
        caller.cancel()
        await asyncio.wait([caller])

        assert caller.cancelled()
        assert not opened.is_open
