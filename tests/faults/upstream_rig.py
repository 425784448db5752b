"""What the upstream matrix runs on: a deployment of two worker processes, and accounts that simulate two projects.

Vertex AI: projects a and b in two regions, each region a port of the simulator's own. The Developer API: projects a and
b with two API keys each.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import asyncpg
import grpc
from tollhouse.admin.v1 import accounts_pb2 as accounts
from tollhouse.admin.v1 import accounts_pb2_grpc as accounts_grpc
from tollhouse.admin.v1 import limits_pb2 as limits
from tollhouse.admin.v1 import upstream_keys_pb2 as upstream_keys
from tollhouse.admin.v1 import upstream_keys_pb2_grpc as upstream_keys_grpc
from tollhouse_server.database.engine import Database
from tollhouse_server.embedded.postgres_roles import APP, ROOT
from tollhouse_server.simulator.client import SimulatorClient

from tests.drivers.administration import administration, dollars
from tests.drivers.callers import bearer
from tests.drivers.command_line import SOURCES, CommandLine
from tests.drivers.deployment import ACCOUNT, Parts, running_deployment, running_parts
from tests.drivers.referee import Finding, Referee
from tests.drivers.stack import RunningStack
from tests.drivers.verification import findings_in
from tests.faults.rig import parts_directory

WORKERS = 2
WEST, CENTRAL = "europe-west4", "us-central1"
REGIONS: Mapping[str, str] = {"west": WEST, "central": CENTRAL}
PROJECTS: Mapping[str, str] = {"a": "project-a", "b": "project-b"}
VERTEX = tuple(f"{project}-{region}" for project in PROJECTS for region in REGIONS)
DEVELOPER = tuple(f"{project}-developer" for project in PROJECTS)
KEYS = ("first", "second")
MODELS = ("gemini-3.8-flash", "gemini-3.5-flash-lite")

_PACES = {MODELS[0]: {"latency_ms": 100, "tokens_per_second": 10_000}, MODELS[1]: {"latency_ms": 20}}
"""They answer in 20 to 150 ms."""

_READY_SECONDS = 60.0
_ALL_SERVE_SECONDS = 2.0
"""From the first worker that takes connections to the last."""

_QUIET_SECONDS = 90.0
_HERE = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """What the keys of the accounts are: a service account's JSON for each on Vertex AI, API keys by (account, key)."""

    service_accounts: Mapping[str, str] = field(repr=False)
    api_keys: Mapping[tuple[str, str], str] = field(repr=False)

    def email(self, account: str) -> str:
        """Return the name of the service account behind an account."""
        return str(json.loads(self.service_accounts[account])["client_email"])


