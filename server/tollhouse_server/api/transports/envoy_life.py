"""The life of a server inside Envoy, as ASGI has an application live: one scope is its life, each other one a call."""

import asyncio
import os
import sys
import traceback
from collections.abc import Callable, MutableMapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, NoReturn, Protocol, TypeAlias

from tollhouse_server.api.transports.envoy import EnvoyServer, Scope, Send
from tollhouse_server.api.transports.envoy_process import Envoy
from tollhouse_server.api.transports.framing import Receive
from tollhouse_server.errors import TollhouseError
from tollhouse_server.parent import KILL_AFTER_DRAIN_SECONDS, say_ready
from tollhouse_server.settings import Settings, load_settings
from tollhouse_server.telemetry.logging import configure_logging


class Served(Protocol):
    """What lives as long as the process does."""

    @property
    def server(self) -> Any:
        """The transport that it has built."""

    async def drain(self, seconds: float) -> None:
        """Take no new calls and let those under way end."""


Open: TypeAlias = Callable[[Settings, Callable[..., EnvoyServer]], AbstractAsyncContextManager[Served]]
"""Opens it, with the settings and what builds its transport."""


async def run(opened: Open, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve a call, or open what serves calls and live with it until SIGTERM."""
    if scope["type"] == "http":
        await scope["state"]["server"].serve(scope, receive, send)
        return
    await receive()
    envoy, ready_fd = Envoy.around_us()
    try:
        await _live(opened, scope["state"], send, envoy, ready_fd)
    except TollhouseError as error:
        _die(envoy, f"tollhouse-server: {error.message()}\n")
    except BaseException:  # noqa: BLE001 - nobody is above us
        # Without its tasks a worker is none, whatever Envoy goes on taking: the supervisor starts another.
        _die(envoy, traceback.format_exc())
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def _live(opened: Open, state: MutableMapping[str, Any], send: Send, envoy: Envoy, ready_fd: int) -> None:
    settings, stop = load_settings(), asyncio.Event()
    configure_logging(level=settings.log_level, levels=settings.log_levels, log_format=settings.log_format)
    most_seconds = settings.drain_seconds + KILL_AFTER_DRAIN_SECONDS
    envoy.signalled(asyncio.get_running_loop(), stop, at_most_seconds=most_seconds)
    async with opened(settings, partial(EnvoyServer, envoy=envoy)) as served:
        state["server"] = served.server
        await send({"type": "lifespan.startup.complete"})
        await envoy.until_listening()
        say_ready(ready_fd)
        await stop.wait()
        await served.drain(settings.drain_seconds)
    envoy.end()


def _die(envoy: Envoy, why: str) -> NoReturn:
    envoy.leave_nothing()
    sys.stderr.write(why)
    sys.stderr.flush()
    os._exit(1)
