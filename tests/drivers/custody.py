"""The custody of keys over real parts: PostgreSQL, OpenBao and the simulator's API Keys API, with crashes on order."""

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse_server.custody import rotation_store
from tollhouse_server.custody.probe import Probe, ProbeVerdict, UpstreamProbe
from tollhouse_server.custody.providers.google import ApiKeysAddress, ApiKeysProvider
from tollhouse_server.custody.providers.manual import ManualProvider
from tollhouse_server.custody.providers.protocol import IssuedKey, KeyOrder, KeyProvider
from tollhouse_server.custody.rotations import KeyVault, Pace, Rotations
from tollhouse_server.custody.tables import KeyRotationRow
from tollhouse_server.custody.terms import Cause, KeyPolicy, Kind, ProviderKind
from tollhouse_server.database.engine import Database
from tollhouse_server.database.rows import insert, run_sql
from tollhouse_server.names import KeyRotationName
from tollhouse_server.routing import account_store
from tollhouse_server.routing.tables import AccountRow, UpstreamKeyRow
from tollhouse_server.simulator.client import SimulatorClient
from tollhouse_server.upstream.gemini import GeminiUpstream
from tollhouse_server.upstream.http import Transport
from tollhouse_server.upstream.protocol import Destination
from tollhouse_server.upstream.tokens import AccessTokens
from tollhouse_server.vault.client import VaultClient
from tollhouse_server.vault.key_ring import upstream_key_path
from tollhouse_server.vault.secret_text import SecretFields, SecretText

TOKEN = "a-token-for-the-simulator"
MODEL = "gemini-2.5-flash"
AT_ONCE = Pace(
    lease_seconds=0.0,
    overlap_seconds=0.0,
    probe_seconds=0.0,
    probe_patience=timedelta(0),
    unknown_patience=timedelta(0),
    manual_seconds=0.0,
    retry_seconds=0.0,
)


class Crash(BaseException):
    """Ends whatever runs, as a kill would: nothing of ours catches it."""


@dataclass(slots=True)
class Boundaries:
    """Everything that a process asks of another, by name, before and after; crashes at one of them."""

    crash_at: int | None = None
    passed: list[str] = field(default_factory=list)

    def passing(self, name: str) -> None:
        self.passed.append(name)
        if len(self.passed) - 1 == self.crash_at:
            raise Crash(name)

    @asynccontextmanager
    async def around(self, name: str) -> AsyncIterator[None]:
        self.passing(f"before {name}")
        yield
        self.passing(f"after {name}")


class CrashingDatabase(Database):
    """Crashes before a transaction, before its commit, or after it."""

    def __init__(self, database: Database, boundaries: Boundaries) -> None:
        self._inner = database
        self._boundaries = boundaries

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        async with self._boundaries.around("transaction"), self._inner.transaction() as session:
            yield session
            self._boundaries.passing("before commit")


@dataclass(frozen=True, slots=True)
class CrashingVault:
    inner: KeyVault
    boundaries: Boundaries

    async def read_secret(self, path: str, *, version: int | None = None) -> SecretFields:
        async with self.boundaries.around("read from Vault"):
            return await self.inner.read_secret(path, version=version)

    async def write_secret(self, path: str, values: Mapping[str, str], *, cas: int) -> int:
        async with self.boundaries.around("write to Vault"):
            return await self.inner.write_secret(path, values, cas=cas)

    async def delete_secret(self, path: str) -> None:
        async with self.boundaries.around("destroy in Vault"):
            await self.inner.delete_secret(path)


@dataclass(frozen=True, slots=True)
class CrashingProvider:
    inner: KeyProvider
    boundaries: Boundaries

    async def find(self, order: KeyOrder) -> IssuedKey | None:
        async with self.boundaries.around("find"):
            return await self.inner.find(order)

    async def issue(self, order: KeyOrder) -> IssuedKey | None:
        async with self.boundaries.around("issue"):
            return await self.inner.issue(order)

    async def retire(self, order: KeyOrder, *, provider_key: str, secret: SecretText | None) -> bool:
        async with self.boundaries.around("retire"):
            return await self.inner.retire(order, provider_key=provider_key, secret=secret)

    async def strays(self, order: KeyOrder, *, ended: Collection[str]) -> tuple[str, ...]:
        return await self.inner.strays(order, ended=ended)


@dataclass(frozen=True, slots=True)
class CrashingProbe:
    inner: Probe
    boundaries: Boundaries

    async def check(self, account_id: str, secret: SecretText) -> ProbeVerdict:
        async with self.boundaries.around("probe"):
            return await self.inner.check(account_id, secret)


