"""Signed tokens and the keys that they are checked with. Only asymmetric algorithms exist here."""

import binascii
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey

from tollhouse_server.errors import CredentialsInvalid, Fault

MAX_TOKEN_BYTES: Final = 12 * 1024

_ALGORITHMS: Final[Mapping[str, str]] = MappingProxyType(
    {"RS256": "RSA", "PS256": "RSA", "ES256": "P-256", "EdDSA": "Ed25519", "Ed25519": "Ed25519"}
)
"""Accepted algorithms and the kind of key that each takes: RSA, or the curve."""

_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
"""What a token may say it is, if it says so: others, such as logout tokens, are signed by the same keys."""

_LEAST_RSA_BITS: Final = 2048
_MOST_RSA_BITS: Final = 8192
_MAX_KEYS: Final = 100

_Key: TypeAlias = RSAKey | ECKey | OKPKey


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key of an issuer, the algorithms that it is for, and its thumbprint (RFC 7638), by which two are the same."""

    key: _Key = field(compare=False)
    algorithms: frozenset[str]
    thumbprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token taken apart; nothing in it is proven."""

    text: str
    algorithm: str
    key_id: str
    claims: Mapping[str, Any]


def take_apart(text: str) -> Token:
    """Return the parts of a compact JWS with JSON claims.

    Raises:
        CredentialsInvalid: it is none, or signed as we accept from nobody.
    """
    parts = text.split(".")
    if len(text) > MAX_TOKEN_BYTES or len(parts) != 3 or not text.isascii():
        raise CredentialsInvalid(fault=Fault.MALFORMED)
    header, claims = _json(parts[0]), _json(parts[1])
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in _ALGORITHMS:
        raise CredentialsInvalid(fault=Fault.ALGORITHM)
    # What `crit` names must be understood; we understand nothing beyond the signature.
    if "crit" in header or "b64" in header or str(header.get("typ", "JWT")).lower() not in _TYPES:
        raise CredentialsInvalid(fault=Fault.MALFORMED)
    key_id = header.get("kid", "")
    if not isinstance(key_id, str):
        raise CredentialsInvalid(fault=Fault.MALFORMED)
    return Token(text=text, algorithm=algorithm, key_id=key_id, claims=claims)


def check_signature(token: Token, public_key: PublicKey) -> None:
    """Return if the key has signed the token.

    Raises:
        CredentialsInvalid: it has not, or is not for the token's algorithm.
    """
    if token.algorithm not in public_key.algorithms:
        raise CredentialsInvalid(fault=Fault.ALGORITHM)
    registry = jws.JWSRegistry(algorithms=[token.algorithm], strict_check_header=False)
    try:
        jws.deserialize_compact(token.text, public_key.key, registry=registry)
    except (JoseError, ValueError):
        raise CredentialsInvalid(fault=Fault.SIGNATURE) from None


def public_keys(document: Mapping[str, Any]) -> Mapping[str, PublicKey]:
    """Return the usable signing keys of a JWKS by their ids; a key without an id has the empty one.

    What cannot be used is left out: other kinds, keys for encryption, short ones, and all keys whose id is not theirs
    alone.
    """
    entries = document.get("keys")
    found: dict[str, list[PublicKey]] = {}
    for entry in entries[:_MAX_KEYS] if isinstance(entries, list) else ():
        if isinstance(entry, dict) and (public_key := _public_key(entry)) is not None:
            found.setdefault(str(entry.get("kid", "")), []).append(public_key)
    return {key_id: keys[0] for key_id, keys in found.items() if len(keys) == 1}


def _public_key(entry: dict[str, Any]) -> PublicKey | None:
    try:
        if entry.get("use", "sig") != "sig" or "verify" not in entry.get("key_ops", ["verify"]):
            return None
        key = JWKRegistry.import_key({name: entry[name] for name in _PARTS if name in entry})
        kind, thumbprint = _kind(key), key.thumbprint()
    except (JoseError, UnsupportedAlgorithm, ValueError, TypeError, KeyError):
        return None
    algorithms = frozenset(algorithm for algorithm, needed in _ALGORITHMS.items() if needed == kind)
    said = entry.get("alg")
    if said is not None and kind == "RSA":
        # One key, one way of signing; the two names of Ed25519 are one way.
        algorithms &= {said} if isinstance(said, str) else frozenset()
    if not algorithms or not isinstance(key, RSAKey | ECKey | OKPKey):
        return None
    return PublicKey(key, algorithms, thumbprint)


# Private parts, certificates and the rest of an entry are none of our business.
_PARTS: Final = ("kty", "crv", "n", "e", "x", "y")


def _kind(key: object) -> str:
    """Return RSA or the curve of a key; the empty text for what is too weak or unknown."""
    if isinstance(key, RSAKey):
        return "RSA" if _LEAST_RSA_BITS <= key.public_key.key_size <= _MOST_RSA_BITS else ""
    return key.curve_name if isinstance(key, ECKey | OKPKey) else ""


def _json(part: str) -> dict[str, Any]:
    try:
        found = orjson.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (binascii.Error, ValueError):
        raise CredentialsInvalid(fault=Fault.MALFORMED) from None
    if not isinstance(found, dict):
        raise CredentialsInvalid(fault=Fault.MALFORMED)
    return found
