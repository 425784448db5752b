"""Whether the upstream takes a key: asked with a call that costs nothing and is no call of the ledger."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Protocol
from uuid import uuid4

from tollhouse_server.errors import TollhouseError
from tollhouse_server.routing.catalogue import Catalogue
from tollhouse_server.routing.route import RouteRequest
from tollhouse_server.routing.targets import Account
from tollhouse_server.upstream.protocol import (
    Broken,
    Destination,
    Method,
    NotSent,
    Refused,
    Upstream,
    UpstreamCall,
)
from tollhouse_server.vault.secret_text import SecretText

_TIMEOUT_SECONDS: Final = 10.0
_BODY: Final = json.dumps({"contents": [{"role": "user", "parts": [{"text": "ping"}]}]}).encode()


class ProbeVerdict(StrEnum):
    """What a probe says of a key. REFUSED may pass: a new key becomes valid at Google with a delay."""

    ACCEPTED = "ACCEPTED"
    REFUSED = "REFUSED"
    UNKNOWN = "UNKNOWN"
    """The upstream did not answer, or not about the key."""


def destinations(catalogue: Callable[[], Catalogue]) -> Callable[[str], Destination | None]:
    """Return what finds a destination for an account's keys: any model of the catalogue that can count tokens there."""

    def find(account_id: str) -> Destination | None:
        current = catalogue()
        account = next((one for one in current.accounts() if one.account_id == account_id), None)
        if account is None:
            return None
        models = [model.model for model in current.list_models() if account.kind in model.upstreams]
        return next((found for model in models if (found := _at(current, account, model)) is not None), None)

    return find


def _at(catalogue: Catalogue, account: Account, model: str) -> Destination | None:
    request = RouteRequest(
        method=Method.COUNT_TOKENS.value,
        at=datetime.now(UTC),
        model=model,
        tenant_id=account.tenant_id,
        environment=account.environment,
        kinds=frozenset({account.kind}),
    )
    try:
        targets = catalogue.resolve(request).targets
    except TollhouseError:
        # Shut down, or not for counting tokens: another model will do.
        return None
    return next((one.destination for one in targets if one.account_id == account.account_id), None)


class Probe(Protocol):
    """Tries keys."""

    async def check(self, account_id: str, secret: SecretText) -> ProbeVerdict:
        """Return what the account's upstream says of a key; raises nothing that is the upstream's fault."""


class UpstreamProbe:
    """Counts the tokens of one word, which is free; `destination` names any model that the account serves."""

    def __init__(self, upstream: Upstream, destination: Callable[[str], Destination | None]) -> None:
        self._upstream = upstream
        self._destination = destination

    async def check(self, account_id: str, secret: SecretText) -> ProbeVerdict:
        """Return what the account's upstream says of a key."""
        destination = self._destination(account_id)
        if destination is None:
            return ProbeVerdict.UNKNOWN
        call = UpstreamCall(
            attempt_id=uuid4(),
            destination=destination,
            method=Method.COUNT_TOKENS,
            body=_BODY,
            timeout_seconds=_TIMEOUT_SECONDS,
            key=secret.reveal(),
        )
        try:
            await self._upstream.call(call)
        except Refused as error:
            return ProbeVerdict.REFUSED if _is_about_the_key(error) else ProbeVerdict.UNKNOWN
        except (NotSent, Broken):
            return ProbeVerdict.UNKNOWN
        return ProbeVerdict.ACCEPTED


def _is_about_the_key(error: Refused) -> bool:
    """Google answers 400 with API_KEY_INVALID, 401 or 403 (ai.google.dev/gemini-api/docs/troubleshooting)."""
    if error.http_status in {401, 403}:
        return True
    details: Any = error.error.get("details")
    entries = details if isinstance(details, list) else []
    return any(isinstance(entry, Mapping) and entry.get("reason") == "API_KEY_INVALID" for entry in entries)
