"""A worker: serves calls."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TypeAlias

import structlog
from prometheus_client import CollectorRegistry

from tollhouse_server import services
from tollhouse_server.api.chain import Chain, Method
from tollhouse_server.api.mutation import Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.services.generation_service import GenerationService
from tollhouse_server.api.transports.grpcio import GrpcioServer
from tollhouse_server.api.transports.transport import Transport
from tollhouse_server.background import background
from tollhouse_server.chargeback.refusals import RefusedSpend
from tollhouse_server.custody.key_use import KeyUse
from tollhouse_server.custody.key_watch import KeyWatch
from tollhouse_server.custody.quarantine import Quarantine
from tollhouse_server.database.engine import Database
from tollhouse_server.database.rounds import postponing
from tollhouse_server.dlp.findings import FindingLog
from tollhouse_server.dlp.guard import DataGuard
from tollhouse_server.generation.attempts import Attempts
from tollhouse_server.generation.departures import Departures
from tollhouse_server.generation.detached import DetachedCalls
from tollhouse_server.generation.generate import Generation
from tollhouse_server.generation.keeping import Keeper
from tollhouse_server.generation.keys import KeyChooser
from tollhouse_server.generation.plans import Planner
from tollhouse_server.generation.streaming import Streaming
from tollhouse_server.ledger import connections
from tollhouse_server.routing.addresses import addresses_of
from tollhouse_server.routing.catalogue import Catalogue
from tollhouse_server.settings import Settings
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.telemetry.observing import Observer
from tollhouse_server.telemetry.vitals import Vitals
from tollhouse_server.traffic.reports import Reports
from tollhouse_server.upstream.protocol import Upstream
from tollhouse_server.upstream.upstreams import open_upstreams
from tollhouse_server.vault.client import VaultClient
from tollhouse_server.vault.tenant_keys import TenantKeys
from tollhouse_server.wiring.audit import AuditParts, open_audit
from tollhouse_server.wiring.content import ContentParts, open_content, open_tenant_keys
from tollhouse_server.wiring.documents import ways_of
from tollhouse_server.wiring.identity import IdentityParts
from tollhouse_server.wiring.knowledge import Knowledge, open_knowledge
from tollhouse_server.wiring.ledger import LedgerParts, open_ledger
from tollhouse_server.wiring.operations import diagnosis_of
from tollhouse_server.wiring.outside import (
    custodian_vault,
    data_policy_key,
    derived,
    gateway_vault,
    read_pepper,
    required_dsn,
)
from tollhouse_server.wiring.tracing import open_tracing
from tollhouse_server.wiring.traffic import TrafficParts, open_traffic

_log = structlog.get_logger(__name__)

_KNOWING = 3
"""Connections with which a worker learns of changes."""
_GAUGE_SECONDS = 2.0
_SETTLE_SECONDS = 5.0

Write: TypeAlias = Callable[[], Awaitable[object]]
BuildTransport: TypeAlias = Callable[[Chain, Sequence[Method], Settings, Metrics], Transport]
"""Builds what calls arrive by. Raises InvalidRequest: the certificate's files cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A worker that serves. `port` is where it listens; `last_writes` write what is otherwise written now and then."""

    port: int
    server: Transport
    calls: DetachedCalls
    ledger: LedgerParts
    content: ContentParts
    reports: Reports
    last_writes: Sequence[Write]

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
                all_ended = await self.calls.drain(max(0.0, ends_at - loop.time()))
                await self.ledger.say_goodbye()
                await self._write_what_waits()
                await self.content.writer.drain(_SETTLE_SECONDS)
                if all_ended:
                    # Calls that were cut are under way for their upstreams for some seconds more.
                    with postponing("the last report"):
                        await self.reports.say_goodbye()
        except TimeoutError:
            _log.error("drain_cut_short", in_flight=self.ledger.ledger.in_flight)

    async def _write_what_waits(self) -> None:
        """Do the last writes; what cannot be written keeps nothing else from it."""
        for write in self.last_writes:
            with postponing(f"{write.__qualname__} at the end"):
                await write()


