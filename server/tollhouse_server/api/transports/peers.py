"""Who is at the other end of a connection to Envoy: his address, and what his certificate says of him."""

import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import unquote

from cryptography.x509 import (
    ExtensionNotFound,
    NameOID,
    SubjectAlternativeName,
    UniformResourceIdentifier,
    load_pem_x509_certificate,
)

from tollhouse_server.api.transports.tls import Holders
from tollhouse_server.identity.remembered import Remembered

CERTIFICATE_HEADER: Final = "x-forwarded-client-cert"
"""Where Envoy writes what it has verified; what a caller sends by this name it removes."""

PEER_HEADER: Final = "x-tollhouse-peer"
"""Where Envoy writes the address of the connection's other end, over whatever a caller sends by this name."""

_CERTIFICATE: Final = re.compile(r'(?:^|;)Cert="([^"]*)"')
_SPIFFE_ID: Final = re.compile(rb"spiffe://[a-z0-9._-]{1,255}(?:/[A-Za-z0-9._-]+)+")
_MAX_SPIFFE_ID_BYTES: Final = 2048
_MAX_CERTIFICATES: Final = 10_000

Properties = Mapping[str, Sequence[bytes]]


class Peers:
    """Reads what Envoy says of them."""

    def __init__(self) -> None:
        self.holders = Holders()
        self._properties: Remembered[str, Properties] = Remembered(_MAX_CERTIFICATES)

    def names_of(self, said: str) -> tuple[str, ...]:
        """Return what a verified certificate says of its holder, the best name first; `said` is Envoy's header."""
        found = _CERTIFICATE.search(said)
        if found is None:
            return ()
        properties = self._properties.get(found[1])
        if properties is None:
            properties = self._properties[found[1]] = _properties_of(unquote(found[1]).encode())
        return self.holders.names(properties)


def peer_of(address: str) -> str:
    """Return an address such as `10.0.0.1:5` or `[::1]:5` as gRPC names a peer."""
    return f"ipv6:{address}" if address.startswith("[") else f"ipv4:{address}"


def _properties_of(pem: bytes) -> Properties:
    """Return what gRPC would tell of a connection with this certificate."""
    certificate = load_pem_x509_certificate(pem)
    try:
        names = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
        uris = [uri.encode() for uri in names.get_values_for_type(UniformResourceIdentifier)]
    except ExtensionNotFound:
        uris = []
    common_names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    properties = {
        "x509_pem_cert": [pem],
        "peer_uri": uris,
        "x509_common_name": [str(name.value).encode() for name in common_names],
    }
    if len(uris) == 1 and len(uris[0]) <= _MAX_SPIFFE_ID_BYTES and _SPIFFE_ID.fullmatch(uris[0]):
        properties["peer_spiffe_id"] = uris
    return properties
