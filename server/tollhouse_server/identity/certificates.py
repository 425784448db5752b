"""Certificates of clients: from what one says of its holder to the principal bound to it."""

from tollhouse_server.database.engine import Database
from tollhouse_server.errors import CredentialsInvalid, Fault
from tollhouse_server.identity.presented import Admission
from tollhouse_server.identity.provider_store import find_client_principal
from tollhouse_server.identity.remembered import Remembered

_MAX_UNKNOWN = 10_000


class CertificateDirectory:
    """Proves what certificates say; the transport has verified the certificate itself."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._unknown: Remembered[str, None] = Remembered(_MAX_UNKNOWN)
        self._generation = 0

    async def prove(self, identity: str) -> Admission:
        """Return what `spiffe://...` or `subject:...` is admitted on.

        Raises:
            CredentialsInvalid: it is bound to nobody, or to somebody who is not alive.
            StoreUnavailable: PostgreSQL is gone.
        """
        if identity in self._unknown:
            raise CredentialsInvalid(fault=Fault.UNKNOWN)
        generation = self._generation
        # Across tenants by design: whose name it is, is what is asked.
        async with self._database.transaction() as session:
            principal = await find_client_principal(session, identity)
        if principal is None:
            if generation == self._generation:
                self._unknown[identity] = None
            raise CredentialsInvalid(fault=Fault.UNKNOWN)
        return Admission(principal=principal)

    def forget(self) -> None:
        """Forget who is bound to nobody, because something has changed."""
        self._generation += 1
        self._unknown.clear()
