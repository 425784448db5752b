"""`make run`: a whole Tollhouse on one machine, in the foreground."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from pathlib import Path

from pydantic import SecretStr

from tollhouse_server.bootstrap import migrate, seed_catalogue
from tollhouse_server.database.engine import Database
from tollhouse_server.embedded import demo
from tollhouse_server.embedded.files import write_secret_file
from tollhouse_server.embedded.stack import RunningStack, StackConfig, running_parts
from tollhouse_server.embedded.state_directory import StateDirectory, claimed
from tollhouse_server.fork_server import ForkServer
from tollhouse_server.routing.addresses import addresses_of
from tollhouse_server.serving import claim_ports
from tollhouse_server.settings import Settings
from tollhouse_server.supervisor import ProcessPlan, Supervisor, stop_on_signals
from tollhouse_server.telemetry.multiprocess import prepare_directory
from tollhouse_server.telemetry.server import serve_metrics
from tollhouse_server.transport_choice import advice, chosen
from tollhouse_server.wiring import outside

RUN_FILE = "run.json"
_KEYS_FILE = "demo-keys.json"
_SERVER_LOG = "server.log"
_METRICS = "metrics"
_LOOK_SECONDS = 0.25


async def run_embedded(settings: Settings) -> None:
    """Start everything, print where it is, serve until SIGTERM or Ctrl-C, stop everything.

    Raises:
        TollhouseError: a port is in use, another Tollhouse holds the state directory, a part did not start, or the
            transport is to be Envoy, which is not installed.
    """
    stop = asyncio.Event()
    stop_on_signals(stop)
    with claimed(settings.state_dir) as directory:
        transport = chosen(settings.transport).transport
        with_ports = settings.model_copy(update={**claim_ports(settings), "transport": transport})
        _say("Starting PostgreSQL, OpenBao and the Gemini simulator ...")
        async with _fork_server(directory) as forks, running_parts(_stack_config(settings), directory) as parts:
            served = with_ports.model_copy(update=_embedded_settings(settings, parts))
            keys = await _prepare(served, parts)
            async with _processes(served, parts, forks) as supervisor:
                run_file = RunFile(served, parts, keys, supervisor)
                run_file.write()
                _say(_banner(served, parts, keys, run_file.path))
                async with asyncio.TaskGroup() as group:
                    group.create_task(supervisor.run())
                    keeping = group.create_task(run_file.keep_current())
                    await stop.wait()
                    _say("Stopping: letting the calls under way end ...")
                    keeping.cancel()
                    await supervisor.stop()
    _say("Stopped.")


def _stack_config(settings: Settings) -> StackConfig:
    return StackConfig(
        state_directory=settings.state_dir,
        postgres_port=settings.postgres_port,
        vault_port=settings.vault_port,
        simulator_port=settings.simulator_port,
        simulator=settings.gemini_api_key is None,
    )


def _embedded_settings(settings: Settings, parts: RunningStack) -> dict[str, object]:
    gateway, custodian = parts.openbao.gateway, parts.openbao.key_custodian
    return {
        "postgres_dsn": SecretStr(parts.app_dsn),
        "postgres_owner_dsn": SecretStr(parts.owner_dsn),
        "vault_address": parts.openbao.address,
        "vault_role_id_file": gateway.role_id_file.absolute(),
        "vault_secret_id_file": gateway.secret_id_file.absolute(),
        "vault_custodian_role_id_file": custodian.role_id_file.absolute(),
        "vault_custodian_secret_id_file": custodian.secret_id_file.absolute(),
        **(_simulated(settings, parts.simulator.base_url) if parts.simulator else {}),
    }


def _simulated(settings: Settings, base_url: str) -> dict[str, object]:
    """Return the settings by which the simulator is every kind of upstream; what a user has named himself stays."""
    simulated = {"vertex": base_url, "openai_compatible": base_url}
    return {
        "gemini_base_url": base_url,
        "upstream_addresses": simulated | settings.upstream_addresses,
        "upstream_token_urls": (*settings.upstream_token_urls, f"{base_url}/token"),
        "simulator_url": base_url,
    }


async def _prepare(settings: Settings, parts: RunningStack) -> demo.DemoKeys:
    """Migrate, seed, and make the demo company: all of it idempotent."""
    await migrate(parts.owner_dsn)
    async with AsyncExitStack() as stack:
        database = Database(parts.app_dsn)
        stack.push_async_callback(database.close)
        vault, custodian = outside.gateway_vault(settings), outside.custodian_vault(settings)
        stack.push_async_callback(vault.close)
        stack.push_async_callback(custodian.close)
        await seed_catalogue(database, [demo.demo_account()], addresses_of(settings))
        secret = settings.gemini_api_key
        await demo.ensure_upstream_key(database, custodian, secret.get_secret_value() if secret else None)
        pepper = await outside.read_pepper(vault)
        return await demo.ensure_demo(database, pepper, parts.directory.secrets / _KEYS_FILE)


def _fork_server(directory: StateDirectory) -> ForkServer:
    """Return what loads the server's modules while the parts are started."""
    return ForkServer(prepare_directory(directory.root / _METRICS), log_path=directory.logs / _SERVER_LOG)


