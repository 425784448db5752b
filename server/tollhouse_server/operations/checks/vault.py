"""Whether Vault is there, open, and lets this server's two roles in."""

import json
from pathlib import Path
from typing import Any, Final

import aiohttp

from tollhouse_server.errors import VaultDenied
from tollhouse_server.http_bodies import body_of
from tollhouse_server.operations.checks.terms import (
    Finding,
    Surroundings,
    duration_text,
    failure,
    fine,
    skipped,
    warning,
)
from tollhouse_server.vault.approle import is_wrapping_token
from tollhouse_server.vault.client import VaultClient

_TIMEOUT_SECONDS: Final = 2.0
_MOST_BYTES: Final = 64 * 1024
_SHORT_SECONDS: Final = 60.0

_WRAPPED: Final = "its file holds a wrapping token, which is for the server alone"
_KEPT: Final = "keys in memory keep serving, nothing can be changed or restarted"


async def _health(surroundings: Surroundings) -> Any:
    """Return what Vault says of itself, without a credential; raises aiohttp.ClientError, TimeoutError, ValueError."""
    settings = surroundings.settings
    url = f"{(settings.vault_address or '').rstrip('/')}/v1/sys/health?standbyok=true&sealedcode=200&uninitcode=200"
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
    # Whether its certificate is right, the roles see below: they give it secrets.
    async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url, ssl=False) as answer:
        found = json.loads(await body_of(answer, most_bytes=_MOST_BYTES))
    if not isinstance(found, dict) or "sealed" not in found:
        raise ValueError("this is no Vault")
    return found


async def reachable(surroundings: Surroundings) -> Finding:
    """Say which Vault answers."""
    address = surroundings.settings.vault_address
    try:
        health = await _health(surroundings)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        return failure(
            f"Vault at {address} does not answer ({type(error).__name__}); {_KEPT}",
            f"See that it runs and that TOLLHOUSE_VAULT_ADDRESS names it: curl {address}/v1/sys/health",
        )
    return fine(f"version {health.get('version', '?')} at {address}")


async def sealed(surroundings: Surroundings) -> Finding:
    """See whether Vault is open."""
    try:
        health = await _health(surroundings)
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return failure(f"not known: Vault does not answer; {_KEPT}", "See vault.reachable")
    if not health.get("initialized", True):
        return failure("Vault was never set up", "Set it up: bao operator init, then deploy/openbao/setup.sh")
    if health.get("sealed"):
        return failure(f"Vault is sealed; {_KEPT}", "Unseal it: bao operator unseal")
    return fine("unsealed")


async def gateway(surroundings: Surroundings) -> Finding:
    """See that the role that reads keys is let in."""
    settings = surroundings.settings
    if settings.vault_secret_id is None and _is_wrapped(settings.vault_secret_id_file):
        return skipped(_WRAPPED)
    return await _role(surroundings.gateway, "TOLLHOUSE_VAULT_SECRET_ID_FILE")


async def custodian(surroundings: Surroundings) -> Finding:
    """See that the role that writes keys is let in."""
    settings = surroundings.settings
    if settings.vault_custodian_secret_id is None and _is_wrapped(settings.vault_custodian_secret_id_file):
        return skipped(_WRAPPED)
    return await _role(surroundings.custodian, "TOLLHOUSE_VAULT_CUSTODIAN_SECRET_ID_FILE")


def _is_wrapped(file: Path | None) -> bool:
    """Tell whether a file holds a wrapping token: whoever uses it up takes it from the server's next start."""
    try:
        return file is not None and is_wrapping_token(file.read_text().strip())
    except OSError:
        return False


async def _role(client: VaultClient, setting: str) -> Finding:
    try:
        seconds = await client.token_seconds_left()
    except VaultDenied as error:
        advice = (
            f"Put a new secret_id into the file of {setting}; after five refusals Vault locks a role for 15 minutes"
        )
        return failure(error.message(), advice)
    seen = f"logged in, its token lives for another {duration_text(seconds)}"
    if seconds < _SHORT_SECONDS:
        return warning(seen, "Give the AppRole a token_ttl of some minutes at least")
    return fine(seen)
