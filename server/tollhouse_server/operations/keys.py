"""Which upstream keys this process can use, and whether an upstream takes one."""

from collections.abc import Callable

from tollhouse_server.custody.probe import Probe, ProbeVerdict
from tollhouse_server.errors import SecretMissing
from tollhouse_server.routing.catalogue import Catalogue
from tollhouse_server.vault.key_ring import KeyRing


class UnheldKeys:
    """The keys as another process than a worker knows them: it has none, and tries none."""

    def missing(self, _account_id: str) -> list[str]:
        """Name none: which are missing, workers know."""
        return []

    async def probe(self, _account_id: str) -> str:
        """Say that nothing is known."""
        return ProbeVerdict.UNKNOWN.value


class HeldKeys:
    """The keys in memory: what calls go upstream with."""

    def __init__(self, catalogue: Callable[[], Catalogue], ring: KeyRing, probe: Probe) -> None:
        self._catalogue = catalogue
        self._ring = ring
        self._probe = probe

    def missing(self, account_id: str) -> list[str]:
        """Return the active keys of an account that are not in memory."""
        return [key.key_id for key in self._catalogue().keys_of(account_id) if not self._holds(account_id, key.key_id)]

    async def probe(self, account_id: str) -> str:
        """Have the account count the tokens of a word with the first key that is there."""
        for key in self._catalogue().keys_of(account_id):
            if self._holds(account_id, key.key_id):
                return (await self._probe.check(account_id, self._ring.secret(account_id, key.key_id))).value
        return ProbeVerdict.UNKNOWN.value

    def _holds(self, account_id: str, key_id: str) -> bool:
        try:
            self._ring.secret(account_id, key_id)
        except SecretMissing:
            return False
        return True
