"""What the leading housekeeper reads for the metrics, against books that were written by the real ledger."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs
from tollhouse_server.database.engine import Database
from tollhouse_server.readings.rounds import Most, Readings
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.telemetry.readings import published

from tests.drivers.books import Books, in_project
from tests.drivers.postgres import TestDatabase
from tests.drivers.rolled_up import build

CRM, LABELS = in_project("crm", "sales"), in_project("labels", "research", "vision")
DOLLAR = 1_000_000_000
Values = dict[tuple[str, ...], float]


@dataclass(slots=True)
class Leader:
    """Takes readings as a housekeeper does."""

    readings: Readings
    registry: CollectorRegistry

    async def read(self) -> dict[str, Values]:
        """Return the values of every reading by its metric, without the product's prefix."""
        return {one.declaration.name.removeprefix("tollhouse_"): dict(one.values) for one in await self.readings.read()}


@asynccontextmanager
async def leader(
    place: TestDatabase, directory: Path, *, budgets: int = 10, departments: int = 10
) -> AsyncIterator[Leader]:
    """Open what a housekeeper has of the readings."""
    database, registry = Database(place.app_dsn, pool_size=2), CollectorRegistry()
    most = Most(budgets=budgets, departments=departments)
    yield Leader(Readings(database, Metrics(registry), directory, most), registry)
    await database.close()


async def test_departments_are_told_what_they_cost_since_their_month_began(
    books: Books, fresh_database: TestDatabase, tmp_path: Path
) -> None:
    """Rolled-up days, records of today and what is booked between two rounds add up, each of them once."""
    now = datetime.now(UTC)
    await books.add_tenant()
    await books.book(5 * DOLLAR, scope=CRM, at=now - timedelta(days=40))
    await books.book(2 * DOLLAR, scope=CRM, at=now.replace(day=1, hour=0, minute=0, second=0, microsecond=0))
    await books.book(DOLLAR, scope=LABELS)
    async with leader(fresh_database, tmp_path) as ours:
        first = await ours.read()
        await build(books, datetime.now(UTC))
        await books.book(4 * DOLLAR, scope=LABELS)
        second = await ours.read()
        async with leader(fresh_database, tmp_path) as another:
            fresh = await another.read()

    assert first["department_cost_dollars"] == {("acme", "sales"): 2, ("acme", "vision"): 1, ("other", "other"): 0}
    assert second["department_cost_dollars"] == {("acme", "sales"): 2, ("acme", "vision"): 5, ("other", "other"): 0}
    assert fresh["department_cost_dollars"] == second["department_cost_dollars"]


async def test_a_department_that_is_no_longer_among_the_dearest_is_one_of_the_others(
    books: Books, fresh_database: TestDatabase, tmp_path: Path
) -> None:
    """Its last value does not stay; the sum over all is right whatever the bound."""
    await books.add_tenant()
    await books.book(2 * DOLLAR, scope=CRM)
    await books.book(DOLLAR, scope=LABELS)
    async with leader(fresh_database, tmp_path, departments=1) as ours:
        first = await ours.read()
        await books.book(4 * DOLLAR, scope=LABELS)
        second = await ours.read()

    assert first["department_cost_dollars"] == {("acme", "sales"): 2, ("other", "other"): 1}
    assert second["department_cost_dollars"] == {("acme", "vision"): 5, ("other", "other"): 2}


