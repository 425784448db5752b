"""When each key was last used: noted in memory, written once a minute, never on a call's way."""

from datetime import UTC, datetime
from typing import Final

from tollhouse_server.database.engine import Database
from tollhouse_server.database.rounds import in_rounds
from tollhouse_server.identity.store import note_use

_PUBLISH_SECONDS: Final = 60.0
_MAX_NOTED: Final = 100_000


class LastUse:
    """Notes the keys that were used since it last published them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._noted: set[tuple[str, str]] = set()

    def note(self, tenant_id: str, key_id: str) -> None:
        """Note a use. Waits for nothing, costs well below a microsecond."""
        if len(self._noted) < _MAX_NOTED:
            self._noted.add((tenant_id, key_id))

    async def run(self) -> None:
        """Publish for ever, each key at most once a minute."""
        await in_rounds(self.publish, "last use of keys", pause_seconds=_PUBLISH_SECONDS)

    async def publish(self) -> None:
        """Write of every key noted that it was used now.

        Raises:
            StoreUnavailable: PostgreSQL is gone; what was noted is kept.
        """
        noted, self._noted = self._noted, set()
        if not noted:
            return
        now = datetime.now(UTC)
        try:
            async with self._database.transaction() as session:
                await note_use(session, dict.fromkeys(noted, now))
        except BaseException:
            self._noted |= noted
            raise
