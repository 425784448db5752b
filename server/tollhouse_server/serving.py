"""What the commands of `tollhouse-server` do, the embedded one aside."""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from tollhouse_server import wiring
from tollhouse_server.bootstrap import create_administrator_key, migrate, seed_catalogue
from tollhouse_server.database.engine import Database
from tollhouse_server.errors import FieldViolation, InvalidRequest
from tollhouse_server.settings import Settings
from tollhouse_server.supervisor import ProcessPlan, Supervisor, stop_on_signals
from tollhouse_server.telemetry.multiprocess import prepare_directory
from tollhouse_server.telemetry.server import serve_metrics


async def serve(settings: Settings) -> None:
    """Supervise workers and housekeeper until SIGTERM.

    Raises:
        StoreUnavailable, VaultUnavailable, VaultDenied, SecretMissing: found before anything is started.
    """
    stop = asyncio.Event()
    stop_on_signals(stop)
    await _check_parts(settings)
    with tempfile.TemporaryDirectory(prefix="tollhouse-metrics-") as directory:
        plan = ProcessPlan(
            workers=settings.workers,
            environment=settings.environment() | prepare_directory(Path(directory)),
            metrics_directory=Path(directory),
            drain_seconds=settings.drain_seconds,
        )
        supervisor = Supervisor(plan)
        async with serve_metrics(settings.metrics_port, Path(directory), host=settings.bind_address):
            await supervisor.start()
            running = asyncio.create_task(supervisor.run())
            await stop.wait()
            await supervisor.stop()
            await running


async def _check_parts(settings: Settings) -> None:
    """Look for PostgreSQL and Vault before starting processes that would only say the same several times."""
    database, vault = Database(wiring.required_dsn(settings)), wiring.gateway_vault(settings)
    try:
        async with database.transaction():
            pass
        await wiring.read_pepper(vault)
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
    database = Database(wiring.required_dsn(settings))
    try:
        await seed_catalogue(database, [], wiring.base_urls(settings))
    finally:
        await database.close()


async def print_administrator_key(settings: Settings) -> None:
    """Print a new key of the platform's administrator: the way in, for a new deployment and after a lost key."""
    database, vault = Database(wiring.required_dsn(settings)), wiring.gateway_vault(settings)
    try:
        key = await create_administrator_key(database, await wiring.read_pepper(vault))
    finally:
        await vault.close()
        await database.close()
    sys.stdout.write(key + "\n")


async def work(settings: Settings, ready_fd: int) -> None:
    """Be a worker until SIGTERM, then drain."""
    stop = asyncio.Event()
    stop_on_signals(stop)
    async with wiring.open_worker(settings) as worker:
        _say_ready(ready_fd)
        await stop.wait()
        await worker.drain(settings.drain_seconds)


async def keep_house(settings: Settings, ready_fd: int) -> None:
    """Be the housekeeper until SIGTERM."""
    stop = asyncio.Event()
    stop_on_signals(stop)
    async with wiring.open_housekeeper(settings):
        _say_ready(ready_fd)
        await stop.wait()


def _say_ready(ready_fd: int) -> None:
    os.write(ready_fd, b"1")
    os.close(ready_fd)
