"""TLS at the gRPC port: who is let in, as whom, and what happens when the files change."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry
from tollhouse.admin.v1 import identity_providers_pb2 as identities
from tollhouse.admin.v1 import prices_pb2
from tollhouse_server.api.call import Call
from tollhouse_server.api.chain import Chain, Method
from tollhouse_server.api.mutation import Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.services.identity_providers_service import IdentityProviderService
from tollhouse_server.api.transports.grpcio import GrpcioServer
from tollhouse_server.api.transports.tls import Holders, names_of
from tollhouse_server.errors import InvalidRequest, ResourceExists
from tollhouse_server.settings import Settings
from tollhouse_server.telemetry.metrics import Metrics

from tests.drivers.authority import Authority, Identity
from tests.drivers.callers import reason_of
from tests.drivers.postgres import TestDatabase
from tests.integration.admin.plane import Plane

RPC = "/tollhouse.admin.v1.PriceService/GetPriceBook"
_REQUEST = prices_pb2.GetPriceBookRequest(name="priceBooks/current").SerializeToString()
SPIFFE_ID = "spiffe://mesh.example/ns/crm/sa/crm-service"
CRM = "tenants/acme/departments/emea/projects/crm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """A server with a certificate, the authority that made it, and where its files are."""

    plane: Plane
    server: GrpcioServer
    registry: CollectorRegistry
    authority: Authority
    folder: Path
    port: int

    async def call(self, identity: Identity | None = None, *, port: int = 0, key: str = "") -> str:
        """Call with TLS and return who the server says it was, or the code and the reason of its refusal."""
        credentials = grpc.ssl_channel_credentials(
            self.authority.pem, identity.key if identity else None, identity.certificate if identity else None
        )
        target = f"localhost:{port or self.port}"
        options = [("grpc.use_local_subchannel_pool", 1)]
        await self.plane.watch.refresh()
        return await _answer(lambda: grpc.secure_channel(target, credentials, options=options), key)

    async def shown(self) -> str:
        """Return the common name of the certificate that a new connection is shown."""
        context = ssl.create_default_context(cadata=self.authority.pem.decode())
        context.set_alpn_protocols(["h2"])
        _, writer = await asyncio.open_connection("localhost", self.port, ssl=context)
        subject = writer.get_extra_info("peercert")["subject"]
        writer.close()
        return str(subject[0][0][1])

    def sample(self, name: str, **labels: str) -> float:
        """Return the value of a metric."""
        return self.registry.get_sample_value(name, labels) or 0.0


async def _answer(open_channel: Callable[[], grpc.Channel], key: str = "") -> str:
    def ask() -> str:
        with open_channel() as channel:
            call: Any = channel.unary_unary(RPC)
            metadata = [("authorization", f"Bearer {key}")] if key else []
            try:
                return prices_pb2.PriceBook.FromString(call(_REQUEST, timeout=5, metadata=metadata)).name
            except grpc.RpcError as error:
                refusal: Any = error
                return f"{refusal.code().name} {reason_of(error) if refusal.trailing_metadata() else ''}".strip()

    return await asyncio.to_thread(ask)


UNKNOWN_KEY = (bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06072a8648ce3d0209"))
UNKNOWN_VERSION = (bytes.fromhex("a003020102"), bytes.fromhex("a003020104"))


def altered(certificate: bytes, old: bytes, new: bytes) -> bytes:
    """Return a certificate that is well-formed, and of a kind that nobody knows."""
    der = ssl.PEM_cert_to_DER_cert(certificate.decode())
    return ssl.DER_cert_to_PEM_cert(der.replace(old, new, 1)).encode()


async def who(_request: object, call: Call) -> prices_pb2.PriceBook:
    """Answer with the caller's name and project."""
    return prices_pb2.PriceBook(name=f"{call.principal.principal_id} {call.principal.project_id}")