@asynccontextmanager
async def _processes(settings: Settings, parts: RunningStack, forks: ForkServer) -> AsyncIterator[Supervisor]:
    plan = ProcessPlan(
        workers=settings.workers,
        environment=settings.environment(),
        metrics_directory=parts.directory.root / _METRICS,
        drain_seconds=settings.drain_seconds,
        worker_advice=advice(chosen(settings.transport).transport),
    )
    supervisor = Supervisor(plan, forks)
    async with serve_metrics(
        settings.metrics_port, supervisor.exposition, host=settings.bind_address, readiness=supervisor.readiness
    ):
        await supervisor.start()
        try:
            yield supervisor
        finally:
            await supervisor.stop()


class RunFile:
    """run.json: for programs what the banner is for people. It holds keys, so only its owner may read it."""

    def __init__(self, settings: Settings, parts: RunningStack, keys: demo.DemoKeys, supervisor: Supervisor) -> None:
        self.path = parts.directory.root / RUN_FILE
        self._parts = parts
        self._supervisor = supervisor
        self._written: dict[str, int] = {}
        self._fixed = {
            "grpc": f"{settings.bind_address}:{settings.grpc_port}",
            "metrics": f"http://{settings.bind_address}:{settings.metrics_port}/metrics",
            "simulator": parts.simulator.base_url if parts.simulator else None,
            "postgres": parts.app_dsn,
            "vault": parts.openbao.address,
            **asdict(keys),
        }

    def write(self) -> None:
        """Write it as things are now."""
        self._written = self._pids()
        write_secret_file(self.path, json.dumps(self._fixed | {"pids": self._written}, indent=2) + "\n")

    async def keep_current(self) -> None:
        """Write it again whenever a process was replaced, for ever."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if self._pids() != self._written:
                self.write()

    def _pids(self) -> dict[str, int]:
        return self._parts.pids | self._supervisor.pids


def _banner(settings: Settings, parts: RunningStack, keys: demo.DemoKeys, run_file: Path) -> str:
    upstream = f"{parts.simulator.base_url} (simulator)" if parts.simulator else settings.gemini_base_url
    return f"""
Tollhouse serves.
  gRPC       {settings.bind_address}:{settings.grpc_port}   ({settings.workers} workers, {settings.transport})
  metrics    http://{settings.bind_address}:{settings.metrics_port}/metrics
  Gemini     {upstream}
  PostgreSQL {settings.bind_address}:{parts.postgres.port}
  OpenBao    {parts.openbao.address}   (unsealed by a key on this disk: for laptops only)

  demo key   {keys.demo_api_key}
  admin key  {keys.admin_api_key}
  all of it  {run_file}

Try, in another terminal:
  .venv/bin/tollhouse generate "Write a haiku about toll booths"
  .venv/bin/tollhouse limits list --tenant {demo.DEMO_TENANT}
  .venv/bin/tollhouse report month --tenant {demo.DEMO_TENANT} --department {demo.DEMO_DEPARTMENT}

Ctrl-C stops everything; the data stay in {settings.state_dir}."""


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
