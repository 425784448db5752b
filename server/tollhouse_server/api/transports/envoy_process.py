"""A process that becomes Envoy: from the command that starts it to what Envoy, once it runs, is told and asked.

pyvoy loads Python into Envoy and runs an ASGI application in a loop of its own thread. The application's life is the
worker's: Envoy listens when it has started, and SIGTERM, which Envoy would obey at once, is kept from it until the
worker has drained. Nothing of the worker knows: its pools and tasks live in that loop as they do in their own.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from tollhouse_server.api.transports.envoy_config import (
    arguments,
    authorities_file,
    certificates_file,
    configuration,
    control_socket,
)
from tollhouse_server.api.transports.envoy_place import make_place
from tollhouse_server.api.transports.tls import Certificates, Parts, files_of
from tollhouse_server.settings import Settings, environment_without_settings
from tollhouse_server.transport_choice import installed_envoy

_PLACE: Final = "ENVOY_WORKER_PLACE"
_READY_FD: Final = "ENVOY_WORKER_READY_FD"
_SETTINGS_FD: Final = "ENVOY_WORKER_SETTINGS_FD"
# What Envoy needs to find its Python, and nothing that it starts does.
_FOR_PYTHON: Final = ("LD_PRELOAD", "PYTHONHOME", "PYTHONPATH")
_ENDINGS: Final = (signal.SIGTERM, signal.SIGINT)
_ASK_AGAIN_SECONDS: Final = 0.02


def become_envoy(settings: Settings, *, name: str, app: str, ready_fd: int) -> NoReturn:
    """Turn this process into an Envoy that serves `app`; its id and its parent stay.

    `name` is what lists of processes show before its arguments. The settings reach it by a descriptor: others may read
    the environment that a program was started with.

    Raises:
        EnvoyMissing: the extra `envoy` or Python's own library is missing.
        InvalidRequest: the certificate's files cannot be used.
    """
    installed = installed_envoy()
    place = make_place()
    try:
        files = files_of(settings)
        if files is not None:
            Certificates(files, None, tell=Envoy(place).put)
        for_python = {
            "LD_PRELOAD": str(installed.library),
            "PYTHONHOME": os.pathsep.join((sys.prefix, sys.exec_prefix)),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        for_us = {_PLACE: str(place), _READY_FD: str(ready_fd), _SETTINGS_FD: str(_in_memory(settings.environment()))}
        environment = {**environment_without_settings(), **for_python, **for_us}
        # Inherited by every thread of Envoy: the one of ours that waits for them gets them.
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)
        given = arguments(configuration(settings, module=installed.module, app=app, place=place))
        os.execve(installed.program, [name, *given], environment)  # noqa: S606
    except BaseException:
        shutil.rmtree(place)
        raise


def _in_memory(environment: Mapping[str, str]) -> int:
    """Return a descriptor, open across exec, of a file in memory that holds it."""
    descriptor = os.memfd_create("settings", flags=0)
    with os.fdopen(descriptor, "w", closefd=False) as file:
        json.dump(environment, file)
    return descriptor


class Envoy:
    """The Envoy around us, as far as it is told and asked something."""

    def __init__(self, place: Path) -> None:
        self._place = place

    @classmethod
    def around_us(cls) -> tuple["Envoy", int]:
        """Return it, and the descriptor to write to once calls are served; the environment is what it was before."""
        for name in _FOR_PYTHON:
            os.environ.pop(name, None)
        with os.fdopen(int(os.environ.pop(_SETTINGS_FD))) as file:
            file.seek(0)
            os.environ.update(json.load(file))
        return cls(Path(os.environ.pop(_PLACE))), int(os.environ.pop(_READY_FD))

    def put(self, parts: Parts) -> None:
        """Put a certificate in force, for connections to come."""
        certificate, private_key, authorities = parts
        _write(
            certificates_file(self._place),
            name="certificate",
            tls_certificate={"certificate_chain": _inline(certificate), "private_key": _inline(private_key)},
        )
        if authorities is not None:
            _write(
                authorities_file(self._place),
                name="authorities",
                validation_context={"trusted_ca": _inline(authorities)},
            )

    async def until_listening(self) -> None:
        """Wait until connections are taken."""
        while not await self._is_live():  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(_ASK_AGAIN_SECONDS)

    async def close_listeners(self) -> None:
        """Take no more connections, and have callers told to make their next calls elsewhere."""
        await self._command("POST", "/drain_listeners?graceful&skip_exit")
        await self._command("POST", "/drain_listeners")

    def signalled(self, loop: asyncio.AbstractEventLoop, stop: asyncio.Event, *, at_most_seconds: float) -> None:
        """Set `stop` on SIGTERM and SIGINT; the kernel ends the process if it has not ended in time after that."""

        def wait() -> None:
            signal.sigwait(_ENDINGS)
            signal.setitimer(signal.ITIMER_REAL, at_most_seconds)
            loop.call_soon_threadsafe(stop.set)

        threading.Thread(target=wait, name="signals", daemon=True).start()

    def end(self) -> None:
        """Let Envoy have its SIGTERM, and leave nothing behind."""
        self.leave_nothing()
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDINGS)

    def leave_nothing(self) -> None:
        """Remove what was written for Envoy; it takes no commands any more."""
        shutil.rmtree(self._place, ignore_errors=True)

    async def _is_live(self) -> bool:
        try:
            return "LIVE" in await self._command("GET", "/ready")
        except OSError:
            return False

    async def _command(self, method: str, path: str) -> str:
        reader, writer = await asyncio.open_unix_connection(control_socket(self._place))
        try:
            writer.write(f"{method} {path} HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n".encode())
            return (await reader.read()).decode()
        finally:
            writer.close()


def _inline(pem: bytes) -> Mapping[str, str]:
    return {"inline_string": pem.decode()}


def _write(file: Path, **secret: Any) -> None:
    """Write a resource of Envoy's at once: it looks when a file is moved into its place. Only we may read it."""
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    new = file.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text(json.dumps({"resources": [{"@type": kind, **secret}]}))
    new.replace(file)
