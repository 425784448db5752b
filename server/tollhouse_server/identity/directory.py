"""The directory: from what a call presents to a principal, from memory where memory can be trusted."""

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol
from weakref import WeakValueDictionary

from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import EpochWatch, Topic
from tollhouse_server.errors import CredentialsInvalid, Fault, StoreUnavailable
from tollhouse_server.identity.certificates import CertificateDirectory
from tollhouse_server.identity.key_directory import KeyDirectory
from tollhouse_server.identity.networks import Network, client_address, within
from tollhouse_server.identity.presented import Admission, Presented
from tollhouse_server.identity.principal import Principal
from tollhouse_server.identity.remembered import Remembered

MAX_STALENESS_SECONDS: Final = 2.0
"""How old the knowledge may be on which a credential is admitted: the promise on revocation."""

_MAX_ADMISSIONS: Final = 100_000
_MARK_BYTES: Final = 16


class Tokens(Protocol):
    """Proves the tokens of identity providers."""

    async def prove(self, token: str, *, patience_seconds: float) -> Admission:
        """Return what a token is admitted on."""


class Uses(Protocol):
    """Hears of each use of an API key."""

    def note(self, tenant_id: str, key_id: str) -> None:
        """Note a use; waits for nothing."""


class Directory:
    """Answers who a credential stands for; forgets everything when any identity changed.

    An `authorization` header goes before a certificate: a client in a mesh has one for the way, and says with the other
    who he is. Without `tokens` no tokens are accepted. Behind `trusted_proxies` alone is a header believed about whence
    a call comes.
    """

    def __init__(
        self,
        database: Database,
        epoch_watch: EpochWatch,
        pepper: bytes,
        *,
        tokens: Tokens | None = None,
        uses: Uses | None = None,
        trusted_proxies: Iterable[Network] = (),
    ) -> None:
        self._watch = epoch_watch
        self._keys = KeyDirectory(database, pepper)
        self._certificates = CertificateDirectory(database)
        self._tokens = tokens
        self._uses = uses
        self._trusted_proxies = tuple(trusted_proxies)
        self._admissions: Remembered[bytes | str, Admission] = Remembered(_MAX_ADMISSIONS)
        self._proving: WeakValueDictionary[bytes | str, asyncio.Lock] = WeakValueDictionary()
        self._generation = 0
        # Of this process alone: what it remembers of credentials is worth nothing elsewhere.
        self._mark_key = secrets.token_bytes(32)
        epoch_watch.on_change(Topic.IDENTITY, self._reload)

    async def authenticate(
        self, authorization: str | None, *, patience_seconds: float, presented: Presented | None = None
    ) -> Principal:
        """Return the principal of `Bearer ...`, or, without a header, that of the certificate in `presented`.

        An outage of the database is waited out for `patience_seconds`.

        Raises:
            CredentialsInvalid: whatever is wrong with it; the cause is not told.
            StoreUnavailable: what this server knows is too old to admit anyone, and stayed so.
            IdentityProviderUnavailable: the keys of a token's issuer are not known.
        """
        mark = self._mark(authorization, presented)
        if self._watch.staleness_seconds > MAX_STALENESS_SECONDS:
            await self._catch_up(patience_seconds)
        admission = self._admissions.get(mark)
        if admission is None:
            admission = await self._admit(authorization, mark, patience_seconds)
        if admission.expires_at <= time.time():
            raise CredentialsInvalid(fault=Fault.EXPIRED)
        if admission.networks and not self._is_within(admission.networks, presented):
            raise CredentialsInvalid(fault=Fault.NETWORK)
        if admission.key_id and self._uses is not None:
            self._uses.note(admission.principal.tenant_id, admission.key_id)
        return admission.principal

    def _mark(self, authorization: str | None, presented: Presented | None) -> bytes | str:
        """Return under what a credential is remembered: the name in a certificate, or a keyed digest of a secret."""
        if authorization is not None:
            if authorization[:7].lower() != "bearer ":
                raise CredentialsInvalid(fault=Fault.MALFORMED)
            return hashlib.blake2b(authorization.encode(), digest_size=_MARK_BYTES, key=self._mark_key).digest()
        names = presented.certificate() if presented is not None else ()
        if not names:
            raise CredentialsInvalid(fault=Fault.MISSING)
        return names[0]

    async def _admit(self, authorization: str | None, mark: bytes | str, patience_seconds: float) -> Admission:
        # Proven once, however many calls with it arrive together after a change.
        async with self._proving.setdefault(mark, asyncio.Lock()):
            if (known := self._admissions.get(mark)) is not None:
                return known
            generation = self._generation
            admission = await self._prove(authorization, mark, patience_seconds)
            # What was read before a change was announced may not be kept after it.
            if generation == self._generation:
                self._admissions[mark] = admission
            return admission

    async def _prove(self, authorization: str | None, mark: bytes | str, patience_seconds: float) -> Admission:
        if authorization is None:
            return await self._certificates.prove(str(mark))
        text = authorization[7:].strip()
        if text.startswith("th_"):
            return await self._keys.prove(text)
        if self._tokens is None:
            raise CredentialsInvalid(fault=Fault.MALFORMED)
        return await self._tokens.prove(text, patience_seconds=patience_seconds)

    def _is_within(self, networks: tuple[Network, ...], presented: Presented | None) -> bool:
        if presented is None:
            return False
        forwarded_for = presented.metadata.get("x-forwarded-for")
        address = client_address(presented.peer, forwarded_for, self._trusted_proxies)
        return address is not None and within(address, networks)

    async def _catch_up(self, patience_seconds: float) -> None:
        """Wait until the watch has heard from the database; with no patience at all, refuse at once."""
        try:
            async with asyncio.timeout(patience_seconds):
                while self._watch.staleness_seconds > MAX_STALENESS_SECONDS:
                    await self._watch.wait_for_news()
        except TimeoutError:
            raise StoreUnavailable(detail="no word from the database within the deadline") from None

    async def _reload(self) -> Callable[[], None]:
        # Only with the tree of rights, which takes a while to load: paths and rights change at one moment.
        return self.forget

    def forget(self) -> None:
        """Forget everybody: who comes next is looked at anew."""
        self._generation += 1
        self._admissions.clear()
        self._keys.forget()
        self._certificates.forget()