async def test_budgets_are_told_with_increases_and_how_much_of_their_window_is_over(
    books: Books, fresh_database: TestDatabase, tmp_path: Path
) -> None:
    """Those used most by their amount come first; a limit on a key, or on tokens, has no name here."""
    await books.add_tenant()
    full = await books.view.add_limit("full", "tenants/acme/departments/vision", "COST", "DAY", 10 * DOLLAR)
    await books.view.add_limit("wide", "tenants/acme", "COST", "TOTAL", 100 * DOLLAR)
    await books.view.add_limit("empty", "tenants/acme/departments/sales", "COST", "MONTH", 7 * DOLLAR)
    await books.view.add_limit("key", LABELS.credential_name, "COST", "MONTH", 8 * DOLLAR)
    await books.view.add_limit("tokens", "tenants/acme", "INPUT_TOKENS", "MONTH", 1000)
    await books.view.connection.execute(
        "INSERT INTO limit_increase (tenant_id, increase_id, limit_id, amount, reason, state, requested_by, "
        "decided_by, expires_at) VALUES ('acme', 'more', $1, $2, 'x', 'APPROVED', 'a', 'b', now() + interval '1 hour')",
        full,
        10 * DOLLAR,
    )
    await books.book(4 * DOLLAR, scope=LABELS)
    await books.reserve(scope=LABELS, cost_nanos=DOLLAR)
    vision, whole = ("acme", "departments/vision", "full"), ("acme", "tenant", "wide")
    async with leader(fresh_database, tmp_path, budgets=2) as ours:
        told = await ours.read()

    assert told["budget_amount_dollars"] == {vision: 20, whole: 100, ("other",) * 3: 15}
    assert told["budget_settled_dollars"] == {vision: 4, whole: 4, ("other",) * 3: 4}
    assert told["budget_held_dollars"] == {vision: 1, whole: 1, ("other",) * 3: 1}
    assert told["budget_used_ratio"] == {vision: 0.25, whole: 0.05}
    now = datetime.now(UTC)
    over = (now - now.replace(hour=0, minute=0, second=0, microsecond=0)) / timedelta(days=1)
    assert told["budget_elapsed_ratio"] == {vision: pytest.approx(over, abs=0.01)}


async def test_alerts_are_counted_once_each_with_those_raised_while_nobody_led(
    books: Books, fresh_database: TestDatabase, tmp_path: Path
) -> None:
    """A new leader counts what it just missed, after showing 0; thresholds become steps of ten per cent."""
    await books.add_tenant()
    await books.view.add_limit("full", "tenants/acme", "COST", "MONTH", 100, thresholds=(20, 50, 83, 150), mode="SOFT")
    await books.book(30)
    await books.view.connection.execute("UPDATE limit_alert SET raised_at = raised_at - interval '2 minutes'")
    await books.book(30)

    def alerts(kind: str, threshold: str) -> float | None:
        return ours.registry.get_sample_value("tollhouse_limit_alerts_total", {"kind": kind, "threshold": threshold})

    async with leader(fresh_database, tmp_path) as ours:
        await ours.read()
        first = alerts("threshold", "50")
        await books.book(100)
        for _ in range(2):
            await ours.read()

    assert first == 0
    assert [alerts("threshold", step) for step in ("20", "50", "80", "100")] == [0, 1, 1, 1]
    assert alerts("passed", "none") == 1


async def test_state_of_ledger_and_database_is_told(books: Books, fresh_database: TestDatabase, tmp_path: Path) -> None:
    """The oldest attempt in suspense, partitions, connections by what they do, size; of bills nothing before one."""
    await books.add_tenant()
    async with leader(fresh_database, tmp_path) as ours:
        before = await ours.read()
        await books.suspend()
        await books.view.connection.execute(
            "INSERT INTO billing_period (tenant_id, month, state, starts_at, ends_at, time_zone, is_fiscal) "
            "VALUES ('acme', '2026-01', 'CLOSED', '2026-01-01Z', '2026-02-01Z', 'UTC', false)"
        )
        await books.view.connection.execute("UPDATE suspense SET suspended_at = now() - interval '2 minutes'")
        after = await ours.read()

    assert (before["periods_closed_total"], after["periods_closed_total"]) == ({(): 0}, {(): 1})
    assert before["suspense_oldest_seconds"] == {(): 0}
    assert after["suspense_oldest_seconds"][()] == pytest.approx(120, abs=10)
    assert 31 < after["ledger_partitions_ahead_seconds"][()] / 86400 < 100
    assert after["database_connections"]["active",] >= 1
    assert after["database_connections"]["idle",] >= 1
    assert after["database_connections_limit"][()] >= 20
    assert after["database_size_bytes"][()] > 1_000_000
    assert "reconciliation_age_seconds" not in after


