"""`POST /token`: Google's OAuth endpoint for service accounts."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs

import orjson
from starlette.requests import Request
from starlette.responses import Response

from tollhouse_server.simulator.bodies import read_body
from tollhouse_server.simulator.control import strike
from tollhouse_server.simulator.errors import GeminiError
from tollhouse_server.simulator.faults import FaultPlans
from tollhouse_server.simulator.keys import Caller, key_id
from tollhouse_server.simulator.service_accounts import OAuthRefused, ServiceAccounts

PATH = "/token"
METHOD = "token"
"""What a fault plan names as `method` to hit the token endpoint."""

_GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_BODY_LIMIT_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class TokenDoor:
    """Answers token requests; their bodies are signed assertions, so they are never captured."""

    accounts: ServiceAccounts
    faults: FaultPlans

    async def answer(self, request: Request) -> Response:
        """Answer one request, refusals included."""
        try:
            return await self._answer(request)
        except OAuthRefused as refusal:
            return _json(refusal.body, 400)
        except GeminiError as refusal:
            return _json({"error": refusal.status.lower(), "error_description": refusal.message}, refusal.code)

    async def _answer(self, request: Request) -> Response:
        body = await read_body(request, _BODY_LIMIT_BYTES)
        form = parse_qs(body.decode(errors="replace"))
        if request.method != "POST" or form.get("grant_type") != [_GRANT_TYPE]:
            raise OAuthRefused("unsupported_grant_type", "Invalid grant_type.")
        assertion = form.get("assertion", [""])[0]
        account, private_key_id = self.accounts.signer_of(assertion)
        fault = strike(self.faults, Caller(key_id(private_key_id), account.project), METHOD)
        if fault.is_lost:
            return fault.deliver(b"{}")
        endpoint = str(request.url.replace(query=None))
        return fault.deliver(orjson.dumps(self.accounts.grant(assertion, [endpoint])))


def _json(body: dict[str, str], status: int) -> Response:
    return Response(orjson.dumps(body), status_code=status, media_type="application/json; charset=utf-8")
