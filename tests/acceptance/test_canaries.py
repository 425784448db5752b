"""Canary secrets: an upstream that says back whatever it was sent, and not one of them is found anywhere.

The secrets have no shape by which they could be recognised: what is not known to be one is not blotted out.
"""

import asyncio
import base64
import json
import os
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

import asyncpg
import grpc
import psutil
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from tollhouse.admin.v1 import accounts_pb2 as accounts
from tollhouse.admin.v1 import accounts_pb2_grpc as accounts_grpc
from tollhouse.admin.v1 import upstream_keys_pb2 as keys
from tollhouse.admin.v1 import upstream_keys_pb2_grpc as keys_grpc
from tollhouse.v1 import content_pb2 as c
from tollhouse.v1 import generation_pb2 as g
from tollhouse_server.embedded.postgres_roles import ROOT

from tests.drivers.callers import bearer, generation_stub, prompt
from tests.drivers.collector import Collector, running_collector
from tests.drivers.command_line import administrators
from tests.drivers.deployment import ACCOUNT, Parts, prepared, running_deployment, running_parts
from tests.drivers.echo import GOOD_TOKEN, REFUSED_TOKEN, Echo, running_echo
from tests.drivers.forks import Forks
from tests.drivers.places import servers_place
from tests.drivers.stack import RunningStack, free_ports

GEMINI = ("s400", "s401", "s403", "s429", "s500", "garbage", "list", "half")
OPENAI = ("s400", "s401", "garbage")
VERTEX = ("s400", "s401")
GOOGLE = ("rotated", "revoked", "denied")
_CALLS = 240
_LEAST_CALLS = 24
_CALL_SECONDS = 2.0
_KINDS = accounts.Account


@dataclass(slots=True)
class Scene:
    """What was done, and everything that could be seen of it from outside, by place."""

    parts: Parts
    gateway: RunningStack
    echo: Echo
    collector: Collector
    canaries: dict[str, str]
    seen: dict[str, str] = field(default_factory=dict)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return bearer(self.gateway.admin_api_key)

    def canary(self, what: str) -> str:
        """Return a new secret."""
        return self.canaries.setdefault(what, f"canary-{what}-{os.urandom(8).hex()}")

    def note(self, place: str, text: object) -> None:
        """Keep what was seen at a place."""
        self.seen[place] = f"{self.seen.get(place, '')}\n{text}"

    def note_error(self, place: str, error: grpc.RpcError) -> None:
        """Keep all that a caller was told."""
        trailing: Any = error.trailing_metadata()
        self.note(place, f"{error.code()} {error.details()} {[value for _, value in trailing or ()]!r} {error!r}")


# --- setting the scene ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scene(server_forks: Forks, tollhouse_forks: Forks) -> Iterator[Scene]:
    """A server on debug level that was told every kind of secret, and that met every kind of trouble."""
    token = f"canary-access-token-{os.urandom(8).hex()}"
    with (
        servers_place("canaries") as directory,
        running_echo(token) as echo,
        running_collector() as collector,
        running_parts(directory, server_forks) as bare,
    ):
        canaries = {"access token": token, "proxy password": f"canary-proxy-{os.urandom(8).hex()}"}
        parts = replace(bare, environment={**bare.environment, **_settings(echo, canaries)})
        parts = _with_traces(parts, collector, canaries)
        administrator_key = prepared(parts)
        parts = _with_wrapped_ids(parts, canaries)
        with running_deployment(parts, administrator_key=administrator_key) as deployment:
            found = Scene(parts, deployment.gateway, echo, collector, canaries)
            _play(found, tollhouse_forks)
            yield found


def _settings(echo: Echo, canaries: Mapping[str, str]) -> dict[str, str]:
    port = echo.url.rpartition(":")[2]
    who = f"http://somebody:{canaries['proxy password']}@127.0.0.1"
    addresses = {f"gemini_api-{manner}": f"{echo.url}/{manner}" for manner in GEMINI}
    addresses |= {f"openai_compatible-{manner}": f"{echo.url}/{manner}" for manner in OPENAI}
    addresses |= {f"vertex-{manner}": f"{echo.url}/{manner}" for manner in VERTEX}
    return {
        "TOLLHOUSE_LOG_LEVEL": "debug",
        "TOLLHOUSE_WORKERS": "1",
        "TOLLHOUSE_UPSTREAM_ADDRESSES": json.dumps(addresses),
        "TOLLHOUSE_UPSTREAM_TOKEN_URLS": json.dumps([f"{echo.url}{path}" for path in (GOOD_TOKEN, REFUSED_TOKEN)]),
        "TOLLHOUSE_EGRESS_PROXIES": json.dumps({"echo": f"{who}:{port}", "dead": f"{who}:{free_ports(1)[0]}"}),
        "TOLLHOUSE_API_KEYS_URL": echo.url,
    }


