"""The ASGI application: Gemini's paths and the admin path over one set of parts."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tollhouse_server.simulator import admin, errors
from tollhouse_server.simulator.api_keys import ApiKeys
from tollhouse_server.simulator.api_keys_door import PREFIX as API_KEYS_PREFIX
from tollhouse_server.simulator.api_keys_door import ApiKeysDoor
from tollhouse_server.simulator.caching import ImplicitCache
from tollhouse_server.simulator.call_log import CallLog
from tollhouse_server.simulator.capacity import Capacity
from tollhouse_server.simulator.configuration import Configuration
from tollhouse_server.simulator.door import Door
from tollhouse_server.simulator.faults import FaultPlans
from tollhouse_server.simulator.keys import KeyBook
from tollhouse_server.simulator.listeners import Listeners
from tollhouse_server.simulator.models import ModelList
from tollhouse_server.simulator.openai_door import PATHS as OPENAI_PATHS
from tollhouse_server.simulator.openai_door import OpenAIDoor
from tollhouse_server.simulator.parts import Simulator
from tollhouse_server.simulator.quotas import Quotas
from tollhouse_server.simulator.replay import Recordings
from tollhouse_server.simulator.requests_seen import RequestsSeen
from tollhouse_server.simulator.service_accounts import ServiceAccounts
from tollhouse_server.simulator.token_door import PATH as TOKEN_PATH
from tollhouse_server.simulator.token_door import TokenDoor

_ADMIN_PREFIX = "/_simulator"


def build_simulator(configuration: Configuration, log: CallLog, listeners: Listeners) -> Simulator:
    """Build the parts that a configuration describes; ValueError or KeyError names what is wrong in it."""
    keys = KeyBook(only_known=configuration.only_known_keys, clock=time.time)
    for secret, settings in configuration.keys.items():
        keys.put(secret, settings)
    faults = FaultPlans()
    for plan in configuration.faults:
        faults.add(plan)
    quotas = Quotas(time.time)
    for each in configuration.quotas:
        quotas.put(each)
    # Beside the log, because whoever keeps the log over a restart has credentials that must go on working.
    accounts = ServiceAccounts(clock=time.time, path=log.path.with_name(f"{log.path.name}.accounts"))
    seen = RequestsSeen(configuration.capture)
    door = Door(
        models=_models(configuration),
        keys=keys,
        faults=faults,
        log=log,
        cache=ImplicitCache() if configuration.implicit_caching else None,
        recordings=Recordings.load(Path(configuration.replay)) if configuration.replay else Recordings(),
        seen=seen,
        body_limit_bytes=configuration.body_limit_bytes,
        accounts=accounts,
        quotas=quotas,
        listeners=listeners,
    )
    api_keys = ApiKeysDoor(ApiKeys(keys, time.time), accounts, keys, faults, seen, time.time)
    return Simulator(door, TokenDoor(accounts, faults), api_keys, Capacity())


def _models(configuration: Configuration) -> ModelList:
    models = ModelList.load()
    for model_id, pace in configuration.models.items():
        models.set_pace(model_id, pace)
    return models


def build_app(configuration: Configuration, log_path: Path, listeners: Listeners) -> ASGIApp:
    """Build the application; the call log opens at start-up and closes at shutdown."""
    log = CallLog(log_path)
    simulator = build_simulator(configuration, log, listeners)

    @contextlib.asynccontextmanager
    async def open_log(app: Starlette) -> AsyncIterator[None]:
        del app
        with log:
            yield

    return _Split(Starlette(routes=admin.routes(simulator), lifespan=open_log), simulator)


class _Split:
    """Sends admin paths (and the lifespan) to Starlette and all others straight to their door: no routing."""

    def __init__(self, admin_app: Starlette, simulator: Simulator) -> None:
        self._admin_app = admin_app
        self._simulator = simulator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(_ADMIN_PREFIX):
            await self._admin_app(scope, receive, send)
            return
        request = Request(scope, receive)
        if not self._simulator.capacity.is_limited or _is_control_plane(scope["path"]):
            response = await self._response(request)
            await response(scope, receive, send)
            return
        await self._within_capacity(request, send)

    async def _within_capacity(self, request: Request, send: Send) -> None:
        region = self._simulator.door.listeners.region_of(request.scope)
        try:
            async with self._simulator.capacity.place(region):
                response = await self._response(request)
                await response(request.scope, request.receive, send)
        except errors.GeminiError as refusal:
            await _refused(refusal)(request.scope, request.receive, send)

    async def _response(self, request: Request) -> Response:
        try:
            return await self._door_of(request.scope["path"])(request)
        except Exception as error:  # noqa: BLE001 - logged, and answered as Google answers its own defects
            return _defect(request, error)

    def _door_of(self, path: str) -> Callable[[Request], Awaitable[Response]]:
        if path == TOKEN_PATH:
            return self._simulator.tokens.answer
        if path.startswith(API_KEYS_PREFIX):
            return self._simulator.api_keys.answer
        if path in OPENAI_PATHS:
            return OpenAIDoor(self._simulator.door).answer
        return self._simulator.door.answer


def _is_control_plane(path: str) -> bool:
    """Whether a path is of those that Google serves from hosts of their own, which an overloaded model leaves alone."""
    return path == TOKEN_PATH or path.startswith(API_KEYS_PREFIX)


def _defect(request: Request, error: Exception) -> Response:
    logging.getLogger(__name__).error("request failed: %s", request.url.path, exc_info=error)
    return _refused(errors.internal())


def _refused(refusal: errors.GeminiError) -> Response:
    return Response(orjson.dumps(refusal.body()), status_code=refusal.code, media_type="application/json")
