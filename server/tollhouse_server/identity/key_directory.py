"""API keys: from the text of one to the principal behind it."""

import asyncio
import hmac
from weakref import WeakValueDictionary

from tollhouse_server.database.engine import Database
from tollhouse_server.errors import CredentialsInvalid, Fault
from tollhouse_server.identity.keys import digest, parse_key
from tollhouse_server.identity.presented import FOR_EVER, Admission
from tollhouse_server.identity.remembered import Remembered
from tollhouse_server.identity.store import Credential, find_credential

_MAX_KNOWN = 100_000
_MAX_UNKNOWN = 10_000


class KeyDirectory:
    """Proves API keys; asks the database once for each id, until it is told to forget."""

    def __init__(self, database: Database, pepper: bytes) -> None:
        self._database = database
        self._pepper = pepper
        self._known: Remembered[str, Credential] = Remembered(_MAX_KNOWN)
        self._unknown: Remembered[str, None] = Remembered(_MAX_UNKNOWN)
        self._generation = 0
        self._loading: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def prove(self, text: str) -> Admission:
        """Return what a key is admitted on.

        Raises:
            CredentialsInvalid: it is none, or none of ours that is alive.
            StoreUnavailable: PostgreSQL is gone.
        """
        key = parse_key(text)
        if key is None:
            raise CredentialsInvalid(fault=Fault.MALFORMED)
        credential = self._known.get(key.key_id) or await self._load(key.key_id)
        # The digest is made for unknown ids too: the time of the answer must not tell which ids exist.
        presented = digest(self._pepper, key.text)
        if credential is None:
            raise CredentialsInvalid(fault=Fault.UNKNOWN)
        if not hmac.compare_digest(presented, credential.digest):
            raise CredentialsInvalid(fault=Fault.WRONG_SECRET)
        return Admission(
            principal=credential.principal,
            expires_at=FOR_EVER if credential.expires_at is None else credential.expires_at.timestamp(),
            networks=credential.networks,
            key_id=key.key_id,
        )

    async def _load(self, key_id: str) -> Credential | None:
        # One query per id, however many calls of that id arrive together after a change.
        lock = self._loading.setdefault(key_id, asyncio.Lock())
        async with lock:
            if key_id in self._unknown:
                return None
            if (known := self._known.get(key_id)) is not None:
                return known
            generation = self._generation
            # Across tenants by design: whose id it is, is what is asked. Row security would need the answer first.
            async with self._database.single_query() as session:
                credential = await find_credential(session, key_id)
            # What was read before a change was announced may not be kept after it.
            if generation == self._generation:
                if credential is None:
                    self._unknown[key_id] = None
                else:
                    self._known[key_id] = credential
            return credential

    def forget(self) -> None:
        """Forget every key, because something about one has changed."""
        self._generation += 1
        self._known.clear()
        self._unknown.clear()
