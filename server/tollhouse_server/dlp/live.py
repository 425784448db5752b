"""The data policies that this process judges by."""

from tollhouse_server.database.engine import Database
from tollhouse_server.dlp import store
from tollhouse_server.dlp.policy import DataPolicies, DigestKey


class LiveDataPolicies:
    """Holds the policies in force; watch Topic.DATA_POLICIES with `reload` to keep it so."""

    def __init__(self, database: Database, key: DigestKey) -> None:
        self._database = database
        self._key = key
        self.current = DataPolicies({}, key)

    async def reload(self) -> None:
        """Load the policies and put them in the old ones' place at once.

        Raises:
            StoreUnavailable: the database cannot be read; the old policies stay.
        """
        async with self._database.transaction() as session:
            found = await store.load_policies(session)
        self.current = DataPolicies(found, self._key)
