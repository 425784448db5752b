"""What happens to upstream keys under load: a whole deployment, accounts with keys of their own, and steady calls.

Two workers and a housekeeper are started by the supervisor, as a company has them. Every account is a project of the
simulator's, whose API Keys API has issued its key; keys that were never issued are refused.
"""

import asyncio
import random
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import grpc
import psutil
from google.api_core.exceptions import NotFound
from google.oauth2.credentials import Credentials
from tollhouse.admin.v1 import accounts_pb2 as accounts
from tollhouse.admin.v1 import accounts_pb2_grpc as accounts_grpc
from tollhouse.admin.v1 import upstream_keys_pb2 as keys
from tollhouse.admin.v1 import upstream_keys_pb2_grpc as keys_grpc
from tollhouse.v1 import generation_pb2 as g
from tollhouse_server.database.engine import Database
from tollhouse_server.embedded.postgres_roles import APP, ROOT
from tollhouse_server.simulator.client import SimulatorClient
from tollhouse_server.vault.client import VaultClient
from tollhouse_server.vault.connection import VaultAddress

from tests.drivers.administration import nanos_of
from tests.drivers.callers import bearer, prompt
from tests.drivers.deployment import ACCOUNT, Parts, running_deployment, running_parts
from tests.drivers.load import Caller, callers
from tests.drivers.referee import Finding, Referee
from tests.drivers.stack import RunningStack
from tests.drivers.verification import findings_in
from tests.faults.rig import parts_directory

WORKERS = 2
TOKEN = "simulator"
"""What the provider `simulator` shows of itself."""
MODELS = ("gemini-3.8-flash", "gemini-3.5-flash-lite")
FIRST = "first"
_CONNECTIONS = 12
_QUIET_SECONDS = 60.0
_SHOWN = 5
_TOLD_BY_WHO_STOPS = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


@dataclass(slots=True)
class KeyRig:
    """A running deployment and whoever looks at it."""

    parts: Parts
    gateway: RunningStack
    root: "asyncpg.Connection[asyncpg.Record]"
    simulator: SimulatorClient
    referee: Referee
    vault: VaultClient

    def add_account(self, account: str, *, drain_seconds: int) -> None:
        """Make an account with a key that the simulator has issued, and let it rotate its keys."""
        secret = issued_key(self.simulator.url, project_of(account), FIRST)
        metadata = bearer(self.gateway.admin_api_key)
        with grpc.insecure_channel(self.gateway.grpc) as channel:
            created = accounts.Account(
                upstream=accounts.Account.UPSTREAM_GEMINI_API, google_project=project_of(account)
            )
            accounts_grpc.AccountServiceStub(channel).CreateAccount(
                accounts.CreateAccountRequest(account_id=account, account=created), metadata=metadata
            )
            stub = keys_grpc.UpstreamKeyServiceStub(channel)
            policy = keys.KeyPolicy(
                name=f"accounts/{account}/keyPolicy", provider=keys.KEY_PROVIDER_SIMULATOR, drain_seconds=drain_seconds
            )
            stub.UpdateKeyPolicy(keys.UpdateKeyPolicyRequest(key_policy=policy), metadata=metadata)
            stub.AddUpstreamKey(
                keys.AddUpstreamKeyRequest(parent=f"accounts/{account}", upstream_key_id=FIRST, secret=secret),
                metadata=metadata,
            )

    def disable_first_account(self) -> None:
        """Take the account that every deployment of these tests has out of use."""
        with grpc.insecure_channel(self.gateway.grpc) as channel:
            accounts_grpc.AccountServiceStub(channel).DisableAccount(
                accounts.DisableAccountRequest(name=ACCOUNT), metadata=bearer(self.gateway.admin_api_key)
            )

    def children(self, role: str) -> list[psutil.Process]:
        """Return the processes of a role that the supervisor runs now."""
        return self.gateway.processes(role)

    def page(self, path: str) -> tuple[int, str]:
        """Read a page of the metrics port: `metrics`, `readyz`."""
        url = self.gateway.metrics.rpartition("/")[0] + f"/{path}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own server's port
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    async def verdict(self) -> list[Finding]:
        """Wait until all is booked and return what the referee and `ledger verify` find wrong."""
        ends_at = time.monotonic() + _QUIET_SECONDS
        while await self.referee.in_flight():
            if time.monotonic() > ends_at:
                break
            await asyncio.sleep(0.1)
        left = await self.referee.in_flight()
        findings = [Finding("still in flight", str(left))] if left else []
        database = Database(self.parts.endpoints[0].dsn(APP))
        try:
            found = await findings_in(database)
        finally:
            await database.close()
        wrong = [Finding("the ledger does not add up", f"{one.table} {one.key}", one.check) for one in found]
        return findings + await self.referee.check() + wrong


def project_of(account: str) -> str:
    """Return the Google project behind an account."""
    return f"project-{account}"


def api_keys_client(url: str) -> Any:
    """Return Google's client of the API Keys API, speaking to the simulator."""
    from google.cloud.api_keys_v2 import ApiKeysClient  # noqa: PLC0415 - half a second
    from google.cloud.api_keys_v2.services.api_keys.transports.rest import ApiKeysRestTransport  # noqa: PLC0415

    where = urlsplit(url)
    credentials = Credentials(token=TOKEN)  # type: ignore[no-untyped-call]
    return ApiKeysClient(
        transport=ApiKeysRestTransport(host=where.netloc, url_scheme=where.scheme, credentials=credentials)
    )