class Refusal:
    """An upstream that takes no new key."""

    async def check(self, account_id: str, secret: SecretText) -> ProbeVerdict:
        del account_id, secret
        return ProbeVerdict.REFUSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    """One account with one key, and what its rotation works with."""

    database: Database
    vault: VaultClient
    simulator: SimulatorClient
    transport: Transport
    account_id: str = field(default_factory=lambda: f"account-{uuid4().hex[:8]}")
    refuses: bool = False
    """Whether the upstream refuses every new key."""
    pace: Pace = AT_ONCE
    kind: ProviderKind = ProviderKind.SIMULATOR
    drain_seconds: int = 0

    @property
    def project(self) -> str:
        return f"project-of-{self.account_id}"

    @property
    def provider(self) -> ApiKeysProvider:
        return self.provider_at(ApiKeysAddress(endpoint=self.simulator.url, token=TOKEN, provider="SIMULATOR"))

    def provider_at(self, address: ApiKeysAddress) -> ApiKeysProvider:
        tokens = AccessTokens(self.transport, token_urls=[f"{self.simulator.url}/token"])
        return ApiKeysProvider(self.vault, tokens, address)

    @property
    def probe(self) -> Probe:
        if self.refuses:
            return Refusal()
        where = Destination(base_url=self.simulator.url, api_version="v1beta", model=MODEL)
        return UpstreamProbe(GeminiUpstream(self.transport), lambda _: where)

    def order(self, key_id: str) -> KeyOrder:
        return KeyOrder(account_id=self.account_id, project=self.project, key_id=key_id, old_key_id="", old_version=0)

    def machine(self, boundaries: Boundaries | None = None) -> Rotations:
        """A process that carries rotations through."""
        if boundaries is None:
            providers: dict[ProviderKind, KeyProvider] = {self.kind: self.provider}
            providers[ProviderKind.MANUAL] = ManualProvider(self.vault)
            return Rotations(self.database, self.vault, providers, self.probe, self.pace)
        vault = CrashingVault(self.vault, boundaries)
        provider: KeyProvider = self.provider if self.kind is ProviderKind.SIMULATOR else ManualProvider(vault)
        return Rotations(
            CrashingDatabase(self.database, boundaries),
            vault,
            {self.kind: CrashingProvider(provider, boundaries)},
            CrashingProbe(self.probe, boundaries),
            self.pace,
        )

    async def add_account(self) -> str:
        """Make the account with key `first`, issued by hand; return its secret."""
        await self.simulator.accept_key(TOKEN)
        issued = await self.provider.issue(self.order("first"))
        assert issued is not None
        secret = issued.secret.reveal()
        version = await self.vault.write_secret(upstream_key_path(self.account_id, "first"), {"key": secret}, cas=0)
        account = AccountRow(
            account_id=self.account_id, kind="gemini_api", project=self.project, base_url_key="gemini_api"
        )
        key = UpstreamKeyRow(
            account_id=self.account_id,
            key_id="first",
            vault_version=version,
            fingerprint=account_store.fingerprint_of(secret),
        )
        async with self.database.transaction() as session:
            await insert(session, account)
            await account_store.create_key(session, key)
        return secret

    async def start(self, kind: Kind = Kind.ROTATION) -> KeyRotationName:
        """Start a rotation of the active key."""
        key_id = (await self.keys_in("ACTIVE"))[0]
        async with self.database.transaction() as session:
            key = await rotation_store.find_key(session, self.account_id, key_id, lock=True)
            assert key is not None
            row = await rotation_store.start(
                session,
                key,
                kind=kind,
                cause=Cause.REQUEST,
                actor="tenants/platform/principals/somebody",
                policy=KeyPolicy(provider=self.kind, drain_seconds=self.drain_seconds),
                today=datetime.now(UTC).date(),
            )
        return KeyRotationName(row.account_id, row.rotation_id)

    async def rotation(self, name: KeyRotationName) -> KeyRotationRow:
        async with self.database.transaction() as session:
            return await rotation_store.get_rotation(session, name)

    async def finish(self, name: KeyRotationName, *, at_most: int = 60) -> KeyRotationRow:
        """Let a machine that does not crash bring a rotation to its end."""
        machine = self.machine()
        for _ in range(at_most):
            await machine.advance()
            if (row := await self.rotation(name)).ended_at is not None:
                return row
        raise AssertionError(f"still at {row.step}: {row.error}")

    async def keys_in(self, *states: str) -> list[str]:
        sql = "SELECT key_id FROM upstream_key WHERE account_id = :a AND state = ANY(:states) ORDER BY key_id"
        async with self.database.transaction() as session:
            return [row.key_id for row in await run_sql(session, sql, {"a": self.account_id, "states": list(states)})]

    async def live_at_provider(self) -> list[str]:
        """The ids of the project's keys that were not deleted."""
        listed = await self.provider._call(
            self.order(""),
            lambda client: [key.name for key in client.list_keys(parent=f"projects/{self.project}/locations/global")],
        )
        return sorted(name.rpartition("/")[2] for name in listed)

    async def in_vault(self) -> list[str]:
        return sorted(await self.vault.list_secrets(f"upstream-keys/{self.account_id}"))

    async def assert_in_order(self) -> None:
        """One key is active, and it is the only one that lives at the provider and in Vault; nothing is between."""
        active = await self.keys_in("ACTIVE")
        assert len(active) == 1
        assert await self.keys_in("STAGED", "DRAINING", "DISABLED", "QUARANTINED", "REVOKED") == []
        assert await self.live_at_provider() == active
        assert await self.in_vault() == active
