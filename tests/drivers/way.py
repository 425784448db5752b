"""The way to a real database, as a test leads it: it can be shut, or lead nowhere, while the database serves others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit


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
        self.is_down = state == "down"
        if state == "frozen":
            self.is_open.clear()
            return
        self.is_open.set()
        if state == "down":
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
