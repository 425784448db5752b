"""What overload happens to: a gateway of two workers, a company of several departments, an account for each case."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg
import grpc
import psutil
from tollhouse.admin.v1 import accounts_pb2 as accounts
from tollhouse.admin.v1 import accounts_pb2_grpc as accounts_grpc
from tollhouse.admin.v1 import limits_pb2 as limits
from tollhouse.admin.v1 import routing_policies_pb2 as policies
from tollhouse.admin.v1 import routing_policies_pb2_grpc as policies_grpc
from tollhouse.admin.v1 import tenants_pb2 as tenants
from tollhouse.admin.v1 import tenants_pb2_grpc as tenants_grpc
from tollhouse.admin.v1 import upstream_keys_pb2 as upstream_keys
from tollhouse.admin.v1 import upstream_keys_pb2_grpc as upstream_keys_grpc
from tollhouse.v1 import generation_pb2 as g
from tollhouse_server.database.engine import Database
from tollhouse_server.embedded.postgres_roles import APP, ROOT
from tollhouse_server.simulator.client import SimulatorClient

from tests.drivers.administration import Administration
from tests.drivers.callers import bearer
from tests.drivers.deployment import ACCOUNT, Parts, running_deployment, running_parts
from tests.drivers.referee import Finding, Referee
from tests.drivers.stack import RunningStack
from tests.drivers.verification import findings_in
from tests.faults.rig import parts_directory

MODEL = "gemini-3.5-flash-lite"
WORKERS = 2
HOME, ABROAD = "tenants/demo", "tenants/abroad"
QUIET, LOUD, HEAVY, PARTS = "quiet", "loud", "heavy", "heavy-parts"
LOUD_ABROAD = "loud-abroad"
_DEPARTMENTS: Mapping[str, str] = {QUIET: HOME, LOUD: HOME, HEAVY: HOME, PARTS: HOME, LOUD_ABROAD: ABROAD}
_PARENTS: Mapping[str, str] = {PARTS: HEAVY}
WEIGHT_OF_HEAVY = 3

PACE: Mapping[str, float] = {"latency_ms": 150, "tokens_per_second": 1000}
TOKENS = (1, 10)
"""An answer's; thoughts come on top, so that calls take 150 to 215 ms upstream."""
MEAN_SECONDS = 0.205
"""How long a call has a place: what it takes upstream, and its booking."""

_QUIET_SECONDS = 60.0
_REPORTS = """
SELECT process_key, sections FROM process_report WHERE reported_at > clock_timestamp() - interval '3 seconds'
AND sections ? 'queue'
"""

_METRIC = accounts.AccountLimit.Metric


@dataclass(frozen=True, slots=True)
class Queued:
    """What the workers say of their queues: the sums over both."""

    waiting: Mapping[str, int]
    in_flight: int
    oldest_seconds: float

    @property
    def length(self) -> int:
        """How many wait."""
        return sum(self.waiting.values())


