"""A verification is silent on a sound ledger, and finds one nano-dollar too many wherever it is."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry
from tollhouse_server.database.engine import Database
from tollhouse_server.ledger import connections
from tollhouse_server.ledger.verification import (
    LedgerVerification,
    NightlyVerification,
    Progress,
    Verdict,
    VerificationEvent,
    seconds_until_night,
)
from tollhouse_server.ledger.verification_store import Check, Finding, leadership
from tollhouse_server.reporting.rollup_findings import rollup_findings
from tollhouse_server.reporting.rollups import RollUps
from tollhouse_server.telemetry.metrics import Metrics

from tests.drivers.ledger import LedgerProcess, LedgerView, settled, terms
from tests.drivers.mixed_ledger import MixedRun, mixed_run
from tests.drivers.postgres import TestDatabase
from tests.integration.ledger.planted_errors import NANO, ROWS, Findings, filled

TABLES = ("counter", "usage_record", "suspense", "attempt", "usage_rollup", "usage_rollup_sku", "usage_rollup_day")


@dataclass(slots=True)
class Audited:
    """A ledger after a mixed run, and what verifies it."""

    view: LedgerView
    run: MixedRun
    database: Database

    async def events(self, *, tenant: str | None = None, month: str = "") -> list[VerificationEvent]:
        """Verify and return everything that was said."""
        verification = LedgerVerification(self.database, rollup_findings)
        return [event async for event in verification.verify(tenant=tenant, month=month)]

    async def findings(self, *, tenant: str | None = None, month: str = "") -> Findings:
        """Verify and return (check, table, field) of all that does not add up."""
        events = await self.events(tenant=tenant, month=month)
        return {(one.check, one.table, one.field) for one in events if isinstance(one, Finding)}

    async def findings_after(self, sql: str) -> Findings:
        """Change the ledger, return what a verification finds, and put everything back."""
        execute = self.view.connection.execute
        for table in TABLES:
            await execute(f"CREATE TEMPORARY TABLE IF NOT EXISTS kept_{table} AS TABLE {table}")
        await execute(sql)
        found = await self.findings()
        for table in TABLES:
            await execute(f"TRUNCATE {table}; INSERT INTO {table} SELECT * FROM kept_{table}")  # noqa: S608
        return found

    async def verdict(self) -> Verdict:
        """Verify and return the verdict."""
        (*_, verdict) = await self.events()
        assert isinstance(verdict, Verdict)
        return verdict

    async def roll_up(self) -> None:
        """Move all that is booked three days back, and let the housekeeper roll it up."""
        execute = self.view.connection.execute
        await execute("SELECT create_usage_partition((now() - interval '3 days')::date)")
        await execute("UPDATE usage_record SET settled_at = settled_at - interval '3 days'")
        await execute("UPDATE usage_record SET dispatched_at = dispatched_at - interval '3 days'")
        await RollUps(self.database, Metrics(CollectorRegistry())).build()


@pytest.fixture
async def audited(process: LedgerProcess, view: LedgerView, fresh_database: TestDatabase) -> AsyncIterator[Audited]:
    """The ledger of tenant acme."""
    database = Database(fresh_database.app_dsn)
    try:
        yield Audited(view, await mixed_run(view, process, database), database)
    finally:
        await database.close()


async def test_a_sound_ledger_has_no_findings(audited: Audited) -> None:
    """After calls that ended in every way, some still in flight, and on the whole as on its parts."""
    verdict = await audited.verdict()

    month = f"{datetime.now(UTC):%Y-%m}"
    assert (verdict.findings, verdict.unchecked_counters) == (0, 0)
    assert (verdict.extent.records, verdict.extent.suspense, verdict.extent.attempts) == (20, 6, 4)
    assert await audited.findings(tenant="acme") == set()
    assert await audited.findings(tenant="acme", month=month) == set()
    assert await audited.findings(month="2020-01") == set()


async def test_a_sound_ledger_with_roll_ups_has_no_findings(audited: Audited) -> None:
    """Days that are over are held against their records."""
    await audited.roll_up()

    verdict = await audited.verdict()

    assert verdict.extent.rollup_days > 0
    assert verdict.findings == 0


@pytest.mark.parametrize("planted", [NANO, ROWS], ids=["one-off", "rows"])
async def test_a_planted_error_is_found_by_name(audited: Audited, planted: Sequence[tuple[str, Findings]]) -> None:
    """Whatever is one off, or one row too few or too many, is named with its table and column."""
    found = {sql: await audited.findings_after(filled(sql, audited.run)) for sql, _ in planted}

    assert found == dict(planted)


async def test_a_nano_dollar_in_a_roll_up_is_found(audited: Audited) -> None:
    """In the sums of a group, of a SKU, of a label, of a price, and of a whole day."""
    await audited.roll_up()
    details = ("usage_rollup_label", "usage_rollup_price")
    tables = ("usage_rollup", "usage_rollup_sku", *details, "usage_rollup_day")

    found = {
        table: await audited.findings_after(
            f"UPDATE {table} SET cost_nanos = cost_nanos + 1 WHERE ctid = (SELECT min(ctid) FROM {table})"  # noqa: S608
        )
        for table in tables
    }

    for table in tables:
        assert (Check.ROLLUPS, table, "cost_nanos") in found[table]
        assert {check for check, _, _ in found[table]} == {Check.ROLLUPS}


async def test_a_finding_says_what_should_and_what_does_stand(audited: Audited) -> None:
    """The limit by name, the window, and both numbers."""
    await audited.view.connection.execute(
        "UPDATE counter SET settled = settled + 1 WHERE limit_id = "
        "(SELECT limit_id FROM usage_limit WHERE name = 'for-ever')"
    )

    (finding,) = [event for event in await audited.events() if isinstance(event, Finding)]

    assert (finding.tenant, finding.key) == ("acme", "limit for-ever, window of 1970-01-01T00:00:00Z")
    assert int(finding.found) == int(finding.expected) + 1


async def test_a_counter_that_is_missing_before_its_window_is_over_is_found(audited: Audited) -> None:
    """One that was cleaned away after its window is not missed."""
    forget = "DELETE FROM counter WHERE limit_id IN (SELECT limit_id FROM usage_limit WHERE name = $1)"
    await audited.view.connection.execute("DELETE FROM attempt")
    await audited.view.connection.execute("UPDATE counter SET held = 0, expected = 0")
    await audited.view.connection.execute(forget, "for-ever")

    found = await audited.findings()

    assert found == {(Check.COUNTERS, "counter", "settled")}


async def test_counters_of_records_from_before_they_named_any_are_not_judged(audited: Audited) -> None:
    """They are counted, and said to be beyond checking; nothing is made up."""
    await audited.view.connection.execute("UPDATE usage_record SET holds = '[]'")

    verdict = await audited.verdict()

    assert verdict.findings == 0
    assert verdict.unchecked_counters >= 6
    assert verdict.extent.unnamed_records == 18


async def test_counters_whose_records_were_dropped_are_not_judged(audited: Audited) -> None:
    """A month that was exported and dropped takes the check of its windows with it."""
    execute = audited.view.connection.execute
    await execute("DELETE FROM usage_record WHERE kind = 'SETTLED'")
    await execute(
        "INSERT INTO usage_export (month, state, record_count, cost_nanos, checksum, created_by) "
        "VALUES (date_trunc('month', now()), 'DROPPED', 8, 1, 1, 'ann')"
    )

    verdict = await audited.verdict()

    assert verdict.findings == 0
    assert verdict.unchecked_counters > 0


async def test_a_tenant_that_only_the_ledger_knows_is_verified_too(audited: Audited) -> None:
    """Rows under a name that nobody can ask for do not go unseen."""
    await audited.view.connection.execute(
        "INSERT INTO counter (tenant_id, limit_id, window_start, settled) VALUES ('ghost', 1, '1970-01-01Z', 5)"
    )

    tenants = {event.tenant for event in await audited.events() if isinstance(event, Finding)}

    assert tenants == {"ghost"}


async def test_findings_are_bounded(audited: Audited) -> None:
    """What is broken everywhere is told a hundred times, and that there is more."""
    await audited.view.connection.execute(
        "INSERT INTO counter (tenant_id, limit_id, window_start, settled) "
        "SELECT 'acme', (SELECT limit_id FROM usage_limit WHERE name = 'flash'), now() + n * interval '1 hour', 1 "
        "FROM generate_series(1, 150) AS n"
    )

    verdict = await audited.verdict()

    assert (verdict.findings, verdict.truncated) == (100, True)


async def test_progress_is_told_step_by_step(audited: Audited) -> None:
    """Each check of each tenant is a step."""
    steps = [event for event in await audited.events() if isinstance(event, Progress)]

    assert [step.done_steps for step in steps] == list(range(1, steps[0].total_steps + 1))
    assert {step.check for step in steps} == set(Check)


async def test_the_nightly_run_reports_findings_and_its_success(audited: Audited, fresh_database: TestDatabase) -> None:
    """By metric, for an alert to stand on."""
    await audited.view.connection.execute("UPDATE counter SET settled = settled + 1 WHERE settled > 0")
    registry = CollectorRegistry()
    pool = await connections.create_pool(fresh_database.app_dsn)
    verification = LedgerVerification(audited.database, rollup_findings)

    verdict = await NightlyVerification(pool, verification, Metrics(registry)).verify()

    await pool.close()
    assert verdict is not None
    assert registry.get_sample_value("tollhouse_ledger_findings") == verdict.findings > 0
    assert registry.get_sample_value("tollhouse_ledger_verified_timestamp_seconds") == verdict.snapshot_at.timestamp()


async def is_leader(pool: "connections.Pool") -> bool:
    """Tell whether a process may lead."""
    async with leadership(pool) as leader:
        return leader is not None


async def test_one_process_leads_the_nightly_run(fresh_database: TestDatabase) -> None:
    """The next one may as soon as it is gone."""
    one, other = [await connections.create_pool(fresh_database.app_dsn) for _ in range(2)]

    async with leadership(one) as leader, leadership(other) as follower:
        assert leader is not None
        assert follower is None
    async with asyncio.timeout(10):
        while not await is_leader(other):  # noqa: ASYNC110 - PostgreSQL tells nobody
            await asyncio.sleep(0.05)

    await one.close()
    await other.close()


@pytest.mark.parametrize(("hour", "expected"), [(1, 3600), (2, 24 * 3600), (3, 23 * 3600)])
def test_night_is_at_two(hour: int, expected: float) -> None:
    """The next one, never now."""
    assert seconds_until_night(datetime(2026, 11, 21, hour, tzinfo=UTC)) == expected


async def test_a_past_counter_that_a_correction_made_anew_is_not_judged(audited: Audited) -> None:
    """It was cleaned away before; what it has since is the correction alone."""
    execute = audited.view.connection.execute
    await execute("UPDATE usage_limit SET \"window\" = 'MINUTE' WHERE name = 'flash'")
    await execute("UPDATE counter SET window_start = window_start - interval '1 day'")
    await execute("UPDATE usage_record SET holds = '[]' WHERE kind = 'REFUSED'")
    yesterday = """UPDATE {} SET holds = (SELECT json_agg(json_build_array(
        h -> 0, (h ->> 1)::timestamptz - interval '1 day', h -> 2, h -> 3, h -> 4
    )) FROM json_array_elements(holds) AS h)"""
    await execute(yesterday.format("usage_record") + " WHERE holds::text <> '[]'")
    await execute(yesterday.format("attempt"))
    assert await audited.findings() == set()
    flash = "limit_id = (SELECT limit_id FROM usage_limit WHERE name = 'flash')"
    corrections = await audited.view.connection.fetchval(
        "SELECT sum(input_tokens)::bigint FROM usage_record WHERE kind = 'ADJUSTMENT'"
    )

    await execute(f"UPDATE counter SET settled = $1 WHERE {flash}", corrections)  # noqa: S608 - a test's constant
    anew = await audited.findings()
    await execute(f"UPDATE counter SET settled = $1 WHERE {flash}", corrections + 1)  # noqa: S608 - a test's constant
    wrong = await audited.findings()

    assert anew == set()
    assert wrong == {(Check.COUNTERS, "counter", "settled")}


async def test_a_ledger_under_traffic_adds_up_at_every_moment(audited: Audited, process: LedgerProcess) -> None:
    """Everything is seen as of one moment, however many calls begin and end meanwhile."""
    ends, calls = asyncio.Event(), 0

    async def caller() -> None:
        nonlocal calls
        while not ends.is_set():
            call = await process.ledger.reserve(terms(), timeout_seconds=5)
            await process.ledger.settle(call, settled(60))
            calls += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(caller())
        found = [await audited.findings() for _ in range(5)]
        while calls <= 100:
            found.append(await audited.findings())
        ends.set()

    assert not set().union(*found)
    assert (await audited.verdict()).extent.records > 100
