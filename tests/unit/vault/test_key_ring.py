"""The key ring's own logic, with a Vault that a test can break in ways a real one takes long to break."""

import asyncio
from dataclasses import dataclass, field

import pytest
from tollhouse_server.errors import SecretMissing, TollhouseError, VaultDenied, VaultUnavailable
from tollhouse_server.vault.key_ring import KeyRing, UpstreamKeyRef, upstream_key_path
from tollhouse_server.vault.secret_text import SecretFields

KEY = UpstreamKeyRef(account_id="acme", key_id="k1", version=1)


@dataclass
class FakeVault:
    """Answers from a dict, or fails with `failure`."""

    secrets: dict[str, str] = field(default_factory=dict)
    failure: TollhouseError | None = None
    reads: list[str] = field(default_factory=list)

    async def probe(self) -> None:
        if self.failure is not None:
            raise self.failure

    async def read_secret(self, path: str, *, version: int | None = None) -> SecretFields:
        self.reads.append(path)
        await asyncio.sleep(0)
        if path not in self.secrets:
            raise SecretMissing(path=path)
        return SecretFields({"key": self.secrets[path]}, version=version or 1)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def vault() -> FakeVault:
    return FakeVault(secrets={upstream_key_path("acme", "k1"): "secret-1"})


@pytest.mark.parametrize("failure", [VaultUnavailable(), VaultDenied(path="auth/approle/login")])
async def test_held_keys_survive_a_failing_vault_and_grow_old(vault: FakeVault, failure: TollhouseError) -> None:
    """Sealed, gone, or our role taken away: what is held keeps serving, and its age shows."""
    clock = Clock()
    ring = KeyRing(vault, clock=clock)
    await ring.expect([KEY])
    vault.failure = failure
    clock.now = 40.0

    state = await ring.refresh()

    assert ring.secret("acme", "k1").reveal() == "secret-1"
    assert (state.vault_reachable, state.age_seconds, state.complete) == (False, 40.0, True)


async def test_before_the_first_refresh_there_is_no_age(vault: FakeVault) -> None:
    """Never asked is not fresh."""
    assert KeyRing(vault).state.age_seconds is None


async def test_a_refresh_reads_only_what_is_not_held(vault: FakeVault) -> None:
    """A version never changes, so a quiet interval costs one probe."""
    ring = KeyRing(vault)
    await ring.expect([KEY])

    await ring.refresh()

    assert vault.reads == [upstream_key_path("acme", "k1")]


async def test_a_new_version_that_cannot_be_read_leaves_the_old_one_serving(vault: FakeVault) -> None:
    """A promotion that went wrong in Vault does not take the key away."""
    ring = KeyRing(vault)
    await ring.expect([KEY])
    vault.secrets.clear()

    state = await ring.expect([UpstreamKeyRef(account_id="acme", key_id="k1", version=2)])

    assert ring.secret("acme", "k1").reveal() == "secret-1"
    assert (state.unreadable_keys, state.complete) == (1, False)


async def test_a_requested_refresh_does_not_wait_for_the_interval(vault: FakeVault) -> None:
    """After a change is announced, the new key is there at once."""
    vault.failure = VaultUnavailable()
    ring = KeyRing(vault, refresh_seconds=3600)
    await ring.expect([KEY])
    running = asyncio.create_task(ring.run())
    await asyncio.sleep(0.01)
    vault.failure = None

    ring.request_refresh()
    await asyncio.sleep(0.05)

    running.cancel()
    assert ring.state.complete


async def test_what_is_asked_for_during_a_look_is_looked_for_after_it(vault: FakeVault) -> None:
    """A change that comes while Vault is being asked must not wait for the next round."""
    ring = KeyRing(vault, refresh_seconds=3600, retry_seconds=3600)
    late = UpstreamKeyRef(account_id="acme", key_id="k2", version=1)
    vault.secrets[upstream_key_path("acme", "k2")] = "secret-2"
    ring.expect_soon([KEY])
    running = asyncio.create_task(ring.run())
    while not vault.reads:  # noqa: ASYNC110 - the vault has no event for it
        await asyncio.sleep(0)

    ring.expect_soon([KEY, late])
    async with asyncio.timeout(5):
        while not ring.state.complete or ring.state.held_keys < 2:  # noqa: ASYNC110 - the ring has no event for it
            await asyncio.sleep(0)

    running.cancel()
    assert ring.secret("acme", "k2").reveal() == "secret-2"


async def test_expecting_soon_forgets_at_once_and_asks_nobody(vault: FakeVault) -> None:
    """A revoked key is out of memory before Vault is asked for anything."""
    ring = KeyRing(vault)
    await ring.expect([KEY])
    reads = len(vault.reads)

    ring.expect_soon([])

    with pytest.raises(SecretMissing):
        ring.secret("acme", "k1")
    assert len(vault.reads) == reads