@asynccontextmanager
async def serving(plane: Plane, folder: Path, **settings: Any) -> AsyncIterator[Guarded]:
    """Serve with a certificate of a new authority."""
    authority, registry = Authority.new(), CollectorRegistry()
    certificate, key = authority.server().write(folder, "server")
    (folder / "ca.pem").write_bytes(authority.pem)
    metrics = Metrics(registry)
    chain = Chain(
        directory=plane.directory,
        authorizer=plane.authorizer,
        metrics=metrics,
        default_deadline_seconds=30,
        max_message_bytes=1024 * 1024,
    )
    method = Method(rpc=RPC.lstrip("/"), request_type=prices_pb2.GetPriceBookRequest, handler=who, is_stream=False)
    files: dict[str, Any] = {"tls_certificate_file": certificate, "tls_private_key_file": key}
    server = GrpcioServer(chain, [method], Settings(grpc_port=0, **files, **settings), metrics)
    plane.handlers["IdentityProviderService"] = IdentityProviderService(
        plane.database, Mutations(plane.database, b"f"), PageTokens(b"p"), plane.authorizer, ()
    )
    port = await server.start()
    try:
        yield Guarded(plane=plane, server=server, registry=registry, authority=authority, folder=folder, port=port)
    finally:
        await server.stop(0)


@pytest.fixture
async def plane(fresh_database: TestDatabase) -> AsyncIterator[Plane]:
    """The administration plane."""
    plane = await Plane.start(fresh_database.app_dsn)
    yield plane
    await plane.database.close()


async def bind(plane: Plane, **identity: Any) -> identities.ClientIdentity:
    """Let a certificate act as crm-service, which pays from its project."""
    resource = identities.ClientIdentity(principal="tenants/acme/principals/crm-service", **identity)
    request = identities.CreateClientIdentityRequest(parent="tenants/acme", client_identity=resource)
    made: identities.ClientIdentity = await plane.call(request)
    return made


async def test_a_certificate_says_who_calls(plane: Plane, tmp_path: Path) -> None:
    """By its SPIFFE id or by its subject; a header goes before it, and what is bound to nobody is nobody."""
    await plane.tenant("acme")
    await plane.key("acme", "crm-service")
    clerk = await plane.key("acme", "clerk")
    ca = {"tls_client_ca_file": tmp_path / "ca.pem", "tls_client_auth": "required"}
    async with serving(plane, tmp_path, **ca) as guarded:
        workload, named = guarded.authority.workload(SPIFFE_ID, "crm-service"), guarded.authority.issue("crm-service")
        assert await guarded.call(workload) == "UNAUTHENTICATED CREDENTIALS_INVALID"
        bound = await bind(plane, spiffe_id=SPIFFE_ID, project=CRM)

        assert await guarded.call(workload) == "crm-service crm"
        assert await guarded.call(workload, key=clerk) == "clerk None"
        assert await guarded.call(workload, key="th_live_wrong") == "UNAUTHENTICATED CREDENTIALS_INVALID"
        assert await guarded.call(named) == "UNAUTHENTICATED CREDENTIALS_INVALID"
        await bind(plane, subject="crm-service")
        assert await guarded.call(named) == "crm-service None"
        other = guarded.authority.workload("spiffe://mesh.example/ns/crm/sa/other", "crm-service")
        assert await guarded.call(other) == "UNAUTHENTICATED CREDENTIALS_INVALID"
        await plane.call(identities.DeleteClientIdentityRequest(name=bound.name))
        assert await guarded.call(workload) == "UNAUTHENTICATED CREDENTIALS_INVALID"


async def test_what_a_certificate_says_belongs_to_one_tenant(plane: Plane) -> None:
    """No tenant draws the calls of another's workloads to itself."""
    plane.handlers["IdentityProviderService"] = IdentityProviderService(
        plane.database, Mutations(plane.database, b"f"), PageTokens(b"p"), plane.authorizer, ()
    )
    for tenant in ("acme", "rival"):
        await plane.tenant(tenant)
        await plane.key(tenant, "crm-service")
    await bind(plane, spiffe_id=SPIFFE_ID)

    resource = identities.ClientIdentity(principal="tenants/rival/principals/crm-service", spiffe_id=SPIFFE_ID)
    with pytest.raises(ResourceExists):
        await plane.call(identities.CreateClientIdentityRequest(parent="tenants/rival", client_identity=resource))


async def test_a_port_with_tls_takes_nothing_else(plane: Plane, tmp_path: Path) -> None:
    """Neither plaintext, nor, where one is required, a client without a certificate or with another authority's."""
    ca = {"tls_client_ca_file": tmp_path / "ca.pem", "tls_client_auth": "required"}
    async with serving(plane, tmp_path, **ca) as guarded:
        plaintext = await _answer(lambda: grpc.insecure_channel(f"localhost:{guarded.port}"), plane.admin_key)
        bare = await guarded.call(key=plane.admin_key)
        stranger = await guarded.call(Authority.new().issue("stranger"), key=plane.admin_key)
        known = await guarded.call(guarded.authority.issue("anyone"), key=plane.admin_key)

    assert (plaintext, bare, stranger) == ("UNAVAILABLE", "UNAVAILABLE", "UNAVAILABLE")
    assert known.endswith(" None")


