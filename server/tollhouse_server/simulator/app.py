"""The ASGI application: Gemini's paths and the admin path over one set of parts."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tollhouse_server.simulator import admin, errors
from tollhouse_server.simulator.caching import ImplicitCache
from tollhouse_server.simulator.call_log import CallLog
from tollhouse_server.simulator.configuration import Configuration
from tollhouse_server.simulator.door import Door
from tollhouse_server.simulator.faults import FaultPlans
from tollhouse_server.simulator.keys import KeyBook
from tollhouse_server.simulator.models import ModelList
from tollhouse_server.simulator.replay import Recordings
from tollhouse_server.simulator.requests_seen import RequestsSeen

_ADMIN_PREFIX = "/_simulator"


def build_door(configuration: Configuration, log: CallLog) -> Door:
    """Build the parts that a configuration describes; ValueError or KeyError names what is wrong in it."""
    keys = KeyBook(only_known=configuration.only_known_keys, clock=time.time)
    for secret, settings in configuration.keys.items():
        keys.put(secret, settings)
    models = ModelList.load()
    for model_id, pace in configuration.models.items():
        models.set_pace(model_id, pace)
    faults = FaultPlans()
    for plan in configuration.faults:
        faults.add(plan)
    return Door(
        models=models,
        keys=keys,
        faults=faults,
        log=log,
        cache=ImplicitCache() if configuration.implicit_caching else None,
        recordings=Recordings.load(Path(configuration.replay)) if configuration.replay else Recordings(),
        seen=RequestsSeen(configuration.capture),
        body_limit_bytes=configuration.body_limit_bytes,
    )


def build_app(configuration: Configuration, log_path: Path) -> ASGIApp:
    """Build the application; the call log opens at start-up and closes at shutdown."""
    log = CallLog(log_path)
    door = build_door(configuration, log)

    @contextlib.asynccontextmanager
    async def open_log(app: Starlette) -> AsyncIterator[None]:
        del app
        with log:
            yield

    return _Split(Starlette(routes=admin.routes(door), lifespan=open_log), door)


class _Split:
    """Sends admin paths (and the lifespan) to Starlette and all others straight to the door, which saves a routing."""

    def __init__(self, admin_app: Starlette, door: Door) -> None:
        self._admin_app = admin_app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(_ADMIN_PREFIX):
            await self._admin_app(scope, receive, send)
            return
        response = await self._response(Request(scope, receive))
        await response(scope, receive, send)

    async def _response(self, request: Request) -> Response:
        try:
            return await self._door.answer(request)
        except Exception as error:  # noqa: BLE001 - logged, and answered as Google answers its own defects
            return _defect(request, error)


def _defect(request: Request, error: Exception) -> Response:
    logging.getLogger(__name__).error("request failed: %s", request.url.path, exc_info=error)
    refusal = errors.internal()
    return Response(orjson.dumps(refusal.body()), status_code=refusal.code, media_type="application/json")
