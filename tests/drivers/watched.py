"""A company under a mixed load, with a real Prometheus that scrapes its two servers."""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import grpc
import yaml
from tollhouse.v1 import content_pb2 as c
from tollhouse.v1 import generation_pb2 as g
from tollhouse.v1 import generation_pb2_grpc as gg
from tollhouse_server.embedded.postgres_roles import ROOT as ROOT_ROLE
from tollhouse_server.simulator.client import SimulatorClient

from tests.drivers.authority import Authority
from tests.drivers.callers import bearer, prompt
from tests.drivers.command_line import CommandLine, administrators
from tests.drivers.deployment import Deployment, Parts, running_deployment, running_parts
from tests.drivers.forks import Forks
from tests.drivers.prometheus import RunningPrometheus, running_prometheus
from tests.drivers.sources import ROOT
from tests.drivers.stack import free_ports

ISSUER = "https://127.0.0.1:9/nobody"
"""An issuer of tokens that is allowed and never answers."""

RULES = sorted((ROOT / "grafana" / "alerts").glob("*.yaml"))
_SECONDS = 20.0
_STOP_SECONDS = 60.0
# A minute's chore of the server, on a machine that does other things too.
_PATIENCE_SECONDS = 90.0
_OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
_SETTINGS: Mapping[str, object] = {
    "workers": 2,
    "worker_dead_after_seconds": 2,
    "audit_checkpoint_seconds": 0.2,
    "max_calls_upstream": 6,
    "max_calls_waiting": 6,
    "oidc_issuers": json.dumps([ISSUER]),
    "traces": "otlp",
    "traces_endpoint": "http://127.0.0.1:9",
    "traces_ratio": 1,
}


@dataclass(slots=True)
class SecondServer:
    """A server with TLS and one worker; `grpc` and `metrics` are host:port, `authority` vouches for its certificate."""

    environment: Mapping[str, str]
    output: Path
    grpc: str
    metrics: str
    certificate: Path
    authority: bytes
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """Start it without waiting for it."""
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tollhouse_server", "serve"],
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def stop(self) -> None:
        """Stop it in good order."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(_STOP_SECONDS)


@dataclass(frozen=True, slots=True)
class Watched:
    """A company, the command line of its administrator, and the Prometheus that watches it."""

    deployment: Deployment
    tollhouse: CommandLine
    prometheus: RunningPrometheus
    second: SecondServer

    @property
    def parts(self) -> Parts:
        """PostgreSQL, OpenBao and the simulator."""
        return self.deployment.parts

    def call(
        self, request: g.GenerateContentRequest, *, key: str = "", streamed: bool = False, seconds: float = _SECONDS
    ) -> bool:
        """Make one call on a connection of its own; tell whether it was served."""
        gateway = self.deployment.gateway
        metadata = bearer(key or gateway.demo_api_key)
        with grpc.insecure_channel(gateway.grpc, _OWN_CONNECTION) as channel, suppress(grpc.RpcError):
            stub = gg.GenerationServiceStub(channel)
            if streamed:
                list(stub.StreamGenerateContent(request, metadata=metadata, timeout=seconds))
            else:
                stub.GenerateContent(request, metadata=metadata, timeout=seconds)
            return True
        return False

    def call_second(self, request: g.GenerateContentRequest) -> bool:
        """Make one call at the second server; tell whether it was served."""
        trust = grpc.ssl_channel_credentials(self.second.authority)
        metadata = bearer(self.deployment.gateway.demo_api_key)
        with grpc.secure_channel(self.second.grpc, trust) as channel, suppress(grpc.RpcError):
            gg.GenerationServiceStub(channel).GenerateContent(request, metadata=metadata, timeout=_SECONDS)
            return True
        return False

    def at_once(self, count: int, request: g.GenerateContentRequest, *, streamed: bool = False) -> int:
        """Make many calls at the same time; return how many were served."""
        with ThreadPoolExecutor(count) as pool:
            return sum(pool.map(lambda _: self.call(request, streamed=streamed), range(count)))

    def embed(self) -> None:
        """Have a text embedded, and its tokens counted."""
        gateway = self.deployment.gateway
        content = c.Content(role="user", parts=[c.Part(text="A bridge")])
        embedding = g.EmbedContentRequest(tier="embedding", requests=[g.EmbedContentItem(content=content)])
        counting = g.CountTokensRequest(contents=[content], tier="flash")
        with grpc.insecure_channel(gateway.grpc) as channel:
            stub, metadata = gg.GenerationServiceStub(channel), bearer(gateway.demo_api_key)
            stub.EmbedContent(embedding, metadata=metadata, timeout=_SECONDS)
            stub.CountTokens(counting, metadata=metadata, timeout=_SECONDS)

    def until(self, expression: str) -> None:
        """Wait until Prometheus has an answer to a query."""
        self.prometheus.wait_until(expression, seconds=_PATIENCE_SECONDS)

    def sql(self, *statements: str) -> None:
        """Run SQL past the server as PostgreSQL's own administrator, with all triggers off."""
        asyncio.run(_run_sql(self.parts, statements))

    def fault(self, kind: str, **settings: object) -> None:
        """Have calls to the simulator end in a fault."""

        async def add() -> None:
            async with SimulatorClient(self.deployment.gateway.simulator) as simulator:
                await simulator.add_fault(kind, **settings)

        asyncio.run(add())

    def clear_faults(self) -> None:
        """Let the simulator serve again."""

        async def clear() -> None:
            async with SimulatorClient(self.deployment.gateway.simulator) as simulator:
                await simulator.clear_faults()

        asyncio.run(clear())

    def replay(self, answer: Mapping[str, object]) -> None:
        """Have the simulator answer the next call with this."""

        async def replay() -> None:
            async with SimulatorClient(self.deployment.gateway.simulator) as simulator:
                await simulator.replay_next({"path": "", "request": {}, "status": 200, "response": json.dumps(answer)})

        asyncio.run(replay())


