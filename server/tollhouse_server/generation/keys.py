"""Which upstream key an attempt travels with."""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from tollhouse_server.errors import SecretMissing
from tollhouse_server.routing.catalogue import Catalogue
from tollhouse_server.routing.targets import UpstreamKeyMeta
from tollhouse_server.vault.key_ring import KeyRing
from tollhouse_server.vault.secret_text import SecretText


class ChosenKey(NamedTuple):
    """A key of an account, with its secret."""

    meta: UpstreamKeyMeta
    secret: SecretText


class KeyChooser:
    """Takes an account's active keys in turn. They share one quota (it is the project's), so no key is preferred.

    `is_out` tells of an account and a key whether the upstream has refused it since the catalogue was loaded.
    """

    def __init__(self, catalogue: Callable[[], Catalogue], ring: KeyRing, is_out: Callable[[str, str], bool]) -> None:
        self._catalogue = catalogue
        self._ring = ring
        self._is_out = is_out
        self._turns: Counter[str] = Counter()

    def has_key(self, account_id: str) -> bool:
        """Tell whether `pick` would find a key."""
        return any(self._secret(key) is not None for key in self._catalogue().keys_of(account_id))

    def pick(self, account_id: str) -> ChosenKey | None:
        """Return the next key of the account that is held in memory, None if there is none. Never waits."""
        keys = self._catalogue().keys_of(account_id)
        self._turns[account_id] += 1
        for offset in range(len(keys)):
            key = keys[(self._turns[account_id] + offset) % len(keys)]
            secret = self._secret(key)
            if secret is not None:
                return ChosenKey(key, secret)
        return None

    def _secret(self, key: UpstreamKeyMeta) -> SecretText | None:
        if self._is_out(key.account_id, key.key_id):
            return None
        try:
            return self._ring.secret(key.account_id, key.key_id)
        except SecretMissing:
            return None