@dataclass(slots=True, kw_only=True)
class UpstreamRig:
    """A running gateway, its simulator, and whoever looks at both."""

    parts: Parts
    gateway: RunningStack
    secrets: Secrets
    ports: Mapping[str, int]
    simulator: SimulatorClient
    root: "asyncpg.Connection[asyncpg.Record]"
    referee: Referee
    cli: CommandLine

    async def start_anew(self) -> None:
        """Start the gateway again: breakers, quotas and patience know nothing of earlier cases."""
        await asyncio.to_thread(self.gateway.stop)
        # What processes have learned of quotas outlives them here.
        await self.root.execute("DELETE FROM process_report")
        with self.gateway.output.open("ab") as file:
            # In this thread, with which the kernel ends it.
            self.gateway.process = subprocess.Popen(  # noqa: ASYNC220
                [sys.executable, "-m", "tollhouse_server", "serve"],
                env=dict(self.parts.environment),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        async with grpc.aio.insecure_channel(self.gateway.grpc) as channel:
            await asyncio.wait_for(channel.channel_ready(), _READY_SECONDS)
        await asyncio.sleep(_ALL_SERVE_SECONDS)

    async def enable_key(self, account: str, key: str) -> None:
        """Put a key that was quarantined back to use."""
        name = f"accounts/{account}/upstreamKeys/{key}"
        await asyncio.to_thread(self.cli.ok, "upstream-keys", "enable", name)

    async def verdict(self) -> list[Finding]:
        """Wait until all is booked and return what the referee and `ledger verify` find wrong."""
        findings = [] if await self._is_quiet() else [Finding("still in flight", f"after {_QUIET_SECONDS:.0f} s")]
        return findings + await self.referee.check() + await self._verify()

    async def _is_quiet(self) -> bool:
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + _QUIET_SECONDS
        while await self.referee.in_flight():
            if loop.time() > ends_at:
                return False
            await asyncio.sleep(0.1)
        return True

    async def _verify(self) -> list[Finding]:
        database = Database(self.parts.endpoints[0].dsn(APP))
        try:
            found = await findings_in(database)
        finally:
            await database.close()
        return [
            Finding("the ledger does not add up", f"{one.table} {one.key}", f"{one.check} {one.field}") for one in found
        ]

    def log_lines(self, event: str) -> list[Mapping[str, Any]]:
        """Return what the processes have logged of an event."""
        lines = (json.loads(line) for line in self.gateway.output.read_text().splitlines() if event in line)
        return [line for line in lines if line.get("event") == event]


@contextmanager
def upstream_parts() -> Iterator[tuple[Parts, RunningStack, Secrets, Mapping[str, int]]]:
    """Start everything. Synchronous: the kernel ends our servers with the thread that started them."""
    with parts_directory() as directory, running_parts(directory) as bare:
        secrets, ports = asyncio.run(_simulated(bare.endpoints[2].base_url))
        parts = replace(bare, environment={**bare.environment, **_settings(bare, ports)})
        with running_deployment(parts) as deployment:
            _add_accounts(deployment.gateway, secrets)
            yield parts, deployment.gateway, secrets, ports


@asynccontextmanager
async def open_upstream_rig(
    parts: Parts, gateway: RunningStack, secrets: Secrets, ports: Mapping[str, int]
) -> AsyncIterator[UpstreamRig]:
    """Open what a campaign looks through."""
    root = await asyncpg.connect(parts.endpoints[0].dsn(ROOT))
    try:
        async with SimulatorClient(gateway.simulator) as simulator:
            rig = UpstreamRig(
                parts=parts,
                gateway=gateway,
                secrets=secrets,
                ports=ports,
                simulator=simulator,
                root=root,
                referee=Referee(root, simulator),
                cli=_command_line(gateway),
            )
            for model, pace in _PACES.items():
                await simulator.set_pace(model, **pace)
            yield rig
    finally:
        root.terminate()


def accounts_in(*, project: str = "", region: str = "") -> tuple[str, ...]:
    """Return the Vertex accounts of a project or of a region, each by its short name."""
    return tuple(
        one for one in VERTEX if (not project or one.startswith(f"{project}-")) and (not region or one.endswith(region))
    )


async def _simulated(url: str) -> tuple[Secrets, dict[str, int]]:
    """Make regions, service accounts and API keys; keys and tokens of anybody else are refused."""
    async with SimulatorClient(url) as simulator:
        ports = {name: int((await simulator.open_port(region))["port"]) for name, region in REGIONS.items()}
        service_accounts = {}
        for account in VERTEX:
            email = f"{account}@{PROJECTS[account[0]]}.iam.gserviceaccount.com"
            made = await simulator.issue_service_account_key(PROJECTS[account[0]], email=email)
            service_accounts[account] = json.dumps(made)
        api_keys = {(account, key): f"AIza-{account}-{key}" for account in DEVELOPER for key in KEYS}
        for (account, _), secret in api_keys.items():
            await simulator.accept_key(secret, project=PROJECTS[account[0]])
    return Secrets(service_accounts=service_accounts, api_keys=api_keys), ports


def _settings(parts: Parts, ports: Mapping[str, int]) -> dict[str, str]:
    addresses = {f"vertex-{region}": f"http://{_HERE}:{port}" for region, port in ports.items()}
    return {
        "TOLLHOUSE_WORKERS": str(WORKERS),
        "TOLLHOUSE_UPSTREAM_ADDRESSES": json.dumps(addresses),
        "TOLLHOUSE_UPSTREAM_TOKEN_URLS": json.dumps([f"{parts.endpoints[2].base_url}/token"]),
    }


def _add_accounts(gateway: RunningStack, secrets: Secrets) -> None:
    """Replace the account that every deployment of these tests has by those of the matrix, and set some limits."""
    metadata = bearer(gateway.admin_api_key)
    with grpc.insecure_channel(gateway.grpc) as channel:
        stub = accounts_grpc.AccountServiceStub(channel)
        stub.DisableAccount(accounts.DisableAccountRequest(name=ACCOUNT), metadata=metadata)
        for account_id, account in _accounts():
            request = accounts.CreateAccountRequest(account_id=account_id, account=account)
            stub.CreateAccount(request, metadata=metadata)
        for account_id, key, secret in _keys(secrets):
            upstream_keys_grpc.UpstreamKeyServiceStub(channel).AddUpstreamKey(
                upstream_keys.AddUpstreamKeyRequest(
                    parent=f"accounts/{account_id}", upstream_key_id=key, secret=secret
                ),
                metadata=metadata,
            )
    metrics, windows = limits.LimitMetric, limits.LimitWindow
    with administration(gateway) as admin:
        for name, metric, window, amount in (
            ("spend", metrics.LIMIT_METRIC_COST, windows.LIMIT_WINDOW_MONTH, dollars(10**15)),
            ("calls", metrics.LIMIT_METRIC_REQUESTS, windows.LIMIT_WINDOW_TOTAL, limits.LimitAmount(units=10**12)),
        ):
            admin.add_limit(name, "tenants/demo", metric, window, amount)


def _accounts() -> Iterator[tuple[str, accounts.Account]]:
    for name in VERTEX:
        project, region = name.split("-")
        yield (
            name,
            accounts.Account(
                upstream=accounts.Account.UPSTREAM_VERTEX,
                google_project=PROJECTS[project],
                region=REGIONS[region],
                endpoint=f"vertex-{region}",
            ),
        )
    for name in DEVELOPER:
        yield (
            name,
            accounts.Account(upstream=accounts.Account.UPSTREAM_GEMINI_API, google_project=PROJECTS[name[0]]),
        )


def _keys(secrets: Secrets) -> Sequence[tuple[str, str, str]]:
    return [
        *((account, KEYS[0], secret) for account, secret in secrets.service_accounts.items()),
        *((account, key, secret) for (account, key), secret in secrets.api_keys.items()),
    ]


def _command_line(gateway: RunningStack) -> CommandLine:
    home = Path(tempfile.mkdtemp(prefix="home-", dir=gateway.state_dir))
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": SOURCES,
        "XDG_CONFIG_HOME": str(home),
        "TOLLHOUSE_ENDPOINT": gateway.grpc,
        "TOLLHOUSE_API_KEY": gateway.admin_api_key,
    }
    return CommandLine(environment=environment, directory=home)