async def _run_sql(parts: Parts, statements: tuple[str, ...]) -> None:
    connection = await asyncpg.connect(parts.endpoints[0].dsn(ROOT_ROLE))
    try:
        await connection.execute("SET session_replication_role = replica")
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@contextmanager
def watched(directory: Path, server_forks: Forks, tollhouse_forks: Forks) -> Iterator[Watched]:
    """Run a company on two servers, the second with TLS and one worker, watched by Prometheus every second."""
    changes = {f"TOLLHOUSE_{name.upper()}": str(value) for name, value in _SETTINGS.items()}
    with running_parts(directory, server_forks) as bare:
        parts = replace(bare, environment={**bare.environment, **changes})
        with running_deployment(parts) as deployment:
            tollhouse = administrators(deployment.gateway, directory, tollhouse_forks)
            address = urlsplit(deployment.gateway.metrics).netloc
            asyncio.run(_run_sql(parts, (_PAST_OF_A_KEY,)))
            with _second_server(parts) as second, _prometheus(directory, address, second.metrics) as prometheus:
                yield Watched(deployment, tollhouse, prometheus, second)


# What is unusual is so in the light of a past: two days of little use, and a running hour of much.
_PAST_OF_A_KEY = """
INSERT INTO key_use (account_id, key_id, hour, calls, cost_nanos)
SELECT 'main', 'first', date_trunc('hour', now()) - make_interval(hours => ago),
    CASE ago WHEN 0 THEN 100000 ELSE 10 + ago % 3 END, 1000
FROM generate_series(0, 48) AS ago
"""


@contextmanager
def _second_server(parts: Parts) -> Iterator[SecondServer]:
    """Serve with a certificate that has an hour left."""
    folder = parts.directory / "second"
    folder.mkdir()
    authority = Authority.new()
    certificate, key = authority.server().write(folder, "server")
    port, metrics_port = free_ports(2)
    own = {
        "grpc_port": port,
        "metrics_port": metrics_port,
        "state_dir": folder / "state",
        "audit_anchor_dir": parts.directory / "state" / "audit-anchor",
        "workers": 1,
        "tls_certificate_file": certificate,
        "tls_private_key_file": key,
    }
    environment = {**parts.environment, **{f"TOLLHOUSE_{name.upper()}": str(value) for name, value in own.items()}}
    addresses = (f"localhost:{port}", f"127.0.0.1:{metrics_port}")
    second = SecondServer(environment, folder / "out", *addresses, certificate, authority.pem)
    second.start()
    try:
        yield second
    finally:
        second.stop()


@contextmanager
def _prometheus(directory: Path, *addresses: str) -> Iterator[RunningPrometheus]:
    """Watch with our rules, which do not wait here until a condition has lasted."""
    rules = directory / "rules"
    rules.mkdir()
    for path in RULES:
        file = yaml.safe_load(path.read_text(encoding="utf-8"))
        for group in file["groups"]:
            group["interval"] = "1s"
            for rule in group["rules"]:
                rule.pop("for", None)
        (rules / path.name).write_text(yaml.safe_dump(file), encoding="utf-8")
    where = directory / "prometheus"
    with running_prometheus(where, addresses, rule_files=sorted(rules.iterdir()), environment="test") as running:
        yield running
    shutil.rmtree(where)


# So long that what was said before counts as cached the second time.
_BOOK = "The toll rises with the weight of the cart. " * 500


def mixed_load(watched: Watched) -> None:
    """Make calls of every kind: unary, streamed, images, embeddings, searches, and such as are refused."""
    watched.at_once(4, prompt("Who pays the toll? Write to ann@example.com"))
    watched.at_once(4, prompt("And who collects it? [[tokens:60]]"), streamed=True)
    for question in ("Who built it?", "Who pays?"):
        watched.call(prompt(_BOOK + question))
    watched.call(prompt("A red toll house", tier="flash-image"))
    search = c.Tool(google_search=c.GoogleSearch())
    watched.call(prompt("News of the bridge", tools=[search]))
    watched.embed()
    watched.call(prompt("x", tier="no-such"))
    watched.call(prompt("x", model="gemini-2.5-flash-image"))
    watched.call(prompt("x"), key=watched.deployment.gateway.demo_api_key[:-4] + "zzzz")
