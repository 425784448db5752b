"""TLS at the gRPC port: the certificate from files that may change at any time, and what a client's certificate says.

gRPC asks for the configuration at each handshake, so a new certificate holds for new connections; those that are open
keep theirs until they close.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

import grpc
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509 import InvalidVersion, load_pem_x509_certificate, load_pem_x509_certificates

from tollhouse_server.errors import FieldViolation, InvalidRequest
from tollhouse_server.identity.remembered import Remembered
from tollhouse_server.settings import Settings
from tollhouse_server.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)

_LOOK_SECONDS: Final = 5.0
_MAX_HOLDERS: Final = 10_000
_SPIFFE: Final = "spiffe://"

Parts: TypeAlias = tuple[bytes, bytes, bytes | None]
"""In PEM: the certificate with those above it, its key, and who vouches for clients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files; `client_authorities` vouch for clients."""

    certificate: Path
    private_key: Path
    client_authorities: Path | None


def files_of(settings: Settings) -> TlsFiles | None:
    """Return the files that the settings name; None where there is no TLS."""
    if settings.tls_certificate_file is None or settings.tls_private_key_file is None:
        return None
    return TlsFiles(
        certificate=settings.tls_certificate_file,
        private_key=settings.tls_private_key_file,
        client_authorities=settings.tls_client_ca_file,
    )


@dataclass(frozen=True, slots=True)
class _Content:
    """What the files hold, which is known to fit together, and when the certificate expires."""

    parts: Parts
    expires_at: datetime

    def configuration(self) -> Any:
        certificate, private_key, authorities = self.parts
        return grpc.ssl_server_certificate_configuration([(private_key, certificate)], authorities)


class Certificates:
    """Keeps what the files held when they were last good."""

    def __init__(
        self, files: TlsFiles, metrics: Metrics | None, *, tell: Callable[[Parts], None] | None = None
    ) -> None:
        """Read the files, and `tell` who wants to know what is in force, now and after each change.

        Raises:
            InvalidRequest: they cannot be used; the server must not start without them.
        """
        self._files = files
        self._metrics = metrics
        self._tell = tell or (lambda _: None)
        try:
            self._parts = _read(files)
            self._current = _checked(self._parts)
        except (OSError, ValueError) as error:
            violation = FieldViolation(path="TOLLHOUSE_TLS_CERTIFICATE_FILE", description=f"cannot be used: {error}")
            raise InvalidRequest(violations=(violation,)) from None
        self._tell(self._parts)

    def credentials(self, *, requires_client: bool) -> grpc.ServerCredentials:
        """Return credentials for a port, which follow the files; with `requires_client` only for whom they vouch."""
        begin = self._current
        return grpc.dynamic_ssl_server_credentials(begin.configuration(), self._changes(begin), requires_client)

    def _changes(self, shown: _Content) -> Callable[[], Any]:
        """Return what gRPC asks at each handshake, in a thread of its own: the new configuration, or None."""

        def fetch() -> Any:
            nonlocal shown
            current = self._current
            if current is shown:
                return None
            shown = current
            return current.configuration()

        return fetch

    async def run(self) -> None:
        """Look at the files for ever."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Put new content in force; what cannot be used is logged and counted once, and the old goes on."""
        try:
            parts = await asyncio.to_thread(_read, self._files)
            if parts != self._parts:
                self._parts = parts
                self._current = _checked(parts)
                self._tell(parts)
                self._count("loaded")
                _log.info("tls_certificate_loaded", expires_at=self._current.expires_at.isoformat())
        except ValueError as error:
            self._count("refused")
            _log.error("tls_certificate_refused", detail=str(error))
        except OSError as error:
            _log.error("tls_files_unreadable", detail=str(error))
        self._show_expiry()

    def _count(self, outcome: str) -> None:
        if self._metrics is not None:
            self._metrics.certificate_reloaded(outcome=outcome)

    def _show_expiry(self) -> None:
        if self._metrics is not None:
            left = self._current.expires_at - datetime.now(UTC)
            self._metrics.certificate_seen(expires_in_seconds=left.total_seconds())


def _read(files: TlsFiles) -> Parts:
    authorities = files.client_authorities.read_bytes() if files.client_authorities is not None else None
    return files.certificate.read_bytes(), files.private_key.read_bytes(), authorities


def _checked(parts: Parts) -> _Content:
    """Return content that gRPC can use.

    Raises:
        ValueError: it is no PEM, key and certificate do not belong together, or the certificate has expired.
    """
    certificate, private_key, authorities = parts
    encoding, form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    try:
        chain = load_pem_x509_certificates(certificate)
        certified = chain[0].public_key().public_bytes(encoding, form)
        own = load_pem_private_key(private_key, password=None).public_key().public_bytes(encoding, form)
        if authorities is not None:
            load_pem_x509_certificates(authorities)
    except (TypeError, InvalidVersion, UnsupportedAlgorithm) as error:
        raise ValueError(str(error)) from None
    if certified != own:
        raise ValueError("the private key is not that of the certificate")
    if chain[0].not_valid_after_utc <= datetime.now(UTC):
        raise ValueError("the certificate has expired")
    return _Content(parts, chain[0].not_valid_after_utc)


class Holders:
    """Reads what clients' certificates say; one that has expired says nothing, however long its connection lasts."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._ends: Remembered[bytes, float] = Remembered(_MAX_HOLDERS)

    def names(self, properties: Mapping[str, Iterable[bytes]]) -> tuple[str, ...]:
        """Return what the certificate of a connection says of its holder, the best name first."""
        if any(self._ends_at(pem) <= self._clock() for pem in properties.get("x509_pem_cert", ())):
            return ()
        return names_of(properties)

    def _ends_at(self, pem: bytes) -> float:
        if (known := self._ends.get(pem)) is not None:
            return known
        found = self._ends[pem] = load_pem_x509_certificate(pem).not_valid_after_utc.timestamp()
        return found


def names_of(properties: Mapping[str, Iterable[bytes]]) -> tuple[str, ...]:
    """Return what a verified certificate says of its holder: its SPIFFE id, or else its subject's common name.

    gRPC has seen that the certificate is valid, and that a SPIFFE id is the only one and well formed.
    """
    if found := [*properties.get("peer_spiffe_id", ())]:
        return (found[0].decode(),)
    if any(uri.startswith(_SPIFFE.encode()) for uri in properties.get("peer_uri", ())):
        return ()
    names = [*properties.get("x509_common_name", ())]
    return tuple(f"subject:{name.decode(errors='replace')}" for name in names[:1])
