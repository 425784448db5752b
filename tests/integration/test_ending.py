"""How the housekeeper ends, also while PostgreSQL is gone or answers nobody any more."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest

from tests.drivers.postgres import TestDatabase

LATEST_SECONDS = {"there": 2.5, "down": 2.5, "frozen": 7.0}
"""Generous for a busy machine; without bounds it is 40 s, or for ever."""


@dataclass(slots=True)
class Way:
    """The only way to a database, which can be shut or just lead nowhere any more."""

    host: str
    port: int
    is_open: asyncio.Event = field(default_factory=asyncio.Event)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    served: list[asyncio.Task[None]] = field(default_factory=list)
    is_down: bool = False

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one connection."""
        self.served.append(asyncio.create_task(self._serve(reader, writer)))

    async def end(self) -> None:
        """End every connection."""
        self.is_open.set()
        self.befall("down")
        await asyncio.gather(*self.served)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_down:
            writer.close()
            return
        there, back = await asyncio.open_connection(self.host, self.port)
        self.writers += [writer, back]
        await asyncio.gather(self._pass_on(reader, back), self._pass_on(there, writer))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(65536):
                await self.is_open.wait()
                writer.write(chunk)
        writer.close()

    def befall(self, state: str) -> None:
        """Let the database be `there`, `down` (connections end, nobody answers the next) or `frozen`."""
        if state == "frozen":
            self.is_open.clear()
        if state == "down":
            self.is_down = True
            for writer in self.writers:
                writer.close()


@asynccontextmanager
async def way_to(dsn: str) -> AsyncIterator[tuple[Way, str]]:
    """Open a way to a database; yield it and the DSN that leads along it."""
    parts = urlsplit(dsn)
    way = Way(parts.hostname or "", parts.port or 0)
    way.is_open.set()
    server = await asyncio.start_server(way.accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield way, dsn.replace(f":{parts.port}/", f":{port}/")
    finally:
        server.close()
        await way.end()


@asynccontextmanager
async def housekeeper(dsn: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a housekeeper whose heart beats fast; it works on entry."""
    readable, writable = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tollhouse_server", "housekeeper"),
        *("--ready-fd", str(writable), "--parent-pid", str(os.getpid())),
        env={"PATH": os.defpath, "TOLLHOUSE_POSTGRES_DSN": dsn, "TOLLHOUSE_WORKER_DEAD_AFTER_SECONDS": "1"},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=(writable,),
    )
    os.close(writable)
    try:
        with os.fdopen(readable, "rb") as pipe:
            assert await asyncio.to_thread(pipe.read, 1) == b"1"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("state", list(LATEST_SECONDS))
async def test_an_idle_housekeeper_ends_soon_when_it_is_told_to(fresh_database: TestDatabase, state: str) -> None:
    """Whatever PostgreSQL does: nothing is waited for that may not come, and nothing breaks on the way."""
    async with way_to(fresh_database.app_dsn) as (way, dsn), housekeeper(dsn) as process:
        await asyncio.sleep(1.0)
        way.befall(state)
        await asyncio.sleep(0.5)

        began_at = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, errors = await asyncio.wait_for(process.communicate(), 30)
        took = time.monotonic() - began_at

    assert process.returncode == 0, errors.decode()
    # The drivers' own lines about a lost connection are JSON; what ends a task or the process is not.
    assert not [line for line in errors.splitlines() if line.startswith(b"Traceback")], errors.decode()
    assert b"never retrieved" not in errors
    assert took < LATEST_SECONDS[state]
