"""Alerts: raised by the settlement that causes them, once each."""

import asyncio
from datetime import timedelta

from tollhouse_server.ledger.definition_store import NO_ALERT

from tests.drivers.ledger import LedgerProcess, LedgerView, ledger_process, settled, terms
from tests.drivers.postgres import TestDatabase


async def spend(process: LedgerProcess, *costs: int) -> None:
    """Make calls that hold and cost so much, one after the other."""
    for cost_nanos in costs:
        reservation = await process.ledger.reserve(terms(cost_nanos=cost_nanos), timeout_seconds=5)
        await process.ledger.settle(reservation, settled(cost_nanos))


def in_days(first: int, last: int) -> tuple[timedelta, timedelta]:
    """Return two spans of days."""
    return timedelta(days=first), timedelta(days=last)


async def test_each_threshold_raises_one_alert(process: LedgerProcess, view: LedgerView) -> None:
    """Reached exactly counts as reached; what is in flight does not."""
    await view.add_limit("money", "tenants/acme", "COST", "MONTH", 1000, thresholds=[50, 80, 100])
    await spend(process, 499)
    before = await view.alerts()

    await spend(process, 1, 100, 100, 50)
    at_half = await view.alerts()
    await spend(process, 50, 100, 100)

    assert before == []
    assert at_half == [("THRESHOLD", 50)]
    assert await view.alerts() == [("THRESHOLD", 50), ("THRESHOLD", 80), ("THRESHOLD", 100)]


async def test_one_settlement_may_reach_several_thresholds(process: LedgerProcess, view: LedgerView) -> None:
    """None is skipped."""
    await view.add_limit("money", "tenants/acme", "COST", "MONTH", 1000, thresholds=[50, 80])

    await spend(process, 900)

    assert sorted(await view.alerts()) == [("THRESHOLD", 50), ("THRESHOLD", 80)]


async def test_a_soft_limit_that_is_passed_says_so_once(process: LedgerProcess, view: LedgerView) -> None:
    """Nothing is refused."""
    await view.add_limit("money", "tenants/acme", "COST", "MONTH", 100, mode="SOFT")

    await spend(process, 100)
    at_the_amount = await view.alerts()
    await spend(process, 1, 500, 500)

    assert at_the_amount == []
    assert await view.alerts() == [("PASSED", 0)]


async def test_two_servers_raise_an_alert_once(
    process: LedgerProcess, view: LedgerView, fresh_database: TestDatabase
) -> None:
    """Whichever crosses it."""
    await view.add_limit("money", "tenants/acme", "COST", "MONTH", 10_000, thresholds=[50])

    async with ledger_process(fresh_database.app_dsn) as other:
        await asyncio.gather(*(spend(one, *[100] * 30) for one in (process, other)))

    assert await view.alerts() == [("THRESHOLD", 50)]


async def test_a_changed_amount_is_measured_anew(process: LedgerProcess, view: LedgerView) -> None:
    """Whoever changes a limit sets alert_at to 0; a threshold that was raised already is not raised again."""
    limit = await view.add_limit("money", "tenants/acme", "COST", "MONTH", 1000, thresholds=[50, 80])
    await spend(process, 600)
    await view.connection.execute("UPDATE usage_limit SET amount = 2000 WHERE limit_id = $1", limit)
    await view.connection.execute("UPDATE counter SET alert_at = 0 WHERE limit_id = $1", limit)
    await view.announce()

    await spend(process, 500, 400)
    below = await view.alerts()
    await spend(process, 100)

    assert below == [("THRESHOLD", 50)]
    assert await view.alerts() == [("THRESHOLD", 50), ("THRESHOLD", 80)]


async def test_an_increase_in_force_counts(process: LedgerProcess, view: LedgerView) -> None:
    """It widens what is admitted and what thresholds are measured by; one that has expired does neither."""
    limit = await view.add_limit("money", "tenants/acme", "COST", "MONTH", 1000, thresholds=[90])
    await view.connection.executemany(
        "INSERT INTO limit_increase (tenant_id, increase_id, limit_id, amount, reason, state, requested_by, "
        "decided_by, starts_at, expires_at) "
        "VALUES ('acme', $1, $2, 1000, 'launch', 'APPROVED', 'a', 'b', now() + $3, now() + $4)",
        [
            ("now", limit, *in_days(-1, 1)),
            ("over", limit, *in_days(-2, -1)),
            ("later", limit, *in_days(1, 2)),
        ],
    )
    await view.announce()

    await spend(process, 1799)
    before = await view.alerts()
    await spend(process, 1, 200)

    assert before == []
    assert await view.alerts() == [("THRESHOLD", 90)]
    assert await view.counter(limit) == (0, 2000)


async def test_an_increase_that_has_expired_no_longer_hides_a_threshold(
    process: LedgerProcess, view: LedgerView
) -> None:
    """Nobody changes the limit when an increase ends; the next settlement measures by what is left."""
    limit = await view.add_limit("money", "tenants/acme", "COST", "MONTH", 1000, thresholds=[50])
    await view.connection.execute(
        "INSERT INTO limit_increase (tenant_id, increase_id, limit_id, amount, reason, state, requested_by, "
        "decided_by, expires_at) VALUES ('acme', 'more', $1, 1000, 'launch', 'APPROVED', 'a', 'b', now() + $2)",
        limit,
        timedelta(days=1),
    )
    await view.announce()
    await spend(process, 300, 300)
    before = await view.alerts()

    await view.connection.execute("UPDATE limit_increase SET expires_at = now()")
    await spend(process, 1)

    assert before == []
    assert await view.alerts() == [("THRESHOLD", 50)]


async def test_a_minute_of_a_rolling_window_raises_no_alert(process: LedgerProcess, view: LedgerView) -> None:
    """It is the sum of the minutes that counts, even where the limit has been changed since."""
    limit = await view.add_limit(
        "money", "tenants/acme", "COST", "ROLLING_10_MINUTES", 100, mode="SOFT", thresholds=[50, 1000]
    )
    await spend(process, 200)
    await view.connection.execute("UPDATE counter SET alert_at = 0 WHERE limit_id = $1", limit)

    await spend(process, 200)

    assert await view.alerts() == []
    last = "SELECT alert_at FROM counter WHERE limit_id = $1 AND settled > 0 ORDER BY window_start DESC LIMIT 1"
    assert await view.connection.fetchval(last, limit) == NO_ALERT


async def test_a_settlement_above_its_hold_raises_an_alert_with_its_attempt(
    process: LedgerProcess, view: LedgerView
) -> None:
    """The ceiling was too low: a defect that someone has to look into."""
    await view.add_limit("money", "tenants/acme", "COST", "MONTH", 1000)
    reservation = await process.ledger.reserve(terms(cost_nanos=100), timeout_seconds=5)

    await process.ledger.settle(reservation, settled(101))

    row = await view.connection.fetchrow("SELECT kind, settled, amount, attempt_id FROM limit_alert")
    assert row is not None
    assert tuple(row) == ("ABOVE_HOLD", 101, 100, reservation.terms.attempt_id)