def issued_key(url: str, project: str, key_id: str) -> str:
    """Issue a key as a person does in Google's console, and return it."""
    client = api_keys_client(url)
    parent = f"projects/{project}/locations/global"
    made = client.create_key(request={"parent": parent, "key": {}, "key_id": key_id}).result()
    return str(client.get_key_string(name=made.name).key_string)


def live_keys(url: str, account: str) -> list[str]:
    """Return the ids of the keys that an account's project has and that were not deleted."""
    client = api_keys_client(url)
    try:
        listed = client.list_keys(parent=f"projects/{project_of(account)}/locations/global")
        return sorted(key.name.rpartition("/")[2] for key in listed)
    except NotFound:
        return []


# --- calls ------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class KeyLoad:
    """Calls that come at a rate, half of them streams; who failed, by phase, and how late the callers were."""

    rig: KeyRig
    rate: float
    dice: random.Random
    phase: str = ""
    calls: dict[str, int] = field(default_factory=dict)
    failed: list[Finding] = field(default_factory=list)
    slowest_seconds: float = 0.0
    worker_stops: bool = False
    """Whether a worker is being stopped just now: what it tells those who call it meanwhile is a matter of its own."""

    cut_off: int = 0

    async def arrive(self, among: Sequence[Caller], stop: asyncio.Event) -> None:
        """Begin calls until told to stop, then wait for all."""
        next_at = time.monotonic()
        async with asyncio.TaskGroup() as group:
            while not stop.is_set():
                next_at += self.dice.expovariate(self.rate)
                await asyncio.sleep(max(0.0, next_at - time.monotonic()))
                group.create_task(self._call(self.dice.choice(among)))

    async def _call(self, caller: Caller) -> None:
        phase, began_at = self.phase, time.monotonic()
        self.calls[phase] = self.calls.get(phase, 0) + 1
        request = prompt(f"[[tokens:40]] Toll {self.dice.getrandbits(64)}", model=self.dice.choice(MODELS))
        try:
            outcome: g.Outcome = await (caller.streamed if self.dice.random() < 0.5 else caller.unary)(request)
            self.rig.referee.receipts[outcome.receipt.attempt_id] = nanos_of(outcome.cost)
        except grpc.aio.AioRpcError as error:
            if self.worker_stops and error.code() in _TOLD_BY_WHO_STOPS:
                self.cut_off += 1
            else:
                self.failed.append(Finding("a call failed", phase, f"{error.code().name}: {error.details()}"[:250]))
        self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began_at)

    @property
    def total(self) -> int:
        """Return how many calls there were."""
        return sum(self.calls.values())

    def findings(self) -> list[Finding]:
        """Return the first of the calls that failed, and how many there were."""
        shown = self.failed[:_SHOWN]
        return [*shown, Finding("calls failed", f"{len(self.failed)} of {self.total}")] if self.failed else []


@asynccontextmanager
async def calls_on(rig: KeyRig, *, rate: float, seed: int) -> AsyncIterator[KeyLoad]:
    """Keep calls coming until the block is left; then wait for the last answers."""
    load, stop = KeyLoad(rig, rate, random.Random(seed)), asyncio.Event()
    among = callers(rig.gateway, rig.gateway.demo_api_key, _CONNECTIONS)
    async with among as opened, asyncio.TaskGroup() as group:
        group.create_task(load.arrive(opened, stop))
        try:
            yield load
        finally:
            stop.set()


async def all_workers_serve(rig: KeyRig, *, seconds: float = 60.0) -> None:
    """Wait until many calls in a row are served: none of the workers can be without a key."""
    ends_at, in_a_row = time.monotonic() + seconds, 0
    async with callers(rig.gateway, rig.gateway.demo_api_key, _CONNECTIONS) as among:
        while in_a_row < 2 * _CONNECTIONS:
            try:
                await among[in_a_row % _CONNECTIONS].unary(prompt("Open?", model=MODELS[0]), seconds=10)
                in_a_row += 1
            except grpc.aio.AioRpcError:
                if time.monotonic() > ends_at:
                    raise
                in_a_row = 0
                await asyncio.sleep(0.2)


# --- the deployment ---------------------------------------------------------------------------------------------------


@contextmanager
def key_parts(**settings: str) -> Iterator[tuple[Parts, RunningStack]]:
    """Start everything. Synchronous: the kernel ends our servers with the thread that started them."""
    with parts_directory() as directory, running_parts(directory) as bare:
        url = bare.endpoints[2].base_url
        own = {"workers": str(WORKERS), "simulator_url": url, **settings}
        chosen = {f"TOLLHOUSE_{name.upper()}": value for name, value in own.items()}
        parts = replace(bare, environment={**bare.environment, **chosen})
        with running_deployment(parts) as deployment:
            yield parts, deployment.gateway


@asynccontextmanager
async def open_key_rig(parts: Parts, gateway: RunningStack) -> AsyncIterator[KeyRig]:
    """Open what a campaign looks through; from here on the simulator refuses keys that it has not issued."""
    async with AsyncExitStack() as stack:
        root = await asyncpg.connect(parts.endpoints[0].dsn(ROOT))
        stack.callback(root.terminate)
        simulator = await stack.enter_async_context(SimulatorClient(gateway.simulator))
        openbao = parts.endpoints[1]
        vault = VaultClient(VaultAddress(url=openbao.address), openbao.key_custodian)
        stack.push_async_callback(vault.close)
        rig = KeyRig(parts, gateway, root, simulator, Referee(root, simulator), vault)
        await simulator.accept_key(TOKEN)
        await simulator.accept_only_known_keys()
        for model, milliseconds in zip(MODELS, (100, 20), strict=True):
            await simulator.set_pace(model, latency_ms=milliseconds, tokens_per_second=10_000)
        yield rig
