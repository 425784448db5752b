"""The composition root: builds a process top to bottom on one exit stack. The only file that knows all rooms."""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import structlog
from prometheus_client import CollectorRegistry
from sqlalchemy.exc import DBAPIError

from tollhouse_server import services
from tollhouse_server.access.authorizer import Authorizer
from tollhouse_server.api.chain import Chain
from tollhouse_server.api.department_moves import DueMoves
from tollhouse_server.api.mutation import Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.services.generation_service import GenerationService
from tollhouse_server.api.transports.grpcio import GrpcioServer
from tollhouse_server.audit.store import forget_old_requests
from tollhouse_server.background import Background, background
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import EpochWatch, Topic
from tollhouse_server.errors import FieldViolation, InvalidRequest, StoreUnavailable
from tollhouse_server.generation.attempts import Attempts
from tollhouse_server.generation.departures import Departures
from tollhouse_server.generation.detached import DetachedCalls
from tollhouse_server.generation.generate import Generation
from tollhouse_server.generation.keys import KeyChooser
from tollhouse_server.generation.plans import Planner
from tollhouse_server.generation.streaming import Streaming
from tollhouse_server.identity.directory import Directory
from tollhouse_server.ledger import connections
from tollhouse_server.ledger.housekeeping import Housekeeping
from tollhouse_server.ledger.ledger import Ledger
from tollhouse_server.ledger.terms import SuspensePolicy
from tollhouse_server.ledger.tick import Tick
from tollhouse_server.ledger.verification import LedgerVerification, NightlyVerification
from tollhouse_server.ledger.workers import Liveness, Sweeper, WorkerEpoch
from tollhouse_server.pricing.book import LivePriceBook
from tollhouse_server.reporting.retention import Retention
from tollhouse_server.reporting.rollup_findings import rollup_findings
from tollhouse_server.reporting.rollups import RollUps
from tollhouse_server.routing.addresses import addresses_of
from tollhouse_server.routing.catalogue import Catalogue
from tollhouse_server.routing.live import LiveCatalogue
from tollhouse_server.routing.targets import UpstreamKeyMeta
from tollhouse_server.settings import Settings
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.tenancy.project_paths import ProjectPaths
from tollhouse_server.traffic.retry_budget import RetryBudget
from tollhouse_server.traffic.traffic import Traffic
from tollhouse_server.upstream.gemini import GeminiUpstream, open_session
from tollhouse_server.vault.approle import AppRoleFiles
from tollhouse_server.vault.client import VaultClient
from tollhouse_server.vault.connection import VaultAddress
from tollhouse_server.vault.key_ring import KeyRing, UpstreamKeyRef
from tollhouse_server.vault.paths import PEPPER_FIELD, PEPPER_PATH

if TYPE_CHECKING:
    from tollhouse_server.ledger.connections import Pool

_log = structlog.get_logger(__name__)

_GAUGE_SECONDS = 2.0
_CHORE_SECONDS = 3600.0
_SETTLE_SECONDS = 5.0
_GOODBYE_SECONDS = 2.0