@asynccontextmanager
async def open_worker(settings: Settings, build: BuildTransport = GrpcioServer) -> AsyncIterator[Worker]:
    """Build a worker and serve until the block is left.

    Raises:
        TollhouseError: PostgreSQL or Vault cannot be used; the message says what to do.
    """
    async with AsyncExitStack() as stack:
        metrics = Metrics(CollectorRegistry())
        metrics.process_started(role="worker")
        # Connections of their own for questions whether one may: whoever changes something asks them while he holds
        # another, and rows that others wait for.
        database, knowing = Database(required_dsn(settings)), Database(required_dsn(settings), pool_size=_KNOWING)
        vault, custodian = gateway_vault(settings), custodian_vault(settings)
        for opened in (database, knowing, vault, custodian):
            stack.push_async_callback(opened.close)
        pepper = await read_pepper(vault)
        knowledge = await open_knowledge(settings, knowing, vault, pepper, metrics)
        ledger, tracing = await open_ledger(settings, stack, metrics), await open_tracing(settings, stack, metrics)
        upstreams = await stack.enter_async_context(open_upstreams(token_urls=settings.upstream_token_urls))
        tasks = await stack.enter_async_context(background())
        stack.callback(connections.hurry, ledger.pool)
        traffic = await open_traffic(settings, database, knowledge, metrics)
        quarantine, key_use = Quarantine(database, metrics), KeyUse(database)
        findings, refused_spend = FindingLog(database, metrics), RefusedSpend(database)
        keys = open_tenant_keys(settings, stack, knowledge.watch, gateway=vault, custodian=custodian)
        content = await open_content(database, knowledge.watch, keys, metrics)
        audit = open_audit(settings, database, gateway=vault, keys=keys, metrics=metrics)
        calls = DetachedCalls(tasks.group)
        generation = _generation(
            settings,
            knowledge=knowledge,
            departures=_departures(traffic, knowledge, quarantine, key_use),
            attempts=Attempts(ledger.ledger, refused_spend.note),
            upstream=upstreams,
            calls=calls,
            metrics=metrics,
            keeper=content.keeping,
            guard=DataGuard(lambda: knowledge.data_policies.current, findings),
        )
        methods = _methods(
            settings,
            database=database,
            gateway=vault,
            custodian=custodian,
            pepper=pepper,
            knowledge=knowledge,
            generation=generation,
            keys=keys,
            audit=audit,
            upstream=upstreams,
        )
        server = build(_chain(settings, knowledge, metrics, audit, tracing.observer), methods, settings, metrics)
        for parts in (ledger, traffic, knowledge.identity, server, content, audit, tracing):
            parts.run_in(tasks)
        runs = (knowledge.watch.run, knowledge.keys.run, vault.run, custodian.run, quarantine.run, key_use.run)
        tasks.keep(Vitals(metrics, "worker").run)
        for run in (*runs, findings.run, refused_spend.run, partial(_gauges, metrics, knowledge, ledger)):
            tasks.keep(run)
        yield Worker(
            port=await server.start(),
            server=server,
            calls=calls,
            ledger=ledger,
            content=content,
            reports=traffic.reports,
            last_writes=last_writes(key_use, findings, refused_spend, audit, knowledge.identity),
        )


def last_writes(
    key_use: KeyUse, findings: FindingLog, refused_spend: RefusedSpend, audit: AuditParts, identity: IdentityParts
) -> Sequence[Write]:
    """Return what writes at a worker's end what is otherwise written now and then."""
    return (
        *(key_use.publish, findings.write, refused_spend.write),
        *(audit.refusals.write, identity.last_use.publish),
    )


def _chain(settings: Settings, knowledge: Knowledge, metrics: Metrics, audit: AuditParts, observer: Observer) -> Chain:
    return Chain(
        directory=knowledge.directory,
        authorizer=knowledge.authorizer,
        metrics=metrics,
        default_deadline_seconds=settings.default_deadline_seconds,
        max_message_bytes=settings.max_message_bytes,
        refusals=audit.witness,
        observer=observer,
    )


def _departures(traffic: TrafficParts, knowledge: Knowledge, quarantine: Quarantine, key_use: KeyUse) -> Departures:
    return Departures(
        traffic=traffic.traffic,
        retries=traffic.retries,
        keys=KeyChooser(lambda: knowledge.catalogue.current, knowledge.keys, quarantine.is_out),
        key_watch=KeyWatch(quarantine, key_use),
    )


