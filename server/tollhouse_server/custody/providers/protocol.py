"""What a rotation needs of whoever issues keys."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from tollhouse_server.vault.secret_text import SecretText


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyOrder:
    """A new key for an account: `key_id` is the label under which it is issued, once, however often it is asked for.

    `old_key_id` and `old_version` are the key that it replaces, as Vault has it.
    """

    account_id: str
    project: str
    key_id: str
    old_key_id: str
    old_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedKey:
    """A key at its provider; `provider_key` is empty where a person keeps it."""

    provider_key: str
    secret: SecretText


class KeyProvider(Protocol):
    """Issues and retires keys. Every method may be repeated, by several processes at once.

    Raises:
        KeyProviderFailed: from every method: the provider is not there, or refuses.
        VaultUnavailable, VaultDenied, SecretMissing: its credential cannot be read.
    """

    async def find(self, order: KeyOrder) -> IssuedKey | None:
        """Return the key that was issued for this order, None if none was."""

    async def issue(self, order: KeyOrder) -> IssuedKey | None:
        """Issue the key, or return the one issued before; None while a person has to bring it."""

    async def retire(self, order: KeyOrder, *, provider_key: str, secret: SecretText | None) -> bool:
        """Make a key invalid: by its name there, or by its secret; False where only a person can do that."""

    async def strays(self, order: KeyOrder, *, ended: Collection[str]) -> tuple[str, ...]:
        """Return the provider's names of keys that live although their ids are among the `ended` ones."""
