"""The directory: from an authorization header to a principal, from memory where memory can be trusted."""

import asyncio
import hmac
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final
from weakref import WeakValueDictionary

from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import EpochWatch, Topic
from tollhouse_server.errors import CredentialsInvalid, StoreUnavailable
from tollhouse_server.identity.keys import KeyText, digest, parse_key
from tollhouse_server.identity.principal import Principal
from tollhouse_server.identity.store import Credential, find_credential

MAX_STALENESS_SECONDS: Final = 2.0
"""How old the knowledge may be on which a credential is admitted: the promise on revocation."""

_MAX_KNOWN = 100_000
_MAX_UNKNOWN = 10_000


class Directory:
    """Answers who a credential stands for; forgets everything when any identity changed."""

    def __init__(self, database: Database, epoch_watch: EpochWatch, pepper: bytes) -> None:
        self._database = database
        self._watch = epoch_watch
        self._pepper = pepper
        self._known: OrderedDict[str, Credential] = OrderedDict()
        self._unknown: OrderedDict[str, None] = OrderedDict()
        self._generation = 0
        self._loading: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        epoch_watch.on_change(Topic.IDENTITY, self._reload)

    async def authenticate(self, authorization: str | None, *, patience_seconds: float) -> Principal:
        """Return the principal of `Bearer th_...`; an outage of the database is waited out for `patience_seconds`.

        Raises:
            CredentialsInvalid: whatever is wrong with it; the cause is not told.
            StoreUnavailable: what this server knows is too old to admit anyone, and stayed so.
        """
        key = _bearer(authorization)
        if key is None:
            raise CredentialsInvalid
        if self._watch.staleness_seconds > MAX_STALENESS_SECONDS:
            await self._catch_up(patience_seconds)
        credential = self._known.get(key.key_id) or await self._load(key.key_id)
        # The digest is made for unknown ids too: the time of the answer must not tell which ids exist.
        presented = digest(self._pepper, key.text)
        if credential is None or not hmac.compare_digest(presented, credential.digest):
            raise CredentialsInvalid
        if credential.expires_at is not None and credential.expires_at <= datetime.now(UTC):
            raise CredentialsInvalid
        return credential.principal

    async def _catch_up(self, patience_seconds: float) -> None:
        """Wait until the watch has heard from the database; with no patience at all, refuse at once."""
        try:
            async with asyncio.timeout(patience_seconds):
                while self._watch.staleness_seconds > MAX_STALENESS_SECONDS:
                    await self._watch.wait_for_news()
        except TimeoutError:
            raise StoreUnavailable(detail="no word from the database within the deadline") from None

    async def _load(self, key_id: str) -> Credential | None:
        # One query per id, however many calls of that id arrive together after a change.
        lock = self._loading.setdefault(key_id, asyncio.Lock())
        async with lock:
            if key_id in self._unknown:
                return None
            if (known := self._known.get(key_id)) is not None:
                return known
            generation = self._generation
            async with self._database.transaction() as session:
                credential = await find_credential(session, key_id)
            # What was read before a change was announced may not be kept after it.
            if generation == self._generation:
                self._remember(key_id, credential)
            return credential

    def _remember(self, key_id: str, credential: Credential | None) -> None:
        if credential is None:
            self._unknown[key_id] = None
            if len(self._unknown) > _MAX_UNKNOWN:
                self._unknown.popitem(last=False)
            return
        self._known[key_id] = credential
        if len(self._known) > _MAX_KNOWN:
            self._known.popitem(last=False)

    async def _reload(self) -> Callable[[], None]:
        # Only with the tree of rights, which takes a while to load: paths and rights change at one moment.
        return self._forget

    def _forget(self) -> None:
        self._generation += 1
        self._known.clear()
        self._unknown.clear()


def _bearer(authorization: str | None) -> KeyText | None:
    scheme, _, credential = (authorization or "").partition(" ")
    return parse_key(credential.strip()) if scheme.lower() == "bearer" else None