async def test_bill_reconciled_last_is_told_by_verdict(
    books: Books, fresh_database: TestDatabase, tmp_path: Path
) -> None:
    """Differences of both signs do not cancel each other out."""
    execute = books.view.connection.execute
    for month, ago in (("2026-02", "9 days"), ("2026-03", "1 hour")):
        await execute(
            "INSERT INTO bill_reconciliation "
            "VALUES ($1, 0, 0, 0, 0, 0, 0, 0, NULL, 1, 'x', now() - $2::text::interval)",
            month,
            ago,
        )
    for number, (month, billed, blocking, state) in enumerate(
        (
            ("2026-02", 9, True, "OPEN"),
            ("2026-03", 3, True, "OPEN"),
            ("2026-03", -2, True, "OPEN"),
            ("2026-03", 4, False, "ACCEPTED"),
            ("2026-03", 8, False, "GONE"),
        )
    ):
        await execute(
            "INSERT INTO bill_variance (variance_id, month, day, project, model, sku, google_sku, booked_nanos, "
            "billed_nanos, credits_nanos, booked_quantity, billed_quantity, reasons, unexplained_nanos, concerns_all, "
            "is_blocking, state) "
            "VALUES ($1, $2, '2026-03-01', 'p', 'm', 's', 'g', 0, $3, 0, 0, 0, '[]', 0, false, $4, $5)",
            *(str(number), month, billed * DOLLAR, blocking, state),
        )
    async with leader(fresh_database, tmp_path) as ours:
        told = await ours.read()

    assert told["reconciliation_variance_dollars"] == {("blocking",): 5, ("tolerated",): 0, ("accepted",): 4}
    assert told["reconciliation_age_seconds"][()] == pytest.approx(3600, abs=60)


async def test_one_housekeeper_leads_and_another_takes_over(
    books: Books, fresh_database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What two servers tell is told once; what the old leader told goes with it."""
    monkeypatch.setattr("tollhouse_server.readings.rounds.ROUND_SECONDS", 0.05)
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    async with leader(fresh_database, one) as first, leader(fresh_database, other) as second:
        leading = asyncio.create_task(first.readings.run())
        await _until_published(one)
        waiting = asyncio.create_task(second.readings.run())
        await asyncio.sleep(0.3)
        while_it_led = (bool(published(one)), bool(published(other)))

        leading.cancel()
        await _until_published(other)

        assert while_it_led == (True, False)
        assert published(one) == []
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting


async def test_a_leader_whose_connection_is_cut_leads_again(
    books: Books, fresh_database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock went with the connection: what it had told is withdrawn until it, or another one, has the lock again."""
    monkeypatch.setattr("tollhouse_server.readings.rounds.ROUND_SECONDS", 0.05)
    async with leader(fresh_database, tmp_path) as ours:
        leading = asyncio.create_task(ours.readings.run())
        await _until_published(tmp_path)
        with capture_logs() as logs:
            await books.view.connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = $1", 0x72656164
            )
            async with asyncio.timeout(10):
                while not logs:  # noqa: ASYNC110 - a log wakes nobody
                    await asyncio.sleep(0.01)
            await _until_published(tmp_path)
        leading.cancel()
        with suppress(asyncio.CancelledError):
            await leading

    assert logs[0]["event"] == "work_postponed"


async def _until_published(directory: Path) -> None:
    async with asyncio.timeout(10):
        while not published(directory):  # noqa: ASYNC110 - a file wakes nobody
            await asyncio.sleep(0.01)
