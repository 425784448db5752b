"""The upstream keys in memory: what Vault said last, kept when Vault is sealed or gone, never written anywhere."""

import asyncio
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

import structlog

from tollhouse_server.errors import SecretMissing, VaultDenied, VaultUnavailable
from tollhouse_server.vault.secret_text import SecretFields, SecretText

KEY_FIELD = "key"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamKeyRef:
    """One upstream key as PostgreSQL knows it; `version` is that of the secret in Vault."""

    account_id: str
    key_id: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRingState:
    """How good the ring is. `age_seconds` since the last full refresh, None before the first."""

    expected_keys: int
    held_keys: int
    unreadable_keys: int
    age_seconds: float | None
    vault_reachable: bool

    @property
    def complete(self) -> bool:
        """Tell whether every expected key is there at its expected version."""
        return self.unreadable_keys == 0 and self.held_keys == self.expected_keys


class SecretReader(Protocol):
    """What the ring needs of Vault."""

    async def probe(self) -> None:
        """Return if Vault answers.

        Raises:
            VaultUnavailable, VaultDenied: it does not, or not to us.
        """

    async def read_secret(self, path: str, *, version: int | None = None) -> SecretFields:
        """Return the fields of one version of a secret.

        Raises:
            SecretMissing: there is no such version.
            VaultUnavailable, VaultDenied: Vault does not answer, or not to us.
        """


@dataclass(frozen=True, slots=True)
class _Held:
    version: int
    secret: SecretText


def upstream_key_path(account_id: str, key_id: str) -> str:
    """Return where a key lies below the secrets mount; its field is `key`."""
    return f"upstream-keys/{account_id}/{key_id}"


class KeyRing:
    """Last-known-good upstream keys. `expect` says which; `run` keeps them current; `secret` never waits."""

    def __init__(
        self,
        vault: SecretReader,
        *,
        refresh_seconds: float = 15.0,
        retry_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare an empty ring; `retry_seconds` is how long it waits where Vault did not answer or lacked a key.

        A look at a Vault that hangs takes eleven seconds: with the pause after it, keys are fresh within half a minute
        of its return.
        """
        self._vault = vault
        self._refresh_seconds = refresh_seconds
        self._retry_seconds = retry_seconds
        self._clock = clock
        self._expected: dict[tuple[str, str], UpstreamKeyRef] = {}
        self._held: dict[tuple[str, str], _Held] = {}
        self._unreadable: set[tuple[str, str]] = set()
        self._refreshed_at: float | None = None
        self._reachable = True
        self._refreshing = asyncio.Lock()
        self._wanted = asyncio.Event()

    def secret(self, account_id: str, key_id: str) -> SecretText:
        """Return the key, from memory.

        Raises:
            SecretMissing: it was never loaded, or is not expected any more.
        """
        held = self._held.get((account_id, key_id))
        if held is None:
            raise SecretMissing(path=upstream_key_path(account_id, key_id))
        return held.secret

    @property
    def state(self) -> KeyRingState:
        """Return how good the ring is now: for metrics and readiness."""
        return KeyRingState(
            expected_keys=len(self._expected),
            held_keys=len(self._held),
            unreadable_keys=len(self._unreadable),
            age_seconds=None if self._refreshed_at is None else self._clock() - self._refreshed_at,
            vault_reachable=self._reachable,
        )

    async def expect(self, keys: Collection[UpstreamKeyRef]) -> KeyRingState:
        """Hold exactly these keys from now on: load new ones and new versions, forget the others at once."""
        self.expect_soon(keys)
        return await self.refresh()

    def expect_soon(self, keys: Collection[UpstreamKeyRef]) -> None:
        """Do as `expect`, but leave the loading to `run`: who calls must not wait for a Vault that hangs."""
        self._expected = {(key.account_id, key.key_id): key for key in keys}
        self._held = {name: held for name, held in self._held.items() if name in self._expected}
        self.request_refresh()

    def request_refresh(self) -> None:
        """Have `run` refresh now: after an upstream refused a key, or a notice of change."""
        self._wanted.set()

    async def refresh(self) -> KeyRingState:
        """Ask Vault for what is not held yet. When it does not answer, everything held stays; nothing is raised."""
        async with self._refreshing:
            self._unreadable = {name for name in self._unreadable if name in self._expected}
            try:
                await self._vault.probe()
                async with asyncio.TaskGroup() as loads:
                    for key in self._outdated():
                        loads.create_task(self._load(key))
            except* (VaultUnavailable, VaultDenied) as errors:
                self._note_reachable(reachable=False, error=errors.exceptions[0])
            else:
                self._refreshed_at = self._clock()
                self._note_reachable(reachable=True)
            return self.state

    async def run(self) -> None:
        """Refresh every `refresh_seconds` and on request, until cancelled."""
        while True:
            # Before the look, not after: what is asked for during it is looked for after it.
            self._wanted.clear()
            state = await self.refresh()
            is_good = state.vault_reachable and state.complete
            try:
                async with asyncio.timeout(self._refresh_seconds if is_good else self._retry_seconds):
                    await self._wanted.wait()
            except TimeoutError:
                continue

    def _outdated(self) -> list[UpstreamKeyRef]:
        """A version in Vault never changes, so what is held at the expected version need not be read again."""
        return [
            key
            for name, key in self._expected.items()
            if name not in self._held or self._held[name].version != key.version
        ]

    async def _load(self, key: UpstreamKeyRef) -> None:
        name = (key.account_id, key.key_id)
        path = upstream_key_path(key.account_id, key.key_id)
        try:
            fields = await self._vault.read_secret(path, version=key.version)
            secret = SecretText(fields[KEY_FIELD])
        except (SecretMissing, VaultDenied, KeyError) as error:
            # One bad entry must not keep the others from loading; an older version of it, if held, keeps serving.
            self._unreadable.add(name)
            _log.warning("upstream_key_unreadable", path=path, version=key.version, error=type(error).__name__)
            return
        self._unreadable.discard(name)
        if self._expected.get(name) == key:
            self._held[name] = _Held(key.version, secret)

    def _note_reachable(self, *, reachable: bool, error: BaseException | None = None) -> None:
        if reachable != self._reachable:
            cause = type(error).__name__ if error else None
            _log.warning("vault_reachability_changed", reachable=reachable, held_keys=len(self._held), error=cause)
        self._reachable = reachable