async def test_clients_with_certificates_have_a_port_of_their_own(plane: Plane, tmp_path: Path) -> None:
    """Others come with a key as ever; at the further port nobody comes without a certificate."""
    async with serving(plane, tmp_path, tls_client_ca_file=tmp_path / "ca.pem", mtls_port=0) as guarded:
        port = guarded.server.mtls_port or 0
        identity = guarded.authority.issue("anyone")

        assert (await guarded.call(key=plane.admin_key)).endswith(" None")
        assert await guarded.call(key=plane.admin_key, port=port) == "UNAVAILABLE"
        assert (await guarded.call(identity, key=plane.admin_key, port=port)).endswith(" None")


async def test_new_files_hold_for_new_connections_and_bad_ones_change_nothing(plane: Plane, tmp_path: Path) -> None:
    """A certificate that is renewed needs no restart; one that cannot be used is counted and kept out."""
    async with serving(plane, tmp_path) as guarded:
        certificates: Any = guarded.server._certificates
        assert await guarded.shown() == "server"
        guarded.authority.server("renewed", hours=3).write(tmp_path, "server")
        await certificates.look()
        assert await guarded.shown() == "renewed"

        other = guarded.authority.server("of another key").certificate
        for bad in (b"", b"no certificate", other, altered(other, *UNKNOWN_KEY), altered(other, *UNKNOWN_VERSION)):
            (tmp_path / "server.pem").write_bytes(bad)
            await certificates.look()
            await certificates.look()
        guarded.authority.server("expired", hours=-1).write(tmp_path, "server")
        await certificates.look()
        (tmp_path / "server.key").unlink()
        await certificates.look()

        assert await guarded.shown() == "renewed"
        assert guarded.sample("tollhouse_tls_certificate_reloads_total", outcome="refused") == 6
        assert guarded.sample("tollhouse_tls_certificate_reloads_total", outcome="loaded") == 1
        assert 10_000 < guarded.sample("tollhouse_tls_certificate_expiry_seconds") <= 10_800
        guarded.authority.server("mended").write(tmp_path, "server")
        await certificates.look()
        assert await guarded.shown() == "mended"


async def test_a_server_does_not_start_with_files_that_it_cannot_use(plane: Plane, tmp_path: Path) -> None:
    """It must not fall back to plaintext."""
    (tmp_path / "server.pem").write_text("nothing")
    chain: Any = None
    settings = Settings(tls_certificate_file=tmp_path / "server.pem", tls_private_key_file=tmp_path / "server.key")

    with pytest.raises(InvalidRequest):
        GrpcioServer(chain, [], settings)


async def test_a_certificate_says_nothing_after_its_end(plane: Plane, tmp_path: Path) -> None:
    """Its connection may be open for days: what it was opened with counts no longer than it is good for."""
    await plane.tenant("acme")
    await plane.key("acme", "crm-service")
    ca = {"tls_client_ca_file": tmp_path / "ca.pem", "tls_client_auth": "required"}
    async with serving(plane, tmp_path, **ca) as guarded:
        await bind(plane, subject="crm-service")
        issued_at = time.time()
        identity = guarded.authority.issue("crm-service", hours=1)
        assert await guarded.call(identity) == "crm-service None"

        # A certificate's times are whole seconds.
        guarded.server._holders = Holders(lambda: issued_at + 3598)
        before = await guarded.call(identity)
        guarded.server._holders = Holders(lambda: time.time() + 3601)
        after = await guarded.call(identity)

    assert (before, after) == ("crm-service None", "UNAUTHENTICATED CREDENTIALS_INVALID")


def test_a_certificate_with_two_spiffe_ids_is_nobodys() -> None:
    """SPIFFE allows one; which of two would be meant is anyone's guess, and the common name is no way round."""
    assert names_of({"peer_uri": [b"spiffe://a/x", b"spiffe://a/y"], "x509_common_name": [b"boss"]}) == ()
    assert names_of({"peer_uri": [b"https://a"], "x509_common_name": [b"boss"]}) == ("subject:boss",)
    assert names_of({}) == ()
