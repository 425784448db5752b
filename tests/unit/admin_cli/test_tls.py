"""The way to a server on another machine is protected, and both sides can be made to prove who they are."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tollhouse.admin.v1 import tenants_pb2

from tests.unit.admin_cli.canned import CannedServer, canned_server
from tests.unit.admin_cli.conftest import KEY, Run


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key, as files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tollhouse test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    plain = serialization.NoEncryption()
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, pkcs8, plain))
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def strict_server(certificate: tuple[Path, Path]) -> Iterator[CannedServer]:
    """A server that wants a certificate of its caller."""
    cert, key = (file.read_bytes() for file in certificate)
    credentials = grpc.ssl_server_credentials([(key, cert)], root_certificates=cert, require_client_auth=True)
    with canned_server(credentials) as server:
        server.answers["ListTenants"] = tenants_pb2.ListTenantsResponse()
        yield server


def configure(run: Run, server: CannedServer, *options: str) -> None:
    """Store a profile for the server."""
    assert run("config", "set", "p", "--endpoint", server.target, "--tls", *options, stdin=KEY).code == 0


def test_mutual_tls_reaches_the_server(run: Run, strict_server: CannedServer, certificate: tuple[Path, Path]) -> None:
    """With the authority to trust and a certificate of one's own."""
    cert, key = (str(file) for file in certificate)
    identity = ("--client-certificate-file", cert, "--client-key-file", key)
    configure(run, strict_server, "--ca-file", cert, *identity)

    result = run("tenants", "list", "-o", "json")

    assert (result.code, result.out) == (0, "[]\n")


def test_a_server_that_cannot_prove_itself_gets_no_key(run: Run, strict_server: CannedServer) -> None:
    """The system's authorities did not sign its certificate."""
    configure(run, strict_server)

    result = run("tenants", "list", "--timeout", "5")

    assert result.code == 7
    assert "CERTIFICATE_VERIFY_FAILED" in result.err
    assert strict_server.received == []
