"""The admin path's commands for projects, regions and accounts: quotas, capacity, ports, service accounts, API keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from tollhouse_server.simulator.parts import Simulator
from tollhouse_server.simulator.token_door import PATH as TOKEN_PATH

_Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class UpstreamPages:
    """The pages, to be guarded against what cannot be read."""

    simulator: Simulator

    def table(self) -> list[tuple[str, str, _Endpoint]]:
        """Give HTTP method, path and page of each."""
        return [
            ("GET", "/quotas", self.quotas),
            ("POST", "/quotas", self.put_quotas),
            ("DELETE", "/quotas", self.clear_quotas),
            ("GET", "/capacity", self.capacity),
            ("POST", "/capacity", self.put_capacity),
            ("DELETE", "/capacity", self.clear_capacity),
            ("GET", "/ports", self.ports),
            ("POST", "/ports", self.open_port),
            ("DELETE", "/ports", self.close_port),
            ("GET", "/service-accounts", self.service_accounts),
            ("POST", "/service-accounts", self.issue_service_account_key),
            ("PATCH", "/service-accounts", self.change_service_account),
            ("DELETE", "/service-accounts", self.forget_service_accounts),
            ("DELETE", "/tokens", self.revoke_tokens),
            ("GET", "/api-keys", self.api_keys),
            ("POST", "/api-keys", self.set_api_keys),
        ]

    async def quotas(self, request: Request) -> Response:
        """List the quotas with what is used of them."""
        del request
        return _json({"quotas": self.simulator.door.quotas.all()})

    async def put_quotas(self, request: Request) -> Response:
        """Set one quota, or a list."""
        given = await _given(request)
        put = self.simulator.door.quotas.put
        return _json({"quotas": [put(each) for each in (given if isinstance(given, list) else [given])]})

    async def clear_quotas(self, request: Request) -> Response:
        """Forget the quotas of `?project=`, or all."""
        self.simulator.door.quotas.clear(request.query_params.get("project"))
        return _json({})

    async def capacity(self, request: Request) -> Response:
        """List the limits with how many calls run and were refused."""
        del request
        return _json({"capacity": self.simulator.capacity.all()})

    async def put_capacity(self, request: Request) -> Response:
        """Set the limits of one region, or over all."""
        return _json(self.simulator.capacity.put(await _given(request)))

    async def clear_capacity(self, request: Request) -> Response:
        """Take every limit away."""
        del request
        self.simulator.capacity.clear()
        return _json({})

    async def ports(self, request: Request) -> Response:
        """List the extra ports."""
        del request
        return _json({"ports": self.simulator.door.listeners.all()})

    async def open_port(self, request: Request) -> Response:
        """Open a port for a region, a new one without `port`."""
        given = await _given(request)
        listeners = self.simulator.door.listeners
        return _json(await listeners.open(str(given.get("region", "")), int(given.get("port", 0))))

    async def close_port(self, request: Request) -> Response:
        """Close `?port=`; its number stays ours."""
        return _json(self.simulator.door.listeners.close(int(request.query_params["port"])))

    async def service_accounts(self, request: Request) -> Response:
        """List the service accounts, without anything secret."""
        del request
        return _json({"service_accounts": [each.shown() for each in self.simulator.door.accounts.all()]})

    async def issue_service_account_key(self, request: Request) -> Response:
        """Make a service account, or a further key of one, and give its credentials."""
        token_uri = str(request.url.replace(path=TOKEN_PATH, query=None))
        return _json(await self.simulator.door.accounts.issue_key(await _given(request), token_uri))

    async def change_service_account(self, request: Request) -> Response:
        """Enable, disable or change the account named by `email`."""
        given = await _given(request)
        return _json(self.simulator.door.accounts.change(str(given["email"]), given).shown())

    async def forget_service_accounts(self, request: Request) -> Response:
        """Forget every service account."""
        del request
        self.simulator.door.accounts.forget()
        return _json({})

    async def revoke_tokens(self, request: Request) -> Response:
        """Refuse the tokens that are out, of `?email=` or all."""
        self.simulator.door.accounts.revoke_tokens(request.query_params.get("email"))
        return _json({})

    async def api_keys(self, request: Request) -> Response:
        """Show how eventual the API Keys API is."""
        del request
        return _json(self._api_key_seconds())

    async def set_api_keys(self, request: Request) -> Response:
        """Set `propagation_seconds` and `operation_seconds`."""
        given = await _given(request)
        door = self.simulator.api_keys
        door.keys.propagation_seconds = float(given.get("propagation_seconds", door.keys.propagation_seconds))
        door.operation_seconds = float(given.get("operation_seconds", door.operation_seconds))
        return _json(self._api_key_seconds())

    def _api_key_seconds(self) -> dict[str, Any]:
        door = self.simulator.api_keys
        return {"propagation_seconds": door.keys.propagation_seconds, "operation_seconds": door.operation_seconds}


async def _given(request: Request) -> Any:
    return orjson.loads(await request.body())


def _json(shown: dict[str, Any]) -> Response:
    return Response(orjson.dumps(shown), media_type="application/json")
