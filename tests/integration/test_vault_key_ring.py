"""The key ring against a real OpenBao: it serves from memory when Vault is sealed or gone, and recovers by itself."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from tollhouse_server.embedded.openbao_api import OpenBaoApi
from tollhouse_server.errors import SecretMissing
from tollhouse_server.vault.client import VaultClient
from tollhouse_server.vault.connection import VaultAddress
from tollhouse_server.vault.key_ring import KeyRing, UpstreamKeyRef, upstream_key_path

from tests.drivers.openbao import TestOpenBao

REFRESH_SECONDS = 0.2
RECOVERY_SECONDS = 5.0
CANARY = "canary-77ab31"


@pytest.fixture
async def vault(openbao: TestOpenBao) -> AsyncIterator[VaultClient]:
    client = VaultClient(VaultAddress(url=openbao.endpoint.address, timeout_seconds=1), openbao.endpoint.gateway)
    yield client
    await client.close()


@pytest.fixture
async def custodian(openbao: TestOpenBao) -> AsyncIterator[VaultClient]:
    client = VaultClient(VaultAddress(url=openbao.endpoint.address), openbao.endpoint.key_custodian)
    yield client
    await client.close()


async def stored_key(custodian: VaultClient, secret: str = CANARY) -> UpstreamKeyRef:
    account_id = f"account-{uuid4().hex[:8]}"
    version = await custodian.write_secret(upstream_key_path(account_id, "key-1"), {"key": secret}, cas=0)
    return UpstreamKeyRef(account_id=account_id, key_id="key-1", version=version)


async def until_reachable(ring: KeyRing, *, reachable: bool) -> None:
    async with asyncio.timeout(RECOVERY_SECONDS):
        while ring.state.vault_reachable is not reachable:  # noqa: ASYNC110 - the ring has no event for it
            await asyncio.sleep(0.02)


async def test_a_sealed_vault_leaves_the_ring_serving_and_unsealing_makes_it_fresh(
    openbao: TestOpenBao, vault: VaultClient, custodian: VaultClient
) -> None:
    """Serving goes on from memory; the state says that it is stale, then that it is fresh again."""
    key = await stored_key(custodian)
    ring = KeyRing(vault, refresh_seconds=REFRESH_SECONDS, retry_seconds=REFRESH_SECONDS)
    await ring.expect([key])
    running = asyncio.create_task(ring.run())

    await openbao.server.seal()
    try:
        await until_reachable(ring, reachable=False)
        while_sealed, age_while_sealed = ring.secret(key.account_id, key.key_id), ring.state.age_seconds
    finally:
        await openbao.server.unseal()
    await until_reachable(ring, reachable=True)

    running.cancel()
    assert while_sealed.reveal() == CANARY
    assert age_while_sealed is not None
    assert ring.state.age_seconds is not None
    assert ring.state.age_seconds < REFRESH_SECONDS + 0.5
    assert ring.state.complete


async def test_a_key_expected_while_vault_is_gone_is_loaded_when_it_is_back(
    openbao: TestOpenBao, vault: VaultClient, custodian: VaultClient
) -> None:
    """Stopping the process altogether is no different."""
    held, later = await stored_key(custodian), await stored_key(custodian, "later")
    ring = KeyRing(vault, refresh_seconds=REFRESH_SECONDS, retry_seconds=REFRESH_SECONDS)
    await ring.expect([held])

    await openbao.server.stop()
    try:
        gone = await ring.expect([held, later])
    finally:
        await openbao.server.start()
    running = asyncio.create_task(ring.run())
    await until_reachable(ring, reachable=True)

    running.cancel()
    assert (gone.vault_reachable, gone.complete, gone.held_keys) == (False, False, 1)
    assert ring.secret(later.account_id, later.key_id).reveal() == "later"


async def test_a_revoked_token_costs_no_key_and_is_replaced(
    openbao: TestOpenBao, vault: VaultClient, custodian: VaultClient
) -> None:
    """The next look logs in again, within one pause."""
    held, later = await stored_key(custodian), await stored_key(custodian, "later")
    ring = KeyRing(vault, refresh_seconds=3600)
    await ring.expect([held])
    running = asyncio.create_task(ring.run())
    root = json.loads(openbao.endpoint.unseal_file.read_text())["root_token"]
    async with OpenBaoApi(openbao.endpoint.address, token=root) as api:
        await api.put("sys/leases/revoke-prefix/auth/approle/login")

    while_revoked = ring.secret(held.account_id, held.key_id)
    ring.expect_soon([held, later])
    async with asyncio.timeout(RECOVERY_SECONDS):
        while not ring.state.complete:  # noqa: ASYNC110 - the ring has no event for it
            await asyncio.sleep(0.02)

    running.cancel()
    assert while_revoked.reveal() == CANARY
    assert ring.state.vault_reachable


async def test_a_vault_that_stands_still_holds_nobody_and_is_found_when_it_goes_on(
    openbao: TestOpenBao, vault: VaultClient, custodian: VaultClient
) -> None:
    """What is new is asked for in the background; what is held is served meanwhile; recovery needs no restart."""
    held, later = await stored_key(custodian), await stored_key(custodian, "later")
    ring = KeyRing(vault, refresh_seconds=REFRESH_SECONDS, retry_seconds=REFRESH_SECONDS)
    await ring.expect([held])
    running = asyncio.create_task(ring.run())
    assert openbao.server.child is not None
    pid = openbao.server.child.pid

    os.kill(pid, signal.SIGSTOP)
    try:
        asked_at = time.monotonic()
        ring.expect_soon([held, later])
        waited_seconds = time.monotonic() - asked_at
        await until_reachable(ring, reachable=False)
        meanwhile = ring.secret(held.account_id, held.key_id)
    finally:
        os.kill(pid, signal.SIGCONT)
    async with asyncio.timeout(RECOVERY_SECONDS):
        while not ring.state.complete:  # noqa: ASYNC110 - the ring has no event for it
            await asyncio.sleep(0.02)

    running.cancel()
    assert waited_seconds < 0.1
    assert meanwhile.reveal() == CANARY


async def test_the_version_told_is_the_version_served(vault: VaultClient, custodian: VaultClient) -> None:
    """A staged version is not used before PostgreSQL promotes it; a promotion takes effect at once."""
    first = await stored_key(custodian, "current")
    path = upstream_key_path(first.account_id, first.key_id)
    staged = await custodian.write_secret(path, {"key": "staged"}, cas=first.version)
    ring = KeyRing(vault)

    await ring.expect([first])
    before = ring.secret(first.account_id, first.key_id).reveal()
    await ring.expect([UpstreamKeyRef(account_id=first.account_id, key_id=first.key_id, version=staged)])

    assert (before, ring.secret(first.account_id, first.key_id).reveal()) == ("current", "staged")


async def test_a_key_that_is_not_expected_any_more_is_forgotten(vault: VaultClient, custodian: VaultClient) -> None:
    """A revoked key is out of memory at once."""
    key = await stored_key(custodian)
    ring = KeyRing(vault)
    await ring.expect([key])

    await ring.expect([])

    with pytest.raises(SecretMissing):
        ring.secret(key.account_id, key.key_id)


async def test_one_missing_key_does_not_keep_the_others_from_loading(
    vault: VaultClient, custodian: VaultClient, capsys: pytest.CaptureFixture[str]
) -> None:
    """The state counts it, the log names its path, and neither shows a secret."""
    good = await stored_key(custodian)
    missing = UpstreamKeyRef(account_id="account-without", key_id="secret", version=1)
    ring = KeyRing(vault)

    state = await ring.expect([missing, good])

    printed = capsys.readouterr().out
    assert (state.expected_keys, state.held_keys, state.unreadable_keys) == (2, 1, 1)
    assert "upstream-keys/account-without/secret" in printed
    assert CANARY not in f"{printed} {state} {ring.secret(good.account_id, good.key_id)} {vars(ring)}"
