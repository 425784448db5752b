"""What is to be kept, as this process knows it."""

from collections.abc import Mapping
from types import MappingProxyType

from tollhouse_server.content.store import load_policies
from tollhouse_server.content.terms import ContentPolicy
from tollhouse_server.database.engine import Database


class LiveContentPolicies:
    """Holds the policies in force of tenants that have anything kept; watch Topic.CONTENT with `reload`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.current: Mapping[str, ContentPolicy] = MappingProxyType({})

    async def reload(self) -> None:
        """Load the policies and put them in force.

        Raises:
            StoreUnavailable: the database cannot be read; the old ones stay.
        """
        async with self._database.transaction() as session:
            self.current = MappingProxyType(await load_policies(session))
