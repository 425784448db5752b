"""How bytes are sealed under a data key: AES-256-GCM, each under a key of its own that a random salt gives.

A tenant's key seals more than random nonces of 96 bits bear (2^32: NIST SP 800-38D, 8.3). So each sealing takes a salt
of 192 bits, and key and nonce are made of it: HMAC-SHA-512 (data key, label and salt), 32 bytes the key, 12 the nonce.
"""

import hmac
import secrets
from dataclasses import dataclass, field
from hashlib import sha512
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tollhouse_server.errors import Unreadable

_FORMAT: Final = b"\x01"
_VERSION_BYTES: Final = 4
_SALT_BYTES: Final = 24
_HEAD_BYTES: Final = len(_FORMAT) + _VERSION_BYTES + _SALT_BYTES
_LABEL: Final = b"tollhouse.sealed/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataKey:
    """One version of a tenant's data key, in memory only."""

    tenant_id: str
    version: int
    secret: bytes = field(repr=False)

    def seal(self, plaintext: bytes, *, context: bytes) -> bytes:
        """Return `plaintext` sealed (53 bytes longer), to be opened with the same context alone."""
        head = _FORMAT + self.version.to_bytes(_VERSION_BYTES, "big") + secrets.token_bytes(_SALT_BYTES)
        cipher, nonce = self._cipher(head)
        return head + cipher.encrypt(nonce, plaintext, self._bound(head, context))

    def open(self, sealed: bytes, *, context: bytes) -> bytes:
        """Return what was sealed.

        Raises:
            Unreadable: it was sealed under another key or context, or was changed.
        """
        head, body = sealed[:_HEAD_BYTES], sealed[_HEAD_BYTES:]
        cipher, nonce = self._cipher(head)
        try:
            return cipher.decrypt(nonce, body, self._bound(head, context))
        except InvalidTag as error:
            raise Unreadable(tenant=self.tenant_id) from error

    def _cipher(self, head: bytes) -> tuple[AESGCM, bytes]:
        made = hmac.digest(self.secret, _LABEL + head, sha512)
        return AESGCM(made[:32]), made[32:44]

    def _bound(self, head: bytes, context: bytes) -> bytes:
        tenant = self.tenant_id.encode()
        return head + len(tenant).to_bytes(2, "big") + tenant + context


def sealed_version(tenant_id: str, sealed: bytes) -> int:
    """Return under which version of the tenant's key something was sealed.

    Raises:
        Unreadable: it was not sealed here at all.
    """
    if len(sealed) < _HEAD_BYTES or not sealed.startswith(_FORMAT):
        raise Unreadable(tenant=tenant_id)
    return int.from_bytes(sealed[len(_FORMAT) : len(_FORMAT) + _VERSION_BYTES], "big")
