"""Tollhouse as a company deploys it: PostgreSQL and Vault of its own, `migrate`, an administrator key, `serve`.

The parts are real servers that a test can stop, start and seal under the running gateway.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from tollhouse.admin.v1 import accounts_pb2 as accounts
from tollhouse.admin.v1 import accounts_pb2_grpc as accounts_grpc
from tollhouse.admin.v1 import tenants_pb2 as tenants
from tollhouse.admin.v1 import tenants_pb2_grpc as tenants_grpc
from tollhouse.admin.v1 import upstream_keys_pb2 as upstream_keys
from tollhouse.admin.v1 import upstream_keys_pb2_grpc as upstream_keys_grpc
from tollhouse_server.embedded.openbao import EmbeddedOpenBao, OpenBaoConfig, OpenBaoEndpoint
from tollhouse_server.embedded.postgres import EmbeddedPostgres, PostgresConfig, PostgresEndpoint
from tollhouse_server.embedded.postgres_roles import APP, OWNER
from tollhouse_server.embedded.simulator import EmbeddedSimulator, SimulatorConfig, SimulatorEndpoint

from tests.drivers.administration import Administration
from tests.drivers.callers import bearer
from tests.drivers.forks import Forks
from tests.drivers.postgres import complete
from tests.drivers.stack import RunningStack, stack_environment

ACCOUNT = "accounts/main"
UPSTREAM_KEY = f"{ACCOUNT}/upstreamKeys/first"


@dataclass(slots=True)
class Parts:
    """PostgreSQL, OpenBao and the simulator, started and reachable at `environment`."""

    directory: Path
    postgres: EmbeddedPostgres
    openbao: EmbeddedOpenBao
    simulator: EmbeddedSimulator
    endpoints: tuple[PostgresEndpoint, OpenBaoEndpoint, SimulatorEndpoint]
    environment: Mapping[str, str] = field(repr=False)
    forks: Forks | None = None
    """Whence commands of the server come; without, Python is started for each."""

    def command(self, *arguments: str, **changes: str | None) -> "subprocess.CompletedProcess[str]":
        """Run a command of the server to its end; `changes` replace TOLLHOUSE_ variables, or with None remove them."""
        environment = dict(self.environment)
        for name, value in changes.items():
            environment.pop(f"TOLLHOUSE_{name.upper()}", None)
            if value is not None:
                environment[f"TOLLHOUSE_{name.upper()}"] = value
        if self.forks is not None:
            return self.forks.run(arguments, environment=environment, directory=self.directory)
        return subprocess.run(
            [sys.executable, "-m", "tollhouse_server", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def stop_postgres(self) -> None:
        """Shut PostgreSQL down; its connections break."""
        complete(self.postgres.stop())

    def start_postgres(self) -> None:
        """Start it again on its port."""
        complete(self.postgres.start())

    def stop_openbao(self) -> None:
        """Stop OpenBao."""
        complete(self.openbao.stop())

    def start_openbao(self) -> None:
        """Start it again on its port, unsealed."""
        complete(self.openbao.start())


@contextmanager
def running_parts(directory: Path, forks: Forks | None = None) -> Iterator[Parts]:
    """Run the three parts in a directory that PostgreSQL's account may enter."""
    postgres = EmbeddedPostgres(
        PostgresConfig(
            directory=directory / "postgres",
            secrets_directory=directory / "secrets",
            log_path=directory / "postgres.log",
            durable=False,
        )
    )
    openbao = EmbeddedOpenBao(OpenBaoConfig(directory=directory / "openbao", log_path=directory / "openbao.log"))
    simulator = EmbeddedSimulator(
        SimulatorConfig(call_log_path=directory / "calls.sqlite", log_path=directory / "simulator.log")
    )
    with ExitStack() as stops:
        endpoints = []
        for part in (postgres, openbao, simulator):
            endpoints.append(complete(part.start()))
            stops.callback(_stop, part)
        found = (endpoints[0], endpoints[1], endpoints[2])
        yield Parts(directory, postgres, openbao, simulator, found, _environment(directory, *found), forks)


