"""What is seen of Vault, asked without a credential; a wrapping token is never used up by looking."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tollhouse_server.operations.checks import vault
from tollhouse_server.operations.checks.terms import Outcome
from tollhouse_server.settings import Settings

from tests.unit.operations.test_host_checks import Place


@asynccontextmanager
async def answering(health: Any) -> AsyncIterator[str]:
    """Serve what a Vault says of itself; yield its address."""

    async def say(_: web.Request) -> web.Response:
        return web.json_response(health)

    application = web.Application()
    application.add_routes([web.get("/v1/sys/health", say)])
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("health", "outcome", "words"),
    [
        ({"initialized": True, "sealed": False, "version": "2"}, Outcome.OK, "unsealed"),
        ({"initialized": True, "sealed": True}, Outcome.FAILURE, "bao operator unseal"),
        ({"initialized": False, "sealed": True}, Outcome.FAILURE, "bao operator init"),
    ],
)
async def test_a_vault_that_is_sealed_is_told_with_what_to_type(
    health: dict[str, Any], outcome: Outcome, words: str
) -> None:
    """It answers, so it is reachable."""
    async with answering(health) as address:
        place: Any = Place(Settings(vault_address=address))
        reachable, sealed = await vault.reachable(place), await vault.sealed(place)

    assert reachable.outcome is Outcome.OK
    assert sealed.outcome is outcome
    assert words in f"{sealed.seen} {sealed.advice}"


@pytest.mark.parametrize("health", [[], None, "sealed", 1, {}, {"errors": []}, {"sealed": True, "version": None}])
async def test_what_answers_instead_of_a_vault_is_told_with_what_to_type(health: Any) -> None:
    """A proxy's page, another service on the port: no check breaks."""
    async with answering(health) as address:
        place: Any = Place(Settings(vault_address=address))
        found = [await vault.reachable(place), await vault.sealed(place)]

    assert Outcome.FAILURE in {one.outcome for one in found}
    assert all(one.advice for one in found if one.outcome is Outcome.FAILURE)


async def test_a_vault_that_is_away_is_told_with_its_address() -> None:
    """And what goes on without it."""
    place: Any = Place(Settings(vault_address="http://127.0.0.1:9"))

    found = await vault.reachable(place)

    assert found.outcome is Outcome.FAILURE
    assert "curl http://127.0.0.1:9/v1/sys/health" in found.advice
    assert "keys in memory keep serving" in found.seen


@pytest.mark.parametrize("role", [vault.gateway, vault.custodian])
async def test_a_wrapping_token_is_left_for_the_server(tmp_path: Path, role: Callable[[Any], Awaitable[Any]]) -> None:
    """It can be used once: the next start of the server needs it."""
    file = tmp_path / "secret-id"
    file.write_text("hvs." + "x" * 24)
    place: Any = Place(Settings(vault_secret_id_file=file, vault_custodian_secret_id_file=file))

    # There is no client to ask: it would be an error to try.
    found = await role(place)

    assert found.outcome is Outcome.SKIPPED
