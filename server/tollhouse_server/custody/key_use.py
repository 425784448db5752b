"""What each key is used for: counted per process for next to nothing, added up in PostgreSQL, held against its past."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import structlog

from tollhouse_server.custody import use_store
from tollhouse_server.custody.use_store import HourOfUse, Past
from tollhouse_server.database.engine import Database
from tollhouse_server.database.rounds import in_rounds
from tollhouse_server.money import NANOS_PER_DOLLAR
from tollhouse_server.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)

_PUBLISH_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """From when on an hour is unusual: all must be passed, so that small numbers and short pasts raise nothing."""

    least_calls: int = 1_000
    least_cost_nanos: int = 10 * NANOS_PER_DOLLAR
    deviations: int = 4
    times_usual: int = 3
    least_hours: int = 24
    """Hours of use that make a past."""
    days: int = 14
    """How far back it reaches."""


class KeyUse:
    """Counts calls and their cost by key and publishes them every minute."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counts: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
        self._publishing = asyncio.Lock()

    def note(self, account_id: str, key_id: str, cost_nanos: int) -> None:
        """Count one call with a key. Waits for nothing, costs well below a microsecond."""
        count = self._counts[account_id, key_id]
        count[0] += 1
        count[1] += cost_nanos

    async def run(self) -> None:
        """Publish for ever; what an outage of the database keeps back is published after it."""
        await in_rounds(self.publish, "uses of upstream keys", pause_seconds=_PUBLISH_SECONDS)

    async def publish(self) -> None:
        """Add what was counted since the last time.

        Raises:
            StoreUnavailable: PostgreSQL is gone; the counts are kept.
        """
        # One at a time: who drains the process may come while `run` publishes, and would count the same calls again.
        async with self._publishing:
            counted = {key: (calls, cost) for key, (calls, cost) in self._counts.items() if calls}
            if not counted:
                return
            async with self._database.transaction() as session:
                await use_store.add_use(session, counted)
            # Only now, and by subtraction: calls went on meanwhile.
            for key, (calls, cost) in counted.items():
                count = self._counts[key]
                count[0] -= calls
                count[1] -= cost
            for key in [key for key, count in self._counts.items() if not count[0] and not count[1]]:
                del self._counts[key]


class UnusualUse:
    """Raises an alert once for each key, metric and hour."""

    def __init__(self, database: Database, metrics: Metrics, bounds: Bounds = Bounds()) -> None:
        self._database = database
        self._metrics = metrics
        self._bounds = bounds

    async def look(self) -> int:
        """Hold the running hour of every key against its past; return how many alerts are new.

        Raises:
            StoreUnavailable: PostgreSQL is gone.
        """
        async with self._database.transaction() as session:
            hours = await use_store.running_hours(session, days=self._bounds.days, least_hours=self._bounds.least_hours)
            found = [(use, metric, past) for use in hours for metric, past in unusual(use, self._bounds)]
            raised = [one for one in found if await use_store.raise_anomaly(session, *one)]
            await use_store.forget_old_use(session, days=self._bounds.days * 2)
        for use, metric, past in raised:
            self._metrics.unusual_key_use(account=use.account_id, metric=metric.lower())
            _log.error(
                "unusual_key_use",
                account=use.account_id,
                upstream_key=use.key_id,
                metric=metric,
                amount=past.amount,
                usual=past.usual,
                deviation=past.deviation,
                hour=use.hour.isoformat(),
            )
        return len(raised)


def unusual(use: HourOfUse, bounds: Bounds) -> Iterator[tuple[str, Past]]:
    """Yield the metrics in which an hour is far above a key's usual ones."""
    for metric, past, least in (
        ("CALLS", use.calls, bounds.least_calls),
        ("COST", use.cost_nanos, bounds.least_cost_nanos),
    ):
        bound = max(past.usual + bounds.deviations * past.deviation, past.usual * bounds.times_usual, least)
        if past.amount > bound:
            yield metric, past
