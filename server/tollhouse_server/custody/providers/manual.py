"""Keys that a person issues and retires: at a provider without an API for it, and service accounts of Vertex AI."""

from collections.abc import Collection
from typing import Protocol

from tollhouse_server.custody.providers.protocol import IssuedKey, KeyOrder
from tollhouse_server.errors import SecretMissing
from tollhouse_server.vault.key_ring import KEY_FIELD, upstream_key_path
from tollhouse_server.vault.secret_text import SecretFields, SecretText


class SecretReader(Protocol):
    """Vault, as far as a provider reads it."""

    async def read_secret(self, path: str, *, version: int | None = None) -> SecretFields:
        """Return the secret at `path`."""


class ManualProvider:
    """Waits for a newer version of the old key's secret in Vault; a key added with `replaces` does not come by here."""

    def __init__(self, vault: SecretReader) -> None:
        self._vault = vault

    async def find(self, order: KeyOrder) -> IssuedKey | None:
        """Return what was written over the old key since, if anything was."""
        try:
            fields = await self._vault.read_secret(upstream_key_path(order.account_id, order.old_key_id))
        except SecretMissing:
            return None
        if fields.version <= order.old_version or KEY_FIELD not in fields:
            return None
        return IssuedKey(provider_key="", secret=SecretText(fields[KEY_FIELD]))

    async def issue(self, order: KeyOrder) -> IssuedKey | None:
        """Return None: nobody but a person can."""
        del order
        return None

    async def retire(self, order: KeyOrder, *, provider_key: str, secret: SecretText | None) -> bool:
        """Return False: the person who issued the key has to delete it there."""
        del order, provider_key, secret
        return False

    async def strays(self, order: KeyOrder, *, ended: Collection[str]) -> tuple[str, ...]:
        """Return nothing: nobody can look."""
        del order, ended
        return ()