def _generation(
    settings: Settings,
    *,
    knowledge: Knowledge,
    departures: Departures,
    attempts: Attempts,
    upstream: Upstream,
    calls: DetachedCalls,
    metrics: Metrics,
    keeper: Keeper,
    guard: DataGuard,
) -> Generation:
    return Generation(
        planner=Planner(
            lambda: knowledge.catalogue.current,
            lambda: knowledge.prices.current,
            output_cap_tokens=settings.default_output_cap_tokens,
            stream_step_tokens=settings.stream_step_tokens,
        ),
        departures=departures,
        attempts=attempts,
        upstream=upstream,
        calls=calls,
        metrics=metrics,
        max_attempts=settings.max_attempts,
        upstream_timeout_seconds=settings.upstream_timeout_seconds,
        settle_grace_seconds=settings.settle_grace_seconds,
        keeper=keeper,
        guard=guard,
    )


def _methods(
    settings: Settings,
    *,
    database: Database,
    gateway: VaultClient,
    custodian: VaultClient,
    pepper: bytes,
    knowledge: Knowledge,
    generation: Generation,
    keys: TenantKeys,
    audit: AuditParts,
    upstream: Upstream,
) -> list[Method]:
    pages = PageTokens(derived(pepper, "pages"))
    parts = services.ServiceParts(
        database=database,
        mutations=Mutations(database, derived(pepper, "mutations"), audit.witness, knowledge.authorizer.catch_up),
        pages=pages,
        authorizer=knowledge.authorizer,
        catalogue=knowledge.catalogue,
        prices=knowledge.prices,
        gateway=gateway,
        custodian=custodian,
        addresses=addresses_of(settings),
        pepper=pepper,
        data_policy_key=data_policy_key(pepper),
        project_paths=knowledge.project_paths,
        labels=knowledge.labels,
        ways=ways_of(settings),
        output_cap_tokens=settings.default_output_cap_tokens,
        oidc_issuers=settings.oidc_issuers,
        prices_need_second_person=settings.prices_need_second_person,
        most_label_values=settings.most_label_values,
        keys=keys,
        audit=audit.service(pages),
        witness=audit.witness,
        diagnosis=diagnosis_of(
            settings,
            gateway=gateway,
            custodian=custodian,
            catalogue=lambda: knowledge.catalogue.current,
            ring=knowledge.keys,
            upstream=upstream,
        ),
        generation=GenerationService(
            generation=generation,
            streaming=Streaming(generation),
            project_paths=knowledge.project_paths,
            labels=knowledge.labels,
            label_bounds=knowledge.label_bounds,
        ),
    )
    return services.all_methods(parts)


async def _gauges(metrics: Metrics, knowledge: Knowledge, ledger: LedgerParts) -> None:
    """Tell the metrics how this process is, every few seconds."""
    while True:
        state = knowledge.keys.state
        metrics.queued_works(ledger.tick.queued)
        metrics.vault_seen(up=state.vault_reachable)
        metrics.database_seen(up=knowledge.watch.unanswered_seconds < _GAUGE_SECONDS)
        metrics.epoch_staleness(knowledge.watch.staleness_seconds)
        metrics.upstream_keys(state="held", count=state.held_keys)
        metrics.upstream_keys(state="unreadable", count=state.unreadable_keys)
        # The greatest of all processes is shown: of keys held that hides the one process that lacks some.
        metrics.upstream_keys(state="missing", count=state.expected_keys - state.held_keys)
        metrics.upstream_key_age(state="active", seconds=_oldest_key_seconds(knowledge.catalogue.current))
        await asyncio.sleep(_GAUGE_SECONDS)


def _oldest_key_seconds(catalogue: Catalogue) -> float:
    """Return the age of the oldest active upstream key, zero where there is none."""
    keys = [key for account in catalogue.accounts() for key in catalogue.keys_of(account.account_id)]
    return max(((datetime.now(UTC) - key.created_at).total_seconds() for key in keys), default=0.0)
