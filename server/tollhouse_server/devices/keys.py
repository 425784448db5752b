"""Devices' public keys: read, named by a fingerprint, and used to tell a device's signature from others."""

import base64
import hashlib
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from tollhouse_server.names import invalid

SIGNED_PREFIX: Final = b"tollhouse.v1.OnDeviceReceipt\0"
"""Stands before what a device signs, so that nothing else that its key may have signed is ever taken for a receipt."""

_RAW_BYTES: Final = 32
_FIELD_PRIME: Final = 2**255 - 19
_ORDER_8_Y: Final = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
# The y of all points whose order divides 8 (RFC 8032 does not refuse them): whoever likes can sign for such a "key".
_WEAK_YS: Final = frozenset({0, 1, _FIELD_PRIME - 1, _ORDER_8_Y, _FIELD_PRIME - _ORDER_8_Y})


def parse_public_key(text: bytes, field: str) -> bytes:
    """Return the 32 bytes of an Ed25519 public key that was given so, or in PEM.

    Raises:
        InvalidRequest: it is another kind of key, none at all, or one under which anything can be signed.
    """
    raw = text if len(text) == _RAW_BYTES else _from_pem(text, field)
    if (int.from_bytes(raw, "little") & (2**255 - 1)) % _FIELD_PRIME in _WEAK_YS:
        raise invalid(field, "is a point of small order, for which everybody can sign")
    return raw


def _from_pem(text: bytes, field: str) -> bytes:
    try:
        key = load_pem_public_key(text)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise invalid(field, "must be an Ed25519 public key: 32 bytes as they are, or in PEM") from None
    return key.public_bytes_raw()


def fingerprint(public_key: bytes) -> str:
    """Return a key's fingerprint in the manner of OpenSSH: `SHA256:` and base64 without padding."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(public_key).digest()).decode().rstrip("=")


def is_signed_by(public_key: bytes, *, signed: bytes, signature: bytes) -> bool:
    """Tell whether the signature is the key's, over a receipt of these bytes."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, SIGNED_PREFIX + signed)
    except InvalidSignature:
        return False
    return True
