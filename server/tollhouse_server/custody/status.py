"""How an account's keys stand: what works on them, when they are due, when they were used and what was unusual."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.custody import policy_store, rotation_store, use_store
from tollhouse_server.custody.tables import KeyAnomalyRow
from tollhouse_server.custody.terms import KeyState
from tollhouse_server.routing.tables import UpstreamKeyRow

_ANOMALY_DAYS: Final = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStanding:
    """What is known about one key besides its metadata."""

    rotation: str
    due_at: datetime | None
    last_use_at: datetime | None
    unusual_uses: Sequence[KeyAnomalyRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountStanding:
    """What is known about the keys of one account; ask it about a key with `of`."""

    rotations: Mapping[str, str]
    rotation_period: timedelta
    last_uses: Mapping[str, datetime]
    anomalies: Sequence[KeyAnomalyRow]

    def of(self, key: UpstreamKeyRow) -> KeyStanding:
        """Return how one key of the account stands."""
        issued_at = key.created_at if key.state == KeyState.ACTIVE else None
        return KeyStanding(
            rotation=self.rotations.get(key.key_id, ""),
            due_at=None if issued_at is None else issued_at + self.rotation_period,
            last_use_at=self.last_uses.get(key.key_id),
            unusual_uses=[one for one in self.anomalies if one.key_id == key.key_id],
        )


async def standing_of(session: AsyncSession, account_id: str) -> AccountStanding:
    """Return how the keys of an account stand, in the caller's transaction."""
    rotations = await rotation_store.open_rotations(session, account_id)
    return AccountStanding(
        rotations={
            key_id: rotation_store.name_of(row)
            for row in sorted(rotations, key=lambda row: row.kind, reverse=True)
            for key_id in (row.old_key_id, row.new_key_id)
        },
        rotation_period=(await policy_store.policy_of(session, account_id)).rotation_period,
        last_uses=await use_store.last_use(session, account_id),
        anomalies=await use_store.anomalies(session, account_id, days=_ANOMALY_DAYS),
    )
