"""The admin path `/_simulator/*`: keys, fault plans, pace, captured requests, replays, the log of served calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tollhouse_server.simulator.door import Door
from tollhouse_server.simulator.parts import Simulator
from tollhouse_server.simulator.upstream_admin import UpstreamPages

_LIST_LIMIT = 10_000
_Endpoint = Callable[[Request], Awaitable[Response]]


def routes(simulator: Simulator) -> list[Route]:
    """Give the admin routes over a simulator's parts."""
    pages = _Pages(simulator.door)
    upstream = UpstreamPages(simulator)
    table: list[tuple[str, str, _Endpoint]] = [
        ("GET", "/health", pages.health),
        ("GET", "/calls", pages.calls),
        ("GET", "/calls/count", pages.count),
        ("GET", "/faults", pages.faults),
        ("POST", "/faults", pages.add_faults),
        ("DELETE", "/faults", pages.clear_faults),
        ("GET", "/keys", pages.keys),
        ("POST", "/keys", pages.put_key),
        ("DELETE", "/keys", pages.forget_keys),
        ("POST", "/models", pages.set_pace),
        ("GET", "/requests", pages.requests),
        ("POST", "/requests", pages.set_capture),
        ("POST", "/replay", pages.replay),
        *upstream.table(),
    ]
    return [Route(f"/_simulator{path}", _guarded(page), methods=[method]) for method, path, page in table]


@dataclass(frozen=True, slots=True)
class _Pages:
    door: Door

    async def health(self, request: Request) -> Response:
        del request
        return _json(
            {"status": "serving", "models": len(self.door.models.all()), "recordings": len(self.door.recordings)}
        )

    async def calls(self, request: Request) -> Response:
        query = request.query_params
        limit = max(0, min(int(query.get("limit", "1000")), _LIST_LIMIT))
        rows = await self.door.log.rows(after=int(query.get("after", "0")), limit=limit, filters=query)
        return _json({"calls": rows})

    async def count(self, request: Request) -> Response:
        return _json({"count": await self.door.log.count(request.query_params)})

    async def faults(self, request: Request) -> Response:
        del request
        return _json({"faults": [plan.shown() for plan in self.door.faults.all()]})

    async def add_faults(self, request: Request) -> Response:
        given = orjson.loads(await request.body())
        plans = [self.door.faults.add(each) for each in (given if isinstance(given, list) else [given])]
        return _json({"faults": [plan.shown() for plan in plans]})

    async def clear_faults(self, request: Request) -> Response:
        wanted = request.query_params.get("id")
        self.door.faults.clear(int(wanted) if wanted else None)
        return _json({})

    async def keys(self, request: Request) -> Response:
        del request
        return _json({"keys": [key.shown() for key in self.door.keys.all()]})

    async def put_key(self, request: Request) -> Response:
        given: dict[str, Any] = orjson.loads(await request.body())
        if "only_known" in given:
            self.door.keys.set_only_known(bool(given["only_known"]))
        if "key" not in given:
            return _json({})
        return _json(self.door.keys.put(given["key"], given).shown())

    async def forget_keys(self, request: Request) -> Response:
        del request
        self.door.keys.forget()
        return _json({})

    async def set_pace(self, request: Request) -> Response:
        for model_id, pace in orjson.loads(await request.body()).items():
            self.door.models.set_pace(model_id, pace)
        return _json({})

    async def requests(self, request: Request) -> Response:
        del request
        return _json({"requests": self.door.seen.all()})

    async def set_capture(self, request: Request) -> Response:
        self.door.seen.set_limit(int(orjson.loads(await request.body())["limit"]))
        return _json({})

    async def replay(self, request: Request) -> Response:
        self.door.recordings.queue(orjson.loads(await request.body())["recordings"])
        return _json({})


def _guarded(page: _Endpoint) -> _Endpoint:
    """Answer 400 with the reason for a request that cannot be read."""

    async def guarded(request: Request) -> Response:
        try:
            return await page(request)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, OSError) as error:
            return _json({"error": f"{type(error).__name__}: {error}"}, status=400)

    return guarded


def _json(shown: dict[str, Any], *, status: int = 200) -> Response:
    return Response(orjson.dumps(shown), status_code=status, media_type="application/json")
