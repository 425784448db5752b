"""Which upstream key an attempt travels with."""

from collections import Counter
from collections.abc import Callable

from tollhouse_server.errors import SecretMissing
from tollhouse_server.routing.catalogue import Catalogue
from tollhouse_server.vault.key_ring import KeyRing
from tollhouse_server.vault.secret_text import SecretText


class KeyChooser:
    """Takes an account's active keys in turn. They share one quota (it is the project's), so no key is preferred."""

    def __init__(self, catalogue: Callable[[], Catalogue], ring: KeyRing) -> None:
        self._catalogue = catalogue
        self._ring = ring
        self._turns: Counter[str] = Counter()

    def pick(self, account_id: str) -> SecretText | None:
        """Return the next key of the account that is held in memory, None if there is none. Never waits."""
        keys = self._catalogue().keys_of(account_id)
        self._turns[account_id] += 1
        for offset in range(len(keys)):
            key = keys[(self._turns[account_id] + offset) % len(keys)]
            try:
                return self._ring.secret(account_id, key.key_id)
            except SecretMissing:
                continue
        return None
