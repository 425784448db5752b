"""uvicorn with two additions: the connection's transport is in the ASGI scope, and a signal ends it cleanly."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterable, Iterator

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tollhouse_server.simulator.listeners import Listeners

TRANSPORT_KEY = "tollhouse.simulator.transport"
_KEEP_ALIVE_SECONDS = 300
_SHUTDOWN_SECONDS = 2
_BACKLOG = 4_096


class ScopedProtocol(HttpToolsProtocol):
    """HTTP/1.1 whose requests know their transport, which a reset fault must abort."""

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self.scope[TRANSPORT_KEY] = self.transport  # type: ignore[literal-required]


class Server(uvicorn.Server):
    """Serves until SIGTERM or SIGINT, then returns."""

    def __init__(self, app: ASGIApp, listeners: Listeners, *, host: str, on_ready: Callable[[], None]) -> None:
        self._listeners = listeners
        self._host = host
        self._on_ready = on_ready
        super().__init__(
            uvicorn.Config(
                app,
                http=ScopedProtocol,
                ws="none",
                lifespan="on",
                loop="uvloop",
                log_level="warning",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        if not self.should_exit:
            self._listeners.attach(self._host, self._connection, self._connections)
            self._on_ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End on a signal without raising it again, so that the exit code is 0."""
        loop = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, self.stop)
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End, extra ports first."""
        self._listeners.close_all()
        await super().shutdown(sockets)

    def _connection(self) -> ScopedProtocol:
        return ScopedProtocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    def _connections(self) -> Iterable[ScopedProtocol]:
        return [each for each in self.server_state.connections if isinstance(each, ScopedProtocol)]

    def stop(self) -> None:
        """Ask for the end."""
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """Bind the address; OSError when it is in use."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(_BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound
