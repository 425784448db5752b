"""How a server with each transport ends, and shares its port; and who is let in by TLS."""

import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tollhouse.v1.generation_pb2_grpc import GenerationServiceStub

from tests.drivers.authority import Authority, Identity
from tests.drivers.callers import prompt, reason_of, text_of
from tests.drivers.places import servers_place
from tests.drivers.transport_server import Running, running
from tests.drivers.transports import NEEDS_ENVOY, TRANSPORTS

KEY = (("authorization", "Bearer any"),)
OWN = [("grpc.use_local_subchannel_pool", 1)]
SPIFFE_ID = "spiffe://mesh.example/ns/crm/sa/crm"


def health_of(channel: grpc.Channel) -> Any:
    """Return the stub of grpc's own health service, whose types do not say what it has."""
    return health_pb2_grpc.HealthStub(channel)


def test_a_server_that_stops_lets_calls_end_and_says_so_to_others(transport: str) -> None:
    """What is under way is answered, what comes is UNAVAILABLE, health says so, and the process ends well."""
    with running(transport) as [server], grpc.insecure_channel(server.target, options=OWN) as channel:
        stub = GenerationServiceStub(channel)
        health = health_of(channel).Watch(health_pb2.HealthCheckRequest())
        next(health)
        slow = stub.GenerateContent.future(prompt("sleep 1.5 slow"), metadata=KEY)
        stream = stub.StreamGenerateContent(prompt("1 end -"), metadata=KEY)
        next(stream)

        server.process.send_signal(signal.SIGTERM)
        seen = next(health).status
        with pytest.raises(grpc.RpcError) as caught:
            stub.GenerateContent(prompt("late"), metadata=KEY)

        assert seen == health_pb2.HealthCheckResponse.NOT_SERVING
        refusal: Any = caught.value
        assert (refusal.code(), reason_of(refusal)) == (grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING")
        assert text_of(slow.result()) == "sleep 1.5 slow"
        assert server.process.wait(10) == 0


def test_a_server_that_stops_ends_what_takes_too_long(transport: str) -> None:
    """After its drain time nothing is waited for."""
    with running(transport, drain_seconds=1) as [server], grpc.insecure_channel(server.target, options=OWN) as channel:
        call = GenerationServiceStub(channel).StreamGenerateContent(prompt("1 wait long"), metadata=KEY)
        next(call)
        began_at = time.monotonic()
        server.process.terminate()
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
        status = server.process.wait(10)

    refusal: Any = caught.value
    assert refusal.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert status == 0 and time.monotonic() - began_at < 5


def test_servers_share_a_port(transport: str) -> None:
    """When one ends, new connections go to the other."""
    with running(transport, count=2) as [first, second]:
        before = {pid_answers(first.target) for _ in range(12)}
        first.process.terminate()
        first.process.wait(10)
        after = [pid_answers(second.target) for _ in range(6)]

    assert before == {"Hello"}
    assert after == ["Hello"] * 6


def pid_answers(target: str) -> str:
    """Call on a new connection."""
    with grpc.insecure_channel(target, options=OWN) as channel:
        return text_of(GenerationServiceStub(channel).GenerateContent(prompt("Hello"), metadata=KEY, timeout=5))


@NEEDS_ENVOY
def test_nobody_reads_secrets_in_the_environment_of_an_envoy() -> None:
    """The kernel shows it, and `ps` does; the settings come another way."""
    with running("envoy", postgres_dsn="postgresql://app:hidden@localhost/tollhouse") as [server]:
        environment = Path(f"/proc/{server.process.pid}/environ").read_bytes()

    assert b"ENVOY_WORKER_PLACE=" in environment
    assert b"hidden" not in environment and b"TOLLHOUSE_" not in environment


@NEEDS_ENVOY
def test_an_envoy_that_is_killed_leaves_no_key_to_the_next(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its copy of the private key is removed by the process that takes its place, and that one's when it ends."""
    certificate, key = authority.server().write(tmp_path, "server")
    with servers_place("envoy") as temporary:
        monkeypatch.setenv("TMPDIR", str(temporary))
        with running("envoy", tls_certificate_file=certificate, tls_private_key_file=key) as [killed]:
            [left] = temporary.iterdir()
            killed.process.kill()
            killed.process.wait()
        with running("envoy", tls_certificate_file=certificate, tls_private_key_file=key) as [server]:
            assert who(authority, server.port) == "key"
            [own] = temporary.iterdir()
        end = [*temporary.iterdir()]

    assert left != own and end == []


@pytest.fixture(scope="module", params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """Each transport in turn."""
    return str(request.param)


@pytest.fixture(scope="module")
def authority() -> Authority:
    """An authority of this module's own."""
    return Authority.new()


@pytest.fixture(scope="module")
def guarded(transport: str, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with TLS, and a port of their own for clients with certificates."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = authority.server().write(folder, "server")
    (folder / "ca.pem").write_bytes(authority.pem)
    files: dict[str, Any] = {
        "tls_certificate_file": certificate,
        "tls_private_key_file": key,
        "tls_client_ca_file": folder / "ca.pem",
    }
    with running(transport, with_mtls=True, **files) as [one]:
        yield one


def who(authority: Authority, port: int, identity: Identity | None = None, *, key: bool = True) -> str:
    """Call with TLS and return who the server says it was, or the code of its refusal."""
    credentials = grpc.ssl_channel_credentials(
        authority.pem, identity.key if identity else None, identity.certificate if identity else None
    )
    with grpc.secure_channel(f"localhost:{port}", credentials, options=OWN) as channel:
        try:
            answer = GenerationServiceStub(channel).GenerateContent(
                prompt("who"), metadata=KEY if key else (), timeout=5
            )
        except grpc.RpcError as error:
            refusal: Any = error
            return str(refusal.code().name)
    return text_of(answer).split("|")[0]


def test_tls_lets_in_who_should_be(guarded: Running, authority: Authority) -> None:
    """At the port for all with a key; at the other only with a certificate, of this authority."""
    stranger = Authority.new().issue("stranger")
    workload, named = authority.workload(SPIFFE_ID), authority.issue("crm-service")

    assert who(authority, guarded.port) == "key"
    assert who(authority, guarded.port, key=False) == "UNAUTHENTICATED"
    assert who(authority, guarded.mtls_port) == "UNAVAILABLE"
    assert who(authority, guarded.mtls_port, stranger) == "UNAVAILABLE"
    assert who(authority, guarded.mtls_port, workload, key=False) == SPIFFE_ID
    assert who(authority, guarded.mtls_port, named, key=False) == "subject:crm-service"


def test_nobody_says_by_himself_what_his_certificate_is(guarded: Running, authority: Authority) -> None:
    """The header in which Envoy hands it over is Envoy's alone."""
    pem = authority.issue("boss").certificate.decode().replace("\n", "%0A").replace(" ", "%20")
    credentials = grpc.ssl_channel_credentials(authority.pem)
    claim = (("x-forwarded-client-cert", f'Cert="{pem}"'),)
    with grpc.secure_channel(f"localhost:{guarded.port}", credentials, options=OWN) as channel:
        stub = GenerationServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.GenerateContent(prompt("who"), metadata=claim, timeout=5)

    refusal: Any = caught.value
    assert refusal.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_renewed_certificate_holds_without_a_restart(transport: str, authority: Authority, tmp_path: Path) -> None:
    """For new connections, within seconds; one that does not fit its key is kept out."""
    certificate, key = authority.server().write(tmp_path, "server")
    with running(transport, tls_certificate_file=certificate, tls_private_key_file=key) as [server]:
        assert shown(authority, server.port) == "server"
        certificate.write_bytes(authority.server("of another key").certificate)
        authority.server("renewed").write(tmp_path, "server")
        ends_at = time.monotonic() + 12
        while shown(authority, server.port) != "renewed":
            assert time.monotonic() < ends_at
            time.sleep(0.1)


def shown(authority: Authority, port: int) -> str:
    """Return the common name of the certificate that a new connection is shown."""
    context = ssl.create_default_context(cadata=authority.pem.decode())
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("localhost", port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as wrapped,
    ):
        subject: Any = (wrapped.getpeercert() or {})["subject"]
        return str(subject[0][0][1])
