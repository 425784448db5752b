"""A certificate authority of a test's own, for servers and clients on loopback."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

_SIGNS = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)
SERVER_NAMES = (x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1")))


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its key, PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Write both into a folder and return the files."""
        files = folder / f"{name}.pem", folder / f"{name}.key"
        files[0].write_bytes(self.certificate)
        files[1].write_bytes(self.key)
        return files


@dataclass(frozen=True, slots=True)
class Authority:
    """Signs certificates.

    A thorough one's say all that RFC 5280 asks for (section 4.2.1), without which Python 3.13 believes nobody.
    """

    certificate: x509.Certificate
    key: EllipticCurvePrivateKey
    is_thorough: bool = True

    @classmethod
    def new(cls, *, is_thorough: bool = True) -> Self:
        key = generate_private_key(SECP256R1())
        name = _name("tests' authority")
        builder = _builder(name, name, key, hours=1, is_authority=True)
        if is_thorough:
            builder = _may_sign(builder, key)
        return cls(builder.sign(key, hashes.SHA256()), key, is_thorough)

    def intermediate(self) -> Self:
        """Return an authority that this one has signed."""
        key = generate_private_key(SECP256R1())
        builder = _builder(_name("an intermediate"), self.certificate.subject, key, hours=1, is_authority=True)
        if self.is_thorough:
            builder = _names_signer(_may_sign(builder, key), self.key)
        return type(self)(builder.sign(self.key, hashes.SHA256()), key, self.is_thorough)

    @property
    def pem(self) -> bytes:
        """The authority's own certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    def issue(self, common_name: str, *names: x509.GeneralName, hours: float = 1) -> Identity:
        """Return a certificate, with a key of its own, that expires in `hours`."""
        key = generate_private_key(SECP256R1())
        builder = _builder(_name(common_name), self.certificate.subject, key, hours=hours)
        if self.is_thorough:
            builder = _names_signer(builder, self.key)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        made = builder.sign(self.key, hashes.SHA256())
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Identity(made.public_bytes(Encoding.PEM), private)

    def server(self, common_name: str = "server", *, hours: float = 1) -> Identity:
        """Return a certificate of this machine."""
        return self.issue(common_name, *SERVER_NAMES, hours=hours)

    def workload(self, spiffe_id: str, common_name: str = "workload") -> Identity:
        """Return a certificate with a SPIFFE id."""
        return self.issue(common_name, x509.UniformResourceIdentifier(spiffe_id))


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey, *, hours: float, is_authority: bool = False
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder(issuer_name=issuer, subject_name=subject, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + timedelta(hours=hours))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )


def _may_sign(builder: x509.CertificateBuilder, key: EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return builder.add_extension(identifier, critical=False).add_extension(_SIGNS, critical=True)


def _names_signer(builder: x509.CertificateBuilder, signer: EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    return builder.add_extension(identifier, critical=False)
