"""What the housekeeper does for wallets."""

from typing import Final

import structlog

from tollhouse_server.chargeback import wallet_store
from tollhouse_server.database.engine import Database
from tollhouse_server.database.rounds import in_rounds

_log = structlog.get_logger(__name__)

_ROUND_SECONDS: Final = 15.0


class WalletExpiry:
    """Lets top-ups expire when they are due: what the housekeeper does for wallets."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self) -> None:
        """Look for top-ups that are due, for ever."""
        await in_rounds(self.expire_due, "top-ups of wallets that are due", pause_seconds=_ROUND_SECONDS)

    async def expire_due(self) -> int:
        """Let everything expire that is due now; return of how many wallets."""
        async with self._database.transaction() as session:
            due = await wallet_store.due_wallets(session)
        for tenant, wallet in due:
            # One transaction each: calls of a wallet wait for its own only.
            async with self._database.transaction() as session:
                await wallet_store.bring_up_to_date(session, tenant, wallet)
        if due:
            _log.info("wallets_brought_up_to_date", count=len(due))
        return len(due)