class _NoKeyWatch:
    def is_out(self, account_id: str, key_id: str) -> bool:
        return False

    def refused(self, key: UpstreamKeyMeta, *, http_status: int) -> None:
        pass

    def used(self, key: UpstreamKeyMeta, *, cost_nanos: int) -> None:
        pass


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerParts:
    """The ledger as one process has it."""

    pool: "Pool"
    tick: Tick
    epoch: WorkerEpoch
    ledger: Ledger

    def run_in(self, tasks: Background) -> None:
        """Start the tick and the heartbeats."""
        tasks.keep(self.tick.run)
        tasks.keep(self.epoch.run)

    async def say_goodbye(self) -> None:
        """Wait until every settlement is durable, and retire; the pool is of no use after it."""
        await self.ledger.drain()
        connections.hurry(self.pool)
        try:
            async with asyncio.timeout(connections.GOODBYE_SECONDS):
                await self.epoch.retire()
        except (StoreUnavailable, TimeoutError) as error:
            # The sweeper finds out by the silence.
            _log.warning("not_retired", detail=type(error).__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """What a worker keeps in memory and the epochs keep current."""

    watch: EpochWatch
    catalogue: LiveCatalogue
    prices: LivePriceBook
    directory: Directory
    authorizer: Authorizer
    project_paths: ProjectPaths
    keys: KeyRing


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A worker that serves. `port` is where it listens."""

    port: int
    server: GrpcioServer
    calls: DetachedCalls
    ledger: LedgerParts

    async def drain(self, seconds: float) -> None:
        """Take no new calls, let those under way end, make every settlement durable, and say goodbye.

        Without the database this would never end: what is not settled some seconds after the time is up goes to
        suspense, as the attempts of any process that ended do.
        """
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + seconds
        try:
            async with asyncio.timeout(seconds + _SETTLE_SECONDS):
                await self.server.stop(seconds)
                await self.calls.drain(max(0.0, ends_at - loop.time()))
                await self.ledger.say_goodbye()
        except TimeoutError:
            _log.error("drain_cut_short", in_flight=self.ledger.ledger.in_flight)


def required_dsn(settings: Settings) -> str:
    """Return the application role's DSN.

    Raises:
        InvalidRequest: it is not set.
    """
    if settings.postgres_dsn is None:
        raise _missing("TOLLHOUSE_POSTGRES_DSN")
    return settings.postgres_dsn.get_secret_value()


def gateway_vault(settings: Settings) -> VaultClient:
    """Return the client of the role that reads keys.

    Raises:
        InvalidRequest: an address or a file is not set.
    """
    if settings.vault_role_id_file is None or settings.vault_secret_id_file is None:
        raise _missing("TOLLHOUSE_VAULT_ROLE_ID_FILE and TOLLHOUSE_VAULT_SECRET_ID_FILE")
    files = AppRoleFiles(role_id_file=settings.vault_role_id_file, secret_id_file=settings.vault_secret_id_file)
    return VaultClient(_vault_address(settings), files)


def custodian_vault(settings: Settings) -> VaultClient:
    """Return the client of the role that writes keys.

    Raises:
        InvalidRequest: an address or a file is not set.
    """
    role, secret = settings.vault_custodian_role_id_file, settings.vault_custodian_secret_id_file
    if role is None or secret is None:
        raise _missing("TOLLHOUSE_VAULT_CUSTODIAN_ROLE_ID_FILE and TOLLHOUSE_VAULT_CUSTODIAN_SECRET_ID_FILE")
    return VaultClient(_vault_address(settings), AppRoleFiles(role_id_file=role, secret_id_file=secret))


async def read_pepper(vault: VaultClient) -> bytes:
    """Return the secret under which API keys are digested.

    Raises:
        VaultUnavailable, VaultDenied, SecretMissing: the server cannot start without it.
    """
    return base64.b64decode((await vault.read_secret(PEPPER_PATH))[PEPPER_FIELD])


@asynccontextmanager
async def open_worker(settings: Settings) -> AsyncIterator[Worker]:
    """Build a worker and serve until the block is left.

    Raises:
        TollhouseError: PostgreSQL or Vault cannot be used; the message says what to do.
    """
    async with AsyncExitStack() as stack:
        metrics = Metrics(CollectorRegistry())
        metrics.process_started(role="worker")
        database = Database(required_dsn(settings))
        stack.push_async_callback(database.close)
        vault, custodian = gateway_vault(settings), custodian_vault(settings)
        stack.push_async_callback(vault.close)
        stack.push_async_callback(custodian.close)
        pepper = await read_pepper(vault)
        knowledge = await _knowledge(settings, database, vault, pepper)
        ledger = await _open_ledger(settings, stack, metrics)
        tasks = await stack.enter_async_context(background())
        stack.callback(connections.hurry, ledger.pool)
        ledger.run_in(tasks)
        session = await stack.enter_async_context(open_session())
        calls = DetachedCalls(tasks.group)
        key_watch = _NoKeyWatch()
        generation = Generation(
            planner=Planner(
                lambda: knowledge.catalogue.current,
                lambda: knowledge.prices.current,
                output_cap_tokens=settings.default_output_cap_tokens,
                stream_step_tokens=settings.stream_step_tokens,
            ),
            departures=Departures(
                traffic=Traffic(),
                retries=RetryBudget(),
                keys=KeyChooser(lambda: knowledge.catalogue.current, knowledge.keys, key_watch.is_out),
                key_watch=key_watch,
            ),
            attempts=Attempts(ledger.ledger),
            upstream=GeminiUpstream(session),
            calls=calls,
            metrics=metrics,
            max_attempts=settings.max_attempts,
            upstream_timeout_seconds=settings.upstream_timeout_seconds,
            settle_grace_seconds=settings.settle_grace_seconds,
        )
        methods = services.all_methods(
            services.ServiceParts(
                database=database,
                mutations=Mutations(database, _derived(pepper, "mutations")),
                pages=PageTokens(_derived(pepper, "pages")),
                authorizer=knowledge.authorizer,
                catalogue=knowledge.catalogue,
                prices=knowledge.prices,
                custodian=custodian,
                addresses=addresses_of(settings),
                pepper=pepper,
                generation=GenerationService(
                    generation=generation,
                    streaming=Streaming(generation),
                    project_paths=knowledge.project_paths,
                ),
            )
        )
        chain = Chain(
            directory=knowledge.directory,
            authorizer=knowledge.authorizer,
            metrics=metrics,
            default_deadline_seconds=settings.default_deadline_seconds,
            max_message_bytes=settings.max_message_bytes,
        )
        server = GrpcioServer(chain, methods, settings)
        for run in (knowledge.watch.run, knowledge.keys.run, vault.run, custodian.run):
            tasks.keep(run)
        tasks.keep(partial(_gauges, metrics, knowledge, ledger))
        yield Worker(port=await server.start(), server=server, calls=calls, ledger=ledger)


@asynccontextmanager
async def open_housekeeper(settings: Settings) -> AsyncIterator[Housekeeping]:
    """Build the housekeeper and let it work until the block is left.

    Raises:
        StoreUnavailable: PostgreSQL cannot be reached.
    """
    async with AsyncExitStack() as stack:
        metrics = Metrics(CollectorRegistry())
        metrics.process_started(role="housekeeper")
        parts = await _open_ledger(settings, stack, metrics)
        database = Database(required_dsn(settings), pool_size=2)
        stack.push_async_callback(database.close)
        tasks = await stack.enter_async_context(background())
        stack.callback(connections.hurry, parts.pool)
        parts.run_in(tasks)
        housekeeping = Housekeeping(parts.pool, metrics)
        tasks.keep(partial(_forget_old_requests, database))
        tasks.keep(Sweeper(parts.pool, parts.tick, _liveness(settings), _policy(settings)).run)
        tasks.keep(housekeeping.run)
        tasks.keep(RollUps(database, metrics).run)
        tasks.keep(Retention(database, months=settings.usage_retention_months).run)
        verification = LedgerVerification(database, rollup_findings)
        tasks.keep(NightlyVerification(parts.pool, verification, metrics).run)
        yield housekeeping
        with suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await parts.say_goodbye()


async def _knowledge(settings: Settings, database: Database, vault: VaultClient, pepper: bytes) -> Knowledge:
    watch = EpochWatch(database)
    watch.before_reading(DueMoves(database).carry_out)
    catalogue, prices, keys = LiveCatalogue(database, addresses_of(settings)), LivePriceBook(database), KeyRing(vault)

    async def expect_keys() -> None:
        found = [
            UpstreamKeyRef(account_id=key.account_id, key_id=key.key_id, version=key.vault_version)
            for account in catalogue.current.accounts()
            for key in catalogue.current.keys_of(account.account_id)
        ]
        await keys.expect(found)

    watch.on_change(Topic.CATALOGUE, catalogue.reload)
    watch.on_change(Topic.ACCOUNTS, catalogue.reload)
    watch.on_change(Topic.ACCOUNTS, expect_keys)
    watch.on_change(Topic.PRICES, prices.reload)
    knowledge = Knowledge(
        watch=watch,
        catalogue=catalogue,
        prices=prices,
        directory=Directory(database, watch, pepper),
        authorizer=Authorizer(database, watch),
        project_paths=ProjectPaths(database, watch),
        keys=keys,
    )
    await watch.refresh()
    return knowledge


async def _open_ledger(settings: Settings, stack: AsyncExitStack, metrics: Metrics) -> LedgerParts:
    """Open the ledger; its tasks must have ended when the stack unwinds: a pool waits for those who still use it."""
    dsn = required_dsn(settings)
    pool = await connections.create_pool(dsn)
    stack.push_async_callback(connections.close_pool, pool)
    epoch = WorkerEpoch(pool, _liveness(settings))
    await epoch.register()
    tick = Tick(partial(connections.connect, dsn), lambda: epoch.current, metrics)
    return LedgerParts(pool=pool, tick=tick, epoch=epoch, ledger=Ledger(tick, _policy(settings)))


def _liveness(settings: Settings) -> Liveness:
    return Liveness(dead_after_seconds=settings.worker_dead_after_seconds)


def _policy(settings: Settings) -> SuspensePolicy:
    return SuspensePolicy(settings.suspense_policy.upper())


async def _gauges(metrics: Metrics, knowledge: Knowledge, ledger: LedgerParts) -> None:
    """Tell the metrics how this process is, every few seconds."""
    while True:
        state = knowledge.keys.state
        metrics.queued_works(ledger.tick.queued)
        metrics.vault_seen(up=state.vault_reachable)
        metrics.database_seen(up=knowledge.watch.staleness_seconds < _GAUGE_SECONDS)
        metrics.epoch_staleness(knowledge.watch.staleness_seconds)
        metrics.upstream_keys(state="held", count=state.held_keys)
        metrics.upstream_keys(state="unreadable", count=state.unreadable_keys)
        metrics.upstream_key_age(state="active", seconds=_oldest_key_seconds(knowledge.catalogue.current))
        await asyncio.sleep(_GAUGE_SECONDS)


def _oldest_key_seconds(catalogue: Catalogue) -> float:
    """Return the age of the oldest active upstream key, zero where there is none."""
    keys = [key for account in catalogue.accounts() for key in catalogue.keys_of(account.account_id)]
    return max(((datetime.now(UTC) - key.created_at).total_seconds() for key in keys), default=0.0)


async def _forget_old_requests(database: Database) -> None:
    """Drop the answers kept for repeated administrative requests once they are a day old, every hour."""
    while True:
        try:
            async with database.transaction() as session:
                await forget_old_requests(session)
        except StoreUnavailable as error:
            _log.warning("chore_postponed", chore="old administrative requests", detail=error.detail)
        except DBAPIError as error:
            _log.error("chore_failed", chore="old administrative requests", error=type(error.orig).__name__)
        await asyncio.sleep(_CHORE_SECONDS)


def _vault_address(settings: Settings) -> VaultAddress:
    if settings.vault_address is None:
        raise _missing("TOLLHOUSE_VAULT_ADDRESS")
    return VaultAddress(url=settings.vault_address, namespace=settings.vault_namespace, ca_file=settings.vault_ca_file)


def _derived(pepper: bytes, purpose: str) -> bytes:
    """Return a key of its own for each purpose, the same on every server."""
    return hmac.digest(pepper, purpose.encode(), hashlib.sha256)


def _missing(names: str) -> InvalidRequest:
    return InvalidRequest(violations=(FieldViolation(path=names, description="must be set to serve"),))
