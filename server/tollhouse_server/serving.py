"""What the commands of `tollhouse-server` do, the embedded one aside; what they start is in `processes`."""

import asyncio
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from tollhouse_server.bootstrap import create_administrator_key, migrate, seed_catalogue
from tollhouse_server.database.engine import Database
from tollhouse_server.database.rows import run_sql
from tollhouse_server.errors import FieldViolation, InvalidRequest, TollhouseError
from tollhouse_server.fork_server import ForkServer
from tollhouse_server.ports import claim_port
from tollhouse_server.routing.addresses import addresses_of
from tollhouse_server.settings import Settings
from tollhouse_server.supervisor import ProcessPlan, Supervisor, stop_on_signals
from tollhouse_server.telemetry.multiprocess import prepare_directory
from tollhouse_server.telemetry.server import serve_metrics
from tollhouse_server.transport_choice import advice, chosen
from tollhouse_server.wiring import outside

_log = structlog.get_logger(__name__)


async def serve(settings: Settings) -> None:
    """Supervise workers and housekeeper until SIGTERM.

    Raises:
        EnvoyMissing, PortInUse, StoreUnavailable, VaultUnavailable, VaultDenied, SecretMissing: found before anything
            is started.
    """
    stop = asyncio.Event()
    stop_on_signals(stop)
    choice = chosen(settings.transport)
    served = settings.model_copy(update={**claim_ports(settings), "transport": choice.transport})
    served = await outside.with_unwrapped_secret_ids(served)
    await _check_parts(served)
    _log.info("transport_chosen", transport=choice.transport, why=choice.why)
    with tempfile.TemporaryDirectory(prefix="tollhouse-metrics-") as directory:
        plan = ProcessPlan(
            workers=served.workers,
            environment=served.environment(),
            metrics_directory=Path(directory),
            drain_seconds=served.drain_seconds,
            worker_advice=advice(choice.transport),
        )
        async with ForkServer(prepare_directory(plan.metrics_directory)) as fork_server:
            await _supervise(plan, fork_server, served, stop)


async def _supervise(plan: ProcessPlan, fork_server: ForkServer, settings: Settings, stop: asyncio.Event) -> None:
    supervisor = Supervisor(plan, fork_server)
    async with serve_metrics(
        settings.metrics_port, supervisor.exposition, host=settings.bind_address, readiness=supervisor.readiness
    ):
        await supervisor.start()
        async with asyncio.TaskGroup() as group:
            group.create_task(supervisor.run())
            await stop.wait()
            await supervisor.stop()


def claim_ports(settings: Settings) -> dict[str, int]:
    """Return the settings of the ports that the server itself listens on: those asked for, free ones for 0.

    The workers share one port, so a free one must be chosen before they start.

    Raises:
        PortInUse: somebody listens there.
    """
    return {
        "grpc_port": claim_port(
            settings.grpc_port, purpose="gRPC", setting="TOLLHOUSE_GRPC_PORT", host=settings.bind_address
        ),
        "metrics_port": claim_port(
            settings.metrics_port, purpose="the metrics", setting="TOLLHOUSE_METRICS_PORT", host=settings.bind_address
        ),
        **_mtls_port(settings),
    }


def _mtls_port(settings: Settings) -> dict[str, int]:
    if settings.mtls_port is None:
        return {}
    port = claim_port(settings.mtls_port, purpose="gRPC", setting="TOLLHOUSE_MTLS_PORT", host=settings.bind_address)
    return {"mtls_port": port}


async def _check_parts(settings: Settings) -> None:
    """Look for PostgreSQL and Vault before starting processes that would only say the same several times."""
    database, vault = Database(outside.required_dsn(settings)), outside.gateway_vault(settings)
    try:
        async with database.transaction() as session:
            # A session connects only when it is asked something.
            await run_sql(session, "SELECT 1")
        await outside.read_pepper(vault)
    finally:
        await vault.close()
        await database.close()


async def migrate_and_seed(settings: Settings) -> None:
    """Bring schema, catalogue and price book up to date; safe to run before every deployment.

    Raises:
        InvalidRequest: the owner's DSN is not set.
        StoreUnavailable: PostgreSQL cannot be reached.
    """
    if settings.postgres_owner_dsn is None:
        problem = FieldViolation(path="TOLLHOUSE_POSTGRES_OWNER_DSN", description="must be set to migrate")
        raise InvalidRequest(violations=(problem,))
    await migrate(settings.postgres_owner_dsn.get_secret_value())
    database = Database(outside.required_dsn(settings))
    try:
        await seed_catalogue(database, [], addresses_of(settings))
    finally:
        await database.close()


@dataclass(eq=False, kw_only=True)
class ChecksFailed(TollhouseError):
    """Something that the server needs does not work."""

    names: Sequence[str]

    def message(self) -> str:
        return f"{len(self.names)} checks failed: {', '.join(self.names)}."


async def diagnose(settings: Settings) -> None:
    """Check everything that a server on this host needs, and print a line for each check and for what to do.

    Raises:
        ChecksFailed: one of them failed.
        InvalidRequest: the settings do not say where PostgreSQL or Vault is.
    """
    # No supervisor needs the checks.
    from tollhouse_server.operations.checks.terms import Outcome  # noqa: PLC0415
    from tollhouse_server.wiring.operations import diagnose_host  # noqa: PLC0415

    results = await diagnose_host(settings)
    width = max(len(result.name) for result in results)
    for result in results:
        finding = result.finding
        sys.stdout.write(f"{finding.outcome.value.lower():8}{result.name:{width}}  {finding.seen}\n")
        if finding.advice:
            sys.stdout.write(f"{'':{8 + width}}  -> {finding.advice}\n")
    if failed := [result.name for result in results if result.finding.outcome is Outcome.FAILURE]:
        raise ChecksFailed(names=failed)


async def print_administrator_key(settings: Settings) -> None:
    """Print a new key of the platform's administrator: the way in, for a new deployment and after a lost key."""
    database, vault = Database(outside.required_dsn(settings)), outside.gateway_vault(settings)
    try:
        key = await create_administrator_key(database, await outside.read_pepper(vault))
    finally:
        await vault.close()
        await database.close()
    sys.stdout.write(key + "\n")
