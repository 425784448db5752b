"""The room that serves calls, as `wiring` puts it together, over a real ledger and whatever upstream a test names."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from prometheus_client import CollectorRegistry
from tollhouse_server.errors import SecretMissing
from tollhouse_server.generation.attempts import Attempts
from tollhouse_server.generation.calls import Answer, GenerationCall
from tollhouse_server.generation.departures import Departures
from tollhouse_server.generation.detached import DetachedCalls
from tollhouse_server.generation.generate import Generation
from tollhouse_server.generation.keys import KeyChooser
from tollhouse_server.generation.plans import Planner
from tollhouse_server.generation.streaming import Streaming
from tollhouse_server.ledger.ledger import Ledger
from tollhouse_server.ledger.terms import RecordKind, SuspensePolicy
from tollhouse_server.pricing.book import packaged_prices
from tollhouse_server.pricing.ceiling import ModelBounds
from tollhouse_server.pricing.terms import PriceBook
from tollhouse_server.routing.catalogue import Catalogue, CatalogueParts, Model, Tier, TierChoice
from tollhouse_server.routing.catalogue_file import CatalogueFile, ModelEntry, packaged_catalogue
from tollhouse_server.routing.targets import Account, UpstreamKeyMeta
from tollhouse_server.simulator.client import ServedCall, SimulatorClient
from tollhouse_server.simulator.keys import key_id
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.traffic.breakers import Breakers
from tollhouse_server.traffic.retry_budget import RetryBudget
from tollhouse_server.traffic.traffic import Traffic
from tollhouse_server.upstream.gemini import GeminiUpstream
from tollhouse_server.upstream.http import open_transport
from tollhouse_server.upstream.protocol import Method, UpstreamKind
from tollhouse_server.vault.key_ring import KEY_FIELD, KeyRing, UpstreamKeyRef, upstream_key_path
from tollhouse_server.vault.secret_text import SecretFields

from tests.drivers.ledger import SCOPE, LedgerProcess, LedgerView, ledger_process, ledger_view
from tests.drivers.postgres import TestDatabase

ROOMY_NANOS = 10**15
OUTPUT_CAP_TOKENS = 8192
NOBODY_LISTENS = "http://127.0.0.1:9"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamAccount:
    """An account and the secrets of its keys; the one at position n has the id `key-n`. Keys may lie nowhere."""

    account_id: str
    base_url: str
    secrets: tuple[str, ...]
    secrets_are_held: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A usage record, as far as these tests look at it."""

    attempt_id: UUID
    request_id: UUID
    kind: str
    outcome: str
    account_id: str
    model: str
    input_tokens: int
    output_tokens: int
    cost_nanos: int
    ceiling_nanos: int
    response_id: str


@dataclass(slots=True)
class SecretsInMemory:
    """Where the key ring finds the secrets of a test."""

    secrets: dict[str, str] = field(default_factory=dict)

    async def probe(self) -> None:
        """Answer."""

    async def read_secret(self, path: str, *, version: int | None = None) -> SecretFields:
        """Give the one version there is."""
        if path not in self.secrets:
            raise SecretMissing(path=path)
        return SecretFields({KEY_FIELD: self.secrets[path]}, version=version or 1)


@dataclass(slots=True)
class RefusedKeys:
    """The keys that the upstream has refused, and the calls that each has served."""

    refused_keys: set[tuple[str, str]] = field(default_factory=set)
    uses: Counter[tuple[str, str]] = field(default_factory=Counter)

    def is_out(self, account_id: str, key_id: str) -> bool:
        """Tell whether a key was refused."""
        return (account_id, key_id) in self.refused_keys

    def refused(self, key: UpstreamKeyMeta, *, http_status: int) -> None:
        """Note a key that was refused."""
        assert http_status in {400, 401, 403}
        self.refused_keys.add((key.account_id, key.key_id))

    def used(self, key: UpstreamKeyMeta, *, cost_nanos: int) -> None:
        """Count a served call."""
        assert cost_nanos >= 0
        self.uses[key.account_id, key.key_id] += 1