def _stop(part: EmbeddedPostgres | EmbeddedOpenBao | EmbeddedSimulator) -> None:
    complete(part.stop())


def _environment(
    directory: Path, postgres: PostgresEndpoint, openbao: OpenBaoEndpoint, simulator: SimulatorEndpoint
) -> Mapping[str, str]:
    return stack_environment(
        directory / "state",
        postgres_dsn=postgres.dsn(APP),
        postgres_owner_dsn=postgres.dsn(OWNER),
        vault_address=openbao.address,
        vault_role_id_file=openbao.gateway.role_id_file,
        vault_secret_id_file=openbao.gateway.secret_id_file,
        vault_custodian_role_id_file=openbao.key_custodian.role_id_file,
        vault_custodian_secret_id_file=openbao.key_custodian.secret_id_file,
        gemini_base_url=simulator.base_url,
    )


@dataclass(slots=True)
class Deployment:
    """Parts, the gateway that serves on them, and a caller of department `research` in tenant `demo`."""

    parts: Parts
    gateway: RunningStack


@contextmanager
def running_deployment(parts: Parts, *, administrator_key: str = "") -> Iterator[Deployment]:
    """Bring a new deployment up as the documentation says, by commands and RPCs alone, and serve until the end.

    With an administrator's key `prepared` was called before.
    """
    administrator_key = administrator_key or prepared(parts)
    output = parts.directory / "serve.out"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tollhouse_server", "serve"],
            env=dict(parts.environment),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    gateway = RunningStack(process=process, state_dir=parts.directory, output=output, run={})
    try:
        gateway.run = as_run_file(parts, administrator_key)
        gateway.run = {**gateway.run, "demo_api_key": set_up(gateway)}
        yield Deployment(parts, gateway)
    finally:
        gateway.end()


def prepared(parts: Parts) -> str:
    """Migrate, and return a key of the platform's administrator."""
    for arguments in (("migrate",), ("create-administrator-key",)):
        ended = parts.command(*arguments)
        assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def as_run_file(parts: Parts, administrator_key: str) -> dict[str, object]:
    """Return what run.json would say of these parts; `demo_api_key` is still to come."""
    postgres, openbao, simulator = parts.endpoints
    return {
        "grpc": f"127.0.0.1:{parts.environment['TOLLHOUSE_GRPC_PORT']}",
        "metrics": f"http://127.0.0.1:{parts.environment['TOLLHOUSE_METRICS_PORT']}/metrics",
        "simulator": simulator.base_url,
        "postgres": postgres.dsn(APP),
        "vault": openbao.address,
        "admin_api_key": administrator_key,
    }


def set_up(gateway: RunningStack) -> str:
    """Create account, upstream key, tenant and a caller over gRPC; return the caller's key."""
    metadata = bearer(gateway.admin_api_key)
    with grpc.insecure_channel(gateway.grpc) as channel:
        account = accounts.Account(upstream=accounts.Account.UPSTREAM_GEMINI_API, google_project="demo-project")
        accounts_grpc.AccountServiceStub(channel).CreateAccount(
            accounts.CreateAccountRequest(account_id="main", account=account),
            metadata=metadata,
            timeout=90,
            wait_for_ready=True,
        )
        upstream_keys_grpc.UpstreamKeyServiceStub(channel).AddUpstreamKey(
            upstream_keys.AddUpstreamKeyRequest(parent=ACCOUNT, upstream_key_id="first", secret="simulator-key-one"),
            metadata=metadata,
        )
        tenants_grpc.TenantServiceStub(channel).CreateTenant(
            tenants.CreateTenantRequest(tenant_id="demo"), metadata=metadata
        )
        return Administration(channel, gateway.admin_api_key).add_department("research")