@dataclass(slots=True, kw_only=True)
class OverloadRig:
    """A running gateway, its simulator, and whoever looks at both. `keys` are callers' by their department."""

    parts: Parts
    gateway: RunningStack
    keys: Mapping[str, str] = field(repr=False)
    simulator: SimulatorClient
    root: "asyncpg.Connection[asyncpg.Record]"
    referee: Referee
    accounts: int = 0

    @asynccontextmanager
    async def account(self, **amounts: int) -> AsyncIterator[str]:
        """Have all calls go to a new account with these limits, named as in `AccountLimit.Metric`; yield its id."""
        self.accounts += 1
        account_id = f"case-{self.accounts}"
        given = [
            accounts.AccountLimit(
                metric=_METRIC.Value(f"METRIC_{name.upper()}"), amount=limits.LimitAmount(units=amount)
            )
            for name, amount in amounts.items()
        ]
        account = accounts.Account(
            upstream=accounts.Account.UPSTREAM_GEMINI_API, google_project=account_id, limits=given
        )
        secret = f"overload-key-{self.accounts}"
        await self.simulator.accept_key(secret, project=account_id)
        await asyncio.to_thread(_add_account, self.gateway, account_id, account, secret)
        try:
            yield account_id
        finally:
            await asyncio.to_thread(_disable_account, self.gateway, f"accounts/{account_id}")

    async def queued(self) -> Queued:
        """Return how the workers' queues were at their last report."""
        rows = [json.loads(row["sections"])["queue"] for row in await self.root.fetch(_REPORTS)]
        classes = {name for row in rows for name in row["waiting"]}
        return Queued(
            waiting={name: sum(row["waiting"].get(name, 0) for row in rows) for name in classes},
            in_flight=sum(row["in_flight"] for row in rows),
            oldest_seconds=max((row["oldest_seconds"] for row in rows), default=0.0),
        )

    def cpu_seconds(self) -> dict[str, float]:
        """Return the CPU time so far of workers and housekeeper, of this driver, and of all that runs here."""
        return {
            "gateway": sum(_cpu_seconds(one) for one in self.processes()),
            "driver": time.process_time(),
            "machine": sum(psutil.cpu_times()[:3]),
        }

    def processes(self) -> list[psutil.Process]:
        """Return workers and housekeeper."""
        return psutil.Process(self.gateway.process.pid).children(recursive=True)

    async def set_pace(self) -> None:
        """Have calls take 150 to 215 ms upstream."""
        await self.simulator.set_pace(MODEL, **PACE)

    async def verdict(self) -> list[Finding]:
        """Wait until all is booked and return what the referee and `ledger verify` find wrong."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + _QUIET_SECONDS
        findings = []
        while await self.referee.in_flight():
            if loop.time() > ends_at:
                findings.append(Finding("still in flight", f"after {_QUIET_SECONDS:.0f} s"))
                break
            await asyncio.sleep(0.1)
        return findings + await self.referee.check() + await self._verify()

    async def _verify(self) -> list[Finding]:
        database = Database(self.parts.endpoints[0].dsn(APP))
        try:
            found = await findings_in(database)
        finally:
            await database.close()
        return [
            Finding("the ledger does not add up", f"{one.table} {one.key}", f"{one.check} {one.field}") for one in found
        ]


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def overload_parts(**settings: str) -> Iterator[tuple[Parts, RunningStack, Mapping[str, str]]]:
    """Start everything. Synchronous: the kernel ends our servers with the thread that started them."""
    with parts_directory() as directory, running_parts(directory) as bare:
        chosen = {"TOLLHOUSE_WORKERS": str(WORKERS), **settings}
        parts = replace(bare, environment={**bare.environment, **chosen})
        with running_deployment(parts) as deployment:
            yield parts, deployment.gateway, _company(deployment.gateway)


@asynccontextmanager
async def open_overload_rig(parts: Parts, gateway: RunningStack, keys: Mapping[str, str]) -> AsyncIterator[OverloadRig]:
    """Open what a campaign looks through."""
    root = await asyncpg.connect(parts.endpoints[0].dsn(ROOT))
    try:
        async with SimulatorClient(gateway.simulator) as simulator:
            referee = Referee(root, simulator)
            rig = OverloadRig(parts=parts, gateway=gateway, keys=keys, simulator=simulator, root=root, referee=referee)
            await rig.set_pace()
            yield rig
    finally:
        root.terminate()


def _company(gateway: RunningStack) -> dict[str, str]:
    """Make the departments, let their calls claim every priority, and give one of them more weight."""
    metadata = bearer(gateway.admin_api_key)
    with grpc.insecure_channel(gateway.grpc) as channel:
        tenants_grpc.TenantServiceStub(channel).CreateTenant(
            tenants.CreateTenantRequest(tenant_id=ABROAD.rpartition("/")[2]), metadata=metadata
        )
        keys = {
            department: Administration(channel, gateway.admin_api_key, tenant).add_department(
                department, parent=_PARENTS.get(department, "")
            )
            for department, tenant in _DEPARTMENTS.items()
        }
        policy = policies.RoutingPolicy(
            name=f"{HOME}/routingPolicy",
            highest_priority=g.PRIORITY_CRITICAL,
            department_weights={HEAVY: WEIGHT_OF_HEAVY},
        )
        policies_grpc.RoutingPolicyServiceStub(channel).UpdateRoutingPolicy(
            policies.UpdateRoutingPolicyRequest(routing_policy=policy), metadata=metadata
        )
    _disable_account(gateway, ACCOUNT)
    return keys


def _add_account(gateway: RunningStack, account_id: str, account: accounts.Account, secret: str) -> None:
    metadata: Any = bearer(gateway.admin_api_key)
    with grpc.insecure_channel(gateway.grpc) as channel:
        accounts_grpc.AccountServiceStub(channel).CreateAccount(
            accounts.CreateAccountRequest(account_id=account_id, account=account), metadata=metadata
        )
        upstream_keys_grpc.UpstreamKeyServiceStub(channel).AddUpstreamKey(
            upstream_keys.AddUpstreamKeyRequest(
                parent=f"accounts/{account_id}", upstream_key_id="first", secret=secret
            ),
            metadata=metadata,
        )


def _disable_account(gateway: RunningStack, name: str) -> None:
    with grpc.insecure_channel(gateway.grpc) as channel:
        accounts_grpc.AccountServiceStub(channel).DisableAccount(
            accounts.DisableAccountRequest(name=name), metadata=bearer(gateway.admin_api_key)
        )