@dataclass(slots=True, kw_only=True)
class GenerationProcess:
    """What one worker has to serve calls with, and a view of its ledger with one roomy limit on the tenant."""

    ledger: LedgerProcess
    view: LedgerView
    limit_id: int
    calls: DetachedCalls
    secrets: SecretsInMemory
    ring: KeyRing
    catalogue: Catalogue
    key_watch: RefusedKeys = field(default_factory=RefusedKeys)
    generation: Generation = field(init=False)
    streaming: Streaming = field(init=False)
    traffic: Traffic = field(init=False)
    retries: RetryBudget = field(default_factory=RetryBudget)
    key_version: int = 0
    price_book: PriceBook = field(default_factory=lambda: PriceBook(1, packaged_prices().lists))
    stated_time: datetime | None = None
    """What the clock of plans says, for the prices of another day; None is the time."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    async def use(self, *accounts: UpstreamAccount) -> None:
        """Serve from these accounts from now on."""
        # The ring keeps a version that it holds already.
        self.key_version += 1
        version = self.key_version
        keys = [
            (UpstreamKeyRef(account_id=account.account_id, key_id=f"key-{number}", version=version), account, secret)
            for account in accounts
            for number, secret in enumerate(account.secrets)
        ]
        self.catalogue = catalogue_with(accounts, [key for key, _, _ in keys])
        self.secrets.secrets = {
            upstream_key_path(key.account_id, key.key_id): secret
            for key, account, secret in keys
            if account.secrets_are_held
        }
        self.traffic.reconfigure(self.catalogue.accounts())
        await self.ring.expect([key for key, _, _ in keys])

    async def generate(self, call: GenerationCall) -> Answer:
        """Serve a unary call as its RPC does: apart from it, to the end."""
        return await self.generation.generate(call)

    async def records(self) -> list[Record]:
        """Return every usage record, by time."""
        columns = ", ".join(Record.__dataclass_fields__)
        rows = await self.view.connection.fetch(
            f"SELECT {columns} FROM usage_record ORDER BY settled_at, attempt_id"  # noqa: S608 - names of this file
        )
        return [Record(**dict(row)) for row in rows]

    async def record(self) -> Record:
        """Return the one usage record there is."""
        (record,) = await self.records()
        return record

    async def assert_nothing_in_flight(self) -> None:
        """No attempt is open, no money held, and the limit counts what the records say."""
        booked = sum(record.cost_nanos for record in await self.records())
        assert await self.view.count("attempt") == 0
        assert self.ledger.ledger.in_flight == 0
        assert await self.view.counter(self.limit_id) == (0, booked)

    async def assert_nothing_booked(self) -> None:
        """The call left no trace: no record, no attempt, nothing held, its request id still free."""
        assert await self.records() == []
        assert await self.view.count("request_key") == 0
        await self.assert_nothing_in_flight()

    async def assert_in_suspense(self, outcome: str = "") -> Record:
        """The one attempt ended in suspense, at its ceiling, and holds nothing; return its record."""
        record = await self.record()
        assert record.kind == RecordKind.SUSPENSE
        assert record.outcome.startswith(outcome)
        assert record.cost_nanos == record.ceiling_nanos > 0
        assert await self.view.count("suspense") == 1
        await self.assert_nothing_in_flight()
        return record


@asynccontextmanager
async def generation_process(
    database: TestDatabase,
    *accounts: UpstreamAccount,
    max_attempts: int = 3,
    upstream_timeout_seconds: float = 10.0,
    settle_grace_seconds: float = 10.0,
    stream_step_tokens: int = 0,
    policy: SuspensePolicy = SuspensePolicy.CEILING,
) -> AsyncIterator[GenerationProcess]:
    """Serve calls of tenant acme from these accounts; leaving the block cancels what is still under way."""
    async with (
        ledger_view(database.root_dsn) as view,
        ledger_process(database.app_dsn) as ledger,
        open_transport() as transport,
        asyncio.TaskGroup() as group,
    ):
        await view.add_tenant()
        ledger.ledger = Ledger(ledger.tick, policy)
        secrets = SecretsInMemory()
        process = GenerationProcess(
            ledger=ledger,
            view=view,
            limit_id=await view.add_limit("budget", "tenants/acme", "COST", "TOTAL", ROOMY_NANOS),
            calls=DetachedCalls(group),
            secrets=secrets,
            ring=KeyRing(secrets),
            catalogue=catalogue_with((), ()),
        )
        metrics = Metrics(process.registry)
        process.traffic = Traffic(
            accounts=process.catalogue.accounts(),
            breakers=Breakers(),
            metrics=metrics,
            # Among targets of one rank the first is taken: tests say which that is.
            chance=lambda: 0.0,
        )
        process.generation = Generation(
            planner=Planner(
                lambda: process.catalogue,
                lambda: process.price_book,
                output_cap_tokens=OUTPUT_CAP_TOKENS,
                stream_step_tokens=stream_step_tokens,
                clock=lambda: process.stated_time or datetime.now(UTC),
            ),
            departures=Departures(
                traffic=process.traffic,
                retries=process.retries,
                keys=KeyChooser(lambda: process.catalogue, process.ring, process.key_watch.is_out),
                key_watch=process.key_watch,
            ),
            attempts=Attempts(ledger.ledger),
            calls=process.calls,
            upstream=GeminiUpstream(transport),
            metrics=metrics,
            max_attempts=max_attempts,
            upstream_timeout_seconds=upstream_timeout_seconds,
            settle_grace_seconds=settle_grace_seconds,
        )
        process.streaming = Streaming(process.generation)
        await process.use(*accounts)
        try:
            yield process
        finally:
            await process.calls.drain(0)


def account_at(base_url: str, account_id: str = "main", *, keys: int = 1) -> UpstreamAccount:
    """Build an account whose keys no other test uses: the simulator tells tests apart by them."""
    secrets = tuple(f"{account_id}-{uuid4().hex}" for _ in range(keys))
    return UpstreamAccount(account_id=account_id, base_url=base_url, secrets=secrets)


def call_of(
    text: str = "How long is the bridge?",
    *,
    config: Mapping[str, Any] | None = None,
    deadline_seconds: float = 20.0,
    **changes: Any,
) -> GenerationCall:
    """Build a unary call to tier flash; naming a model instead leaves the tier out."""
    body: dict[str, Any] = {"contents": [{"parts": [{"text": text}], "role": "user"}]}
    values: dict[str, Any] = {
        "scope": SCOPE,
        "request_id": uuid4(),
        "method": Method.GENERATE,
        "tier": None if "model" in changes else "flash",
        "model": None,
        "body": body | ({"generationConfig": config} if config is not None else {}),
        "deadline": time.monotonic() + deadline_seconds,
    }
    return GenerationCall(**(values | changes))


async def served_with(simulator: SimulatorClient, secret: str) -> list[ServedCall]:
    """Return the calls that the simulator served with one key."""
    return await simulator.calls(key_id=key_id(secret))


async def until_served(simulator: SimulatorClient, secret: str) -> None:
    """Wait for a call in the simulator's log: it is there before the first byte of its answer leaves."""
    async with asyncio.timeout(10):
        while not await served_with(simulator, secret):  # noqa: ASYNC110 - another process; there is no event for it
            await asyncio.sleep(0.02)


