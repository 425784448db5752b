"""The text of an API key: `th_{live|test|dev|stage}_{id}_{secret}{checksum}`.

The id finds the record, the secret proves possession, the checksum lets scanners and typing mistakes be told from keys
without asking anyone. Only a keyed digest of the whole text is ever stored.
"""

import base64
import hashlib
import hmac
import re
import secrets
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

ENVIRONMENTS: Final[Mapping[str, str]] = MappingProxyType(
    {"LIVE": "live", "TEST": "test", "DEVELOPMENT": "dev", "STAGING": "stage"}
)
"""How the environments that credentials are for show in the text of a key. LIVE is production."""

_ID_CHARACTERS = 12
_SECRET_BYTES = 25
_SECRET_CHARACTERS = 40
_CHECKSUM_CHARACTERS = 6
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FORM = re.compile(
    rf"th_({'|'.join(ENVIRONMENTS.values())})_([a-z2-7]{{{_ID_CHARACTERS}}})_([a-z2-7]{{{_SECRET_CHARACTERS}}})([0-9A-Za-z]{{6}})"
)


@dataclass(frozen=True, slots=True)
class KeyText:
    """A well-formed key: its parts, and its text, which is a secret and never shows in a repr."""

    environment: str
    key_id: str
    text: str

    def __repr__(self) -> str:
        return f"KeyText(environment={self.environment!r}, key_id={self.key_id!r})"


def make_key(environment: str) -> KeyText:
    """Return a new random key, 200 bits of secret; `environment` as the text has it: live, test, dev or stage."""
    key_id = _random_base32(8)[:_ID_CHARACTERS]
    body = f"th_{environment}_{key_id}_{_random_base32(_SECRET_BYTES)}"
    return KeyText(environment, key_id, body + checksum(body))


def parse_key(text: str) -> KeyText | None:
    """Return the parts of a key, or None when it is not one or its checksum is wrong."""
    match = _FORM.fullmatch(text)
    if match is None or checksum(text[:-_CHECKSUM_CHARACTERS]) != match[4]:
        return None
    return KeyText(match[1], match[2], text)


def checksum(body: str) -> str:
    """Return CRC-32 of `body` as six base-62 digits."""
    value, digits = zlib.crc32(body.encode()), ""
    for _ in range(_CHECKSUM_CHARACTERS):
        value, digit = divmod(value, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits


def digest(pepper: bytes, text: str) -> bytes:
    """Return what is stored of a key: HMAC-SHA256 under the pepper, which lives in Vault.

    A fast digest is right here: the secret has 200 bits, so there is nothing to guess.
    """
    return hmac.digest(pepper, text.encode(), hashlib.sha256)


def _random_base32(count: int) -> str:
    return base64.b32encode(secrets.token_bytes(count)).decode().rstrip("=").lower()
