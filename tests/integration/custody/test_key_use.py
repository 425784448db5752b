"""Use per key is counted for next to nothing, added up over processes, and held against its past."""

import asyncio
import time
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry
from tollhouse_server.custody import use_store
from tollhouse_server.custody.key_use import Bounds, KeyUse, UnusualUse
from tollhouse_server.database.engine import Database
from tollhouse_server.database.rows import run_sql
from tollhouse_server.money import NANOS_PER_DOLLAR
from tollhouse_server.telemetry.metrics import Metrics

_PAST = """
INSERT INTO key_use (account_id, key_id, hour, calls, cost_nanos)
SELECT 'main', :key, date_trunc('hour', now()) - n * interval '1 hour', :calls + (n % 2) * 10, :cost
FROM generate_series(1, :hours) AS n
"""


async def remember(database: Database, *, calls: int, hours: int, key: str = "first", cost: int = 0) -> None:
    """Give a key a past of so many hours."""
    async with database.transaction() as session:
        await run_sql(session, _PAST, {"key": key, "calls": calls, "hours": hours, "cost": cost})


async def used_now(database: Database, *, calls: int, cost_nanos: int = 0, key: str = "first") -> None:
    async with database.transaction() as session:
        await use_store.add_use(session, {("main", key): (calls, cost_nanos)})


def looker(database: Database) -> UnusualUse:
    return UnusualUse(database, Metrics(CollectorRegistry()))


async def test_counts_of_several_processes_add_up_and_nothing_is_counted_twice(database: Database) -> None:
    """Published by difference: calls go on meanwhile."""
    one, other = KeyUse(database), KeyUse(database)
    for _ in range(3):
        one.note("main", "first", 100)
    other.note("main", "first", 7)

    await one.publish()
    await other.publish()
    one.note("main", "first", 1)
    await one.publish()
    await one.publish()

    async with database.transaction() as session:
        row = (await run_sql(session, "SELECT calls, cost_nanos FROM key_use")).one()
    assert (row.calls, row.cost_nanos) == (5, 308)


async def test_a_drain_that_meets_a_publication_under_way_counts_nothing_twice(database: Database) -> None:
    """Both would add the same calls."""
    use = KeyUse(database)
    use.note("main", "first", 100)

    await asyncio.gather(use.publish(), use.publish())

    async with database.transaction() as session:
        row = (await run_sql(session, "SELECT calls, cost_nanos FROM key_use")).one()
    assert (row.calls, row.cost_nanos) == (1, 100)


def test_a_note_costs_less_than_a_microsecond() -> None:
    """It stands on the path of every call."""
    use = KeyUse(Database("postgresql://nowhere/nothing"))
    best = float("inf")
    for _ in range(20):
        started = time.perf_counter()
        for _ in range(1000):
            use.note("main", "first", 1)
        best = min(best, (time.perf_counter() - started) / 1000)

    assert best < 1e-6


async def test_an_hour_far_above_the_past_raises_one_alert(database: Database) -> None:
    """A row, a metric, and not again for the same hour."""
    registry = CollectorRegistry()
    await remember(database, calls=500, hours=48)
    await used_now(database, calls=20_000)

    unusual = UnusualUse(database, Metrics(registry))
    raised = await unusual.look()
    again = await unusual.look()

    async with database.transaction() as session:
        [found] = await use_store.anomalies(session, "main", days=7)
    assert (raised, again) == (1, 0)
    assert (found.metric, found.amount, found.usual, found.deviation) == ("CALLS", 20_000, 505, 5)
    labels = {"account": "main", "metric": "calls"}
    assert registry.get_sample_value("tollhouse_unusual_key_use_total", labels) == 1.0


@pytest.mark.parametrize(
    ("usual", "now", "hours"),
    [(5, 900, 48), (500, 1400, 48), (500, 20_000, 12)],
    ids=["small numbers", "less than three times", "no past to speak of"],
)
async def test_what_may_be_chance_raises_none(database: Database, usual: int, now: int, hours: int) -> None:
    """An alert that cries too often is not heard."""
    await remember(database, calls=usual, hours=hours)
    await used_now(database, calls=now)

    assert await looker(database).look() == 0


async def test_spending_far_above_the_past_is_told_by_its_own(database: Database) -> None:
    """Few calls can cost much."""
    await remember(database, calls=500, hours=48, cost=NANOS_PER_DOLLAR)
    await used_now(database, calls=500, cost_nanos=200 * NANOS_PER_DOLLAR)

    raised = await looker(database).look()

    async with database.transaction() as session:
        [found] = await use_store.anomalies(session, "main", days=7)
    assert (raised, found.metric, found.usual) == (1, "COST", NANOS_PER_DOLLAR)


async def test_a_key_made_by_rotation_is_held_against_its_accounts_keys(database: Database) -> None:
    """Else a rotation would be a way not to be noticed."""
    await remember(database, calls=500, hours=48)
    await used_now(database, calls=20_000, key="second")

    assert await looker(database).look() == 1


async def test_old_hours_are_forgotten(database: Database) -> None:
    """Nothing is asked of them any more."""
    bounds = Bounds(days=1)
    await remember(database, calls=5, hours=72)

    await UnusualUse(database, Metrics(CollectorRegistry()), bounds).look()

    async with database.transaction() as session:
        oldest = (await run_sql(session, "SELECT now() - min(hour) AS age FROM key_use")).one().age
    assert oldest < timedelta(days=2, hours=2)