def catalogue_with(accounts: Sequence[UpstreamAccount], keys: Sequence[UpstreamKeyRef]) -> Catalogue:
    """Build the packaged catalogue with these accounts and keys."""
    packaged = packaged_catalogue()
    return Catalogue(
        CatalogueParts(
            models=tuple(_model(entry) for entry in packaged.models),
            tiers=_tiers(packaged),
            accounts=tuple(
                Account(
                    account_id=account.account_id,
                    kind=UpstreamKind.GEMINI_API,
                    project=f"project-{account.account_id}",
                    base_url=account.base_url,
                )
                for account in accounts
            ),
            keys=tuple(
                UpstreamKeyMeta(
                    account_id=key.account_id,
                    key_id=key.key_id,
                    vault_version=key.version,
                    fingerprint="",
                    created_at=datetime.now(UTC),
                )
                for key in keys
            ),
            api_versions={
                (kind, method): version
                for kind, versions in packaged.api_versions.items()
                for method, version in versions.items()
            },
        )
    )


def models_of(tier: str) -> list[str]:
    """Return the models behind a tier, the first choice first."""
    (found,) = (one for one in packaged_catalogue().tiers if one.tier == tier)
    return [target.model for target in found.targets]


def _model(entry: ModelEntry) -> Model:
    return Model(
        model=entry.model,
        display_name=entry.display_name,
        upstreams=entry.upstreams,
        capabilities=frozenset(entry.capabilities),
        bounds=ModelBounds(
            input_token_limit=entry.input_token_limit,
            output_token_limit=entry.output_token_limit,
            images_per_answer=entry.images_per_answer,
            grounding_queries=entry.grounding_queries,
            tool_prompt_tokens=entry.tool_prompt_tokens,
        ),
    )


def _tiers(packaged: CatalogueFile) -> tuple[Tier, ...]:
    return tuple(
        Tier(
            tier=one.tier,
            display_name=one.display_name,
            description=one.description,
            choices=tuple(TierChoice(model=target.model) for target in one.targets),
        )
        for one in packaged.tiers
    )