def _with_traces(parts: Parts, collector: Collector, canaries: dict[str, str]) -> Parts:
    """Have every call traced, by a collector that wants to see a secret."""
    token = canaries["collector's token"] = f"canary-collector-{os.urandom(8).hex()}"
    file = parts.directory / "trace-headers"
    file.write_text(f"authorization: Bearer {token}\n")
    traces = {"": "otlp", "_ENDPOINT": collector.url, "_RATIO": "1", "_HEADERS_FILE": str(file)}
    settings = {f"TOLLHOUSE_TRACES{name}": value for name, value in traces.items()}
    return replace(parts, environment={**parts.environment, **settings, "TOLLHOUSE_TRACES_UPSTREAM": "true"})


def _with_wrapped_ids(parts: Parts, canaries: dict[str, str]) -> Parts:
    """Give the server wrapping tokens in place of secret ids."""
    openbao, environment = parts.endpoints[1], dict(parts.environment)
    root = json.loads(openbao.unseal_file.read_text())["root_token"]
    for role, variable in (("gateway", "VAULT"), ("key-custodian", "VAULT_CUSTODIAN")):
        secret_id = canaries[f"secret id of {role}"] = f"canary-secret-id-{os.urandom(8).hex()}"
        request = urllib.request.Request(  # noqa: S310 - our own Vault
            f"{openbao.address}/v1/auth/approle/role/{role}/custom-secret-id",
            method="PUT",
            data=json.dumps({"secret_id": secret_id}).encode(),
            headers={"X-Vault-Token": root, "X-Vault-Wrap-TTL": "300"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            token = json.load(answer)["wrap_info"]["token"]
        canaries[f"wrapping token of {role}"] = token
        file = parts.directory / f"wrapped-{role}"
        file.write_text(token)
        environment[f"TOLLHOUSE_{variable}_SECRET_ID_FILE"] = str(file)
    return replace(parts, environment=environment)


def _play(scene: Scene, tollhouse_forks: Forks) -> None:
    """Add accounts and keys of every kind, have each of them fail, and look everywhere."""
    with grpc.insecure_channel(scene.gateway.grpc) as channel:
        _add_accounts(scene, accounts_grpc.AccountServiceStub(channel), keys_grpc.UpstreamKeyServiceStub(channel))
        _be_refused(scene, keys_grpc.UpstreamKeyServiceStub(channel))
        _rotate_in_vain(scene, keys_grpc.UpstreamKeyServiceStub(channel))
    _use_command_line(scene, tollhouse_forks)
    with generation_stub(scene.gateway) as stub:
        _call(scene, stub)
    _await_rotation_errors(scene)
    scene.collector.wait_for(lambda span: span.name == "KeyService.RotateUpstreamKey" or span.kind == "CLIENT")
    _look(scene)


def _add_accounts(
    scene: Scene, stub: accounts_grpc.AccountServiceStub, key_stub: keys_grpc.UpstreamKeyServiceStub
) -> None:
    """Take the account that answers out of use, and add those that say everything back."""
    stub.DisableAccount(accounts.DisableAccountRequest(name=ACCOUNT), metadata=scene.metadata)
    wanted: dict[str, Any] = {f"gemini-{m}": {"endpoint": f"gemini_api-{m}"} for m in GEMINI}
    wanted |= {f"proxied-{proxy}": {"endpoint": "gemini_api-s400", "egress": proxy} for proxy in ("echo", "dead")}
    wanted |= {f"google-{what}": {"google_project": "some-project"} for what in GOOGLE}
    wanted |= {
        f"openai-{m}": {"endpoint": f"openai_compatible-{m}", "upstream": _KINDS.UPSTREAM_OPENAI_COMPATIBLE}
        for m in OPENAI
    }
    for manner in (*VERTEX, "denied"):
        endpoint = f"vertex-{'s400' if manner == 'denied' else manner}"
        wanted[f"vertex-{manner}"] = {
            "endpoint": endpoint,
            "upstream": _KINDS.UPSTREAM_VERTEX,
            "google_project": "p",
            "region": "europe-west4",
        }
    for name, values in wanted.items():
        account = accounts.Account(**{"upstream": _KINDS.UPSTREAM_GEMINI_API, **values})
        stub.CreateAccount(accounts.CreateAccountRequest(account_id=name, account=account), metadata=scene.metadata)
        secret = _service_account(scene, name) if name.startswith("vertex") else scene.canary(name)
        key_stub.AddUpstreamKey(
            keys.AddUpstreamKeyRequest(parent=f"accounts/{name}", upstream_key_id="first", secret=secret),
            metadata=scene.metadata,
        )


def _service_account(scene: Scene, name: str) -> str:
    """Return a service account's key as Google's JSON; a line of it is the canary."""
    pem = scene.canaries.setdefault("whole private key", _private_key())
    scene.canaries["private key"] = pem.splitlines()[7]
    path = REFUSED_TOKEN if name.endswith("denied") else GOOD_TOKEN
    return json.dumps(
        {
            "type": "service_account",
            "client_email": f"{name}@some-project.iam.gserviceaccount.com",
            "private_key": pem,
            "private_key_id": "1",
            "token_uri": f"{scene.echo.url}{path}",
        }
    )


def _private_key() -> str:
    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pkcs8 = serialization.PrivateFormat.PKCS8
    return made.private_bytes(serialization.Encoding.PEM, pkcs8, serialization.NoEncryption()).decode()


def _be_refused(scene: Scene, stub: keys_grpc.UpstreamKeyServiceStub) -> None:
    """Requests that carry a secret and are refused for something else."""
    secret, parent = scene.canary("refused"), f"accounts/{next(iter(GEMINI))}"
    policy = keys.KeyPolicy(name="accounts/google-rotated/keyPolicy", provider=keys.KEY_PROVIDER_GOOGLE)
    requests: list[tuple[Any, Any]] = [
        (stub.AddUpstreamKey, keys.AddUpstreamKeyRequest(parent=parent, upstream_key_id="x", secret=secret)),
        (
            stub.AddUpstreamKey,
            keys.AddUpstreamKeyRequest(parent=parent, upstream_key_id="second", secret=secret * 2000),
        ),
        (
            stub.AddUpstreamKey,
            keys.AddUpstreamKeyRequest(parent="accounts/none", upstream_key_id="second", secret=secret),
        ),
        (stub.UpdateKeyPolicy, keys.UpdateKeyPolicyRequest(key_policy=policy, provider_credential=secret)),
    ]
    for method, request in requests:
        with pytest.raises(grpc.RpcError) as raised:
            method(request, metadata=scene.metadata)
        scene.note_error("errors", raised.value)


def _rotate_in_vain(scene: Scene, stub: keys_grpc.UpstreamKeyServiceStub) -> None:
    """Have Google's API refuse to issue a key, and fail where one is looked up by its secret."""
    for what in GOOGLE:
        name = f"accounts/google-{what}"
        policy = keys.KeyPolicy(name=f"{name}/keyPolicy", provider=keys.KEY_PROVIDER_GOOGLE)
        credential = _service_account(scene, f"manager-{what}")
        request = keys.UpdateKeyPolicyRequest(key_policy=policy, provider_credential=credential)
        stub.UpdateKeyPolicy(request, metadata=scene.metadata)
    rotated, revoked, denied = (f"accounts/google-{what}/upstreamKeys/first" for what in GOOGLE)
    for name in (rotated, denied):
        asked = keys.RotateUpstreamKeyRequest(name=name)
        scene.note("answers", stub.RotateUpstreamKey(asked, metadata=scene.metadata))
    scene.note("answers", stub.RevokeUpstreamKey(keys.RevokeUpstreamKeyRequest(name=revoked), metadata=scene.metadata))


def _use_command_line(scene: Scene, tollhouse_forks: Forks) -> None:
    home = scene.parts.directory / "home"
    home.mkdir()
    tollhouse = administrators(scene.gateway, home, tollhouse_forks)
    secret = scene.canary("typed")
    for account in ("gemini-s400", "no-such-account"):
        ended = tollhouse("upstream-keys", "add", "typed", "-a", account, "--verbose", "-o", "json", stdin=secret)
        scene.note("command line", ended.stdout + ended.stderr)
    ended = tollhouse("upstream-keys", "rotations", "-a", "google-revoked", "--verbose", "-o", "json")
    scene.note("command line", ended.stdout + ended.stderr)


def _call(scene: Scene, stub: Any) -> None:
    """Call until everybody has said what he has to say."""
    wanted = {*GEMINI, *OPENAI, *VERTEX, "proxy", "token"}
    kinds = (g.UPSTREAM_KIND_GEMINI_API, g.UPSTREAM_KIND_VERTEX, g.UPSTREAM_KIND_OPENAI_COMPATIBLE)
    for number in range(_CALLS):
        kind = kinds[number % len(kinds)]
        request = prompt(
            "Hello",
            tier="nano" if kind == g.UPSTREAM_KIND_OPENAI_COMPATIBLE else "flash",
            routing=g.RoutingOptions(kinds=[kind]),
            generation_config=c.GenerationConfig(max_output_tokens=5),
        )
        metadata = bearer(scene.gateway.demo_api_key)
        try:
            if number % 2:
                list(stub.StreamGenerateContent(request, metadata=metadata, timeout=_CALL_SECONDS))
            else:
                stub.GenerateContent(request, metadata=metadata, timeout=_CALL_SECONDS)
        except grpc.RpcError as error:
            scene.note_error("errors", error)
        if number >= _LEAST_CALLS and wanted <= scene.echo.manners:
            return


def _await_rotation_errors(scene: Scene) -> None:
    """Wait until each rotation has met its trouble and written it down."""
    ends_at = time.monotonic() + 20
    while scene.gateway.query("SELECT count(*) FROM key_rotation WHERE error <> ''")[0][0] < len(GOOGLE):
        assert time.monotonic() < ends_at, scene.gateway.query("SELECT * FROM key_rotation")
        time.sleep(0.2)


def _look(scene: Scene) -> None:
    """Read every place."""
    scene.canaries |= {f"assertion {number}": one for number, one in enumerate(sorted(scene.echo.assertions))}
    for page in ("metrics", "readyz", "healthz"):
        url = scene.gateway.metrics.rpartition("/")[0] + f"/{page}"
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own server
            scene.note("metrics and health", answer.read().decode())
    for log in [*scene.parts.directory.glob("*.log"), scene.gateway.output]:
        scene.note(f"log {log.name}", log.read_text(errors="replace"))
    for process in psutil.Process().children(recursive=True):
        # PostgreSQL's come and go.
        with suppress(psutil.NoSuchProcess):
            scene.note("process arguments", process.cmdline())
            if not any("tollhouse_server" in part for part in process.cmdline()):
                scene.note("environments of others", process.environ())
    scene.note("spans", scene.collector.spans)
    scene.note("spans", [body.decode("latin-1") for body in scene.collector.bodies])
    scene.note("database", asyncio.run(_dump(scene.parts.endpoints[0].dsn(ROOT))))


async def _dump(dsn: str) -> str:
    """Return every row of every table as text; bytes come as hexadecimal digits."""
    connection = await asyncpg.connect(dsn)
    try:
        tables = await connection.fetch(
            "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables "
            "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        )
        rows = [row for table in tables for row in await connection.fetch(f"SELECT t::text FROM {table['name']} t")]  # noqa: S608
    finally:
        await connection.close()
    return "\n".join(row[0] for row in rows)


# --- what must hold ---------------------------------------------------------------------------------------------------

PLACES = (
    "errors",
    "answers",
    "command line",
    "metrics and health",
    "log serve.out",
    "log postgres.log",
    "log openbao.log",
    "process arguments",
    "environments of others",
    "spans",
    "database",
)


@pytest.mark.parametrize("place", PLACES)
def test_no_canary_is_found(scene: Scene, place: str) -> None:
    """Upstream keys, private keys, tokens, assertions, proxy passwords and secret ids, in every writing of them."""
    text = scene.seen[place]

    found = {what: context for what, canary in scene.canaries.items() if (context := _context(text, canary))}

    assert text.strip()
    assert found == {}


def _context(text: str, canary: str) -> str:
    """Return what stands around a canary, or around another writing of it; empty where there is none."""
    pair = f"somebody:{canary}"
    writings = {canary, quote(canary), canary.encode().hex(), _base64(canary), _base64(pair), pair.encode().hex()}
    # An assertion's signature, or the end of any other: what is cut off must not be the secret part.
    writings.add(canary[-24:])
    for writing in writings:
        at = text.find(writing)
        if at >= 0:
            return text[max(0, at - 200) : at + len(writing) + 20]
    return ""


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode().rstrip("=")


def test_every_manner_of_trouble_was_met(scene: Scene) -> None:
    """Whoever was not asked has not said anything back, and that would prove nothing."""
    assert {*GEMINI, *OPENAI, *VERTEX, "proxy", "token", "v2"} <= scene.echo.manners
    assert len(scene.echo.assertions) >= 2
    assert {"Refused", "Broken"} <= {span.attributes.get("error.type") for span in scene.collector.spans}
    assert scene.echo.access_token in scene.canaries.values()
