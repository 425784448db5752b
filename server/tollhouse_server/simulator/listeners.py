"""Extra ports, each of which stands for the host of one region: closing one is how that region goes dead.

A closed port refuses connections as a dead host does. A second socket, which never listens, keeps its number from
everyone else meanwhile, so that it can be opened again.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.types import Scope

from tollhouse_server.simulator.paths import GLOBAL

_LOCATION = re.compile(r"/locations/([^/]+)/")
_BACKLOG = 4_096


class Connection(Protocol):
    """A connection of the HTTP server, as far as a port that closes needs it."""

    server: tuple[str, int | None] | None
    transport: asyncio.Transport


@dataclass(slots=True)
class Port:
    """One extra port; `server` is None while it is closed."""

    number: int
    region: str
    holder: socket.socket
    server: asyncio.Server | None = None

    def shown(self, host: str) -> dict[str, Any]:
        """Give it as the admin path lists it."""
        url = f"http://{host}:{self.number}"
        return {"port": self.number, "region": self.region, "url": url, "open": self.server is not None}


class Listeners:
    """The extra ports of one simulator."""

    def __init__(self) -> None:
        self._host = "127.0.0.1"
        self._ports: dict[int, Port] = {}
        self._protocol: Callable[[], asyncio.Protocol] | None = None
        self._connections: Callable[[], Iterable[Connection]] = tuple

    def attach(
        self, host: str, protocol: Callable[[], asyncio.Protocol], connections: Callable[[], Iterable[Connection]]
    ) -> None:
        """Learn the HTTP server whose protocol the ports speak; must come before the first `open`."""
        self._host, self._protocol, self._connections = host, protocol, connections

    def region_of(self, scope: Scope) -> str:
        """Give the region a request is for: the one in its path, else its port's, else `global`."""
        found = _LOCATION.search(scope["path"])
        return found[1] if found else self.region_of_port(scope)

    def region_of_port(self, scope: Scope) -> str:
        """Give the region that the port of a request stands for."""
        if not self._ports:
            return GLOBAL
        port = self._ports.get(scope["server"][1])
        return port.region if port else GLOBAL

    def all(self) -> list[dict[str, Any]]:
        """Give every port as the admin path lists it."""
        return [port.shown(self._host) for port in self._ports.values()]

    async def open(self, region: str, number: int = 0) -> dict[str, Any]:
        """Listen on a port (0: a free one) for a region; one that is open already stays so. OSError: it is in use."""
        port = self._ports.get(number)
        if port is None:
            holder = _bind(self._host, number)
            port = Port(holder.getsockname()[1], region, holder)
            self._ports[port.number] = port
        port.region = region or port.region
        if port.server is None:
            await self._listen(port)
        return port.shown(self._host)

    async def _listen(self, port: Port) -> None:
        if self._protocol is None:
            raise ValueError("this simulator has no server of its own to listen with")
        bound = _bind(self._host, port.number)
        loop = asyncio.get_running_loop()
        port.server = await loop.create_server(self._protocol, sock=bound, backlog=_BACKLOG)

    def close(self, number: int) -> dict[str, Any]:
        """Stop listening on a port and abort its connections; KeyError: there is no such port."""
        port = self._ports[number]
        if port.server is not None:
            port.server.close()
            port.server = None
        for connection in list(self._connections()):
            if connection.server is not None and connection.server[1] == number:
                connection.transport.abort()
        return port.shown(self._host)

    def close_all(self) -> None:
        """Give every port back."""
        for port in self._ports.values():
            if port.server is not None:
                port.server.close()
            port.holder.close()
        self._ports.clear()


def _bind(host: str, number: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    # Both the holder and the listener of a port are bound to it, which takes SO_REUSEPORT on each.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, number))
    except OSError:
        bound.close()
        raise
    return bound
