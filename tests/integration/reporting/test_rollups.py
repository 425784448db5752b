"""Roll-ups: the same answers as the records, made once, whoever is interrupted."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from prometheus_client import CollectorRegistry
from tollhouse_server.errors import RecordsDropped
from tollhouse_server.names import parse_scope
from tollhouse_server.pricing.price import Line
from tollhouse_server.pricing.skus import Unit
from tollhouse_server.reporting import store
from tollhouse_server.reporting.conservation_store import RollupDifference, compare_rollups
from tollhouse_server.reporting.periods import Period, days_of, month_period
from tollhouse_server.reporting.questions import Question
from tollhouse_server.reporting.rollup_store import build_next_day, read_watermark, rolled_days
from tollhouse_server.reporting.rollups import RollUps
from tollhouse_server.reporting.sums import Dimension
from tollhouse_server.telemetry.metrics import Metrics

from tests.drivers.books import Books
from tests.drivers.random_books import random_record, resolve_some, write
from tests.drivers.rolled_up import build

BERLIN, NEW_YORK = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")
ACME = parse_scope("tenants/acme")
# The clocks change in Berlin on 29 March: a day of 23 hours.
START, END = datetime(2026, 3, 25, tzinfo=BERLIN), datetime(2026, 4, 4, tzinfo=BERLIN)
SCOPES = [
    ACME,
    *(parse_scope(f"tenants/acme/departments/{one}") for one in ("research", "sales", "vision")),
    parse_scope("tenants/acme/departments/vision/projects/labels"),
]
INPUT = Line(sku="input_text", quantity=9, unit=Unit.TOKEN, nanos_per_million=4_444_444, cost_nanos=40)
SPLITS = [one for one in Dimension if one not in (Dimension.SKU, Dimension.DEPARTMENT_PATH)]


async def days(books: Books) -> list[Period]:
    """Return the rolled-up days of tenant acme."""
    async with books.database.transaction() as session:
        return [day.period for day in await rolled_days(session, "acme")]


async def differences(books: Books) -> list[RollupDifference]:
    """Hold all roll-ups against the records."""
    async with books.database.transaction() as session:
        return [one async for one in compare_rollups(session)]


def random_question(chance: random.Random) -> Question:
    """Ask about a period cut by either calendar, or anywhere, split by anything."""
    zone = chance.choice((BERLIN, NEW_YORK))
    whole = Period(start=START, end=END)
    cuts = [day.start for day in days_of(whole, zone)] + [START + timedelta(hours=chance.randrange(240))]
    start, end = sorted(chance.sample(cuts, 2))
    period = Period(start=start, end=end)
    dimensions = tuple(chance.sample(SPLITS, chance.randrange(len(SPLITS))))
    return Question(
        scope=chance.choice(SCOPES),
        period=period,
        dimensions=dimensions,
        days=days_of(period, zone) if Dimension.DAY in dimensions else (),
        detailed=chance.random() < 0.5,
    )


async def answers(books: Books, questions: list[Question]) -> list[Any]:
    """Answer each question, with and without SKUs."""
    found: list[Any] = []
    for question in questions:
        async with books.database.transaction() as session:
            await store.begin_snapshot(session)
            found.append(await store.sum_usage(session, question, most=1000))
        with_skus = Question(
            scope=question.scope,
            period=question.period,
            dimensions=(*question.dimensions, Dimension.SKU),
            days=question.days,
        )
        async with books.database.transaction() as session:
            found.append(await store.sum_skus(session, with_skus, most=1000))
    return found


@pytest.mark.parametrize("seed", range(5))
async def test_any_report_is_the_same_with_any_days_rolled_up(books: Books, seed: int) -> None:
    """Random records, questions and days, over a change of the clocks, of the tenant's zone, and of suspense."""
    chance = random.Random(seed)
    connection = books.view.connection
    await books.add_tenant(time_zone="Europe/Berlin")
    await books.add_tenant("other", time_zone="Europe/Berlin")
    records = [random_record(chance, chance.choice(("acme", "acme", "other")), START, END) for _ in range(150)]
    await write(connection, chance, records)
    await build(books, START + timedelta(days=chance.randrange(8)))
    await connection.execute("UPDATE tenant SET time_zone = 'America/New_York'")
    await build(books, END - timedelta(days=1))
    await resolve_some(connection, chance, records, END - timedelta(hours=1))
    for day in await days(books):
        if chance.random() < 0.3:
            for table in ("usage_rollup_day", "usage_rollup", "usage_rollup_sku"):
                await connection.execute(
                    f"DELETE FROM {table} WHERE day_start = $1",  # noqa: S608 - a test's constant
                    day.start,
                )
    questions = [random_question(chance) for _ in range(20)]

    with_rollups = await answers(books, questions)
    await connection.execute("TRUNCATE usage_rollup_day, usage_rollup, usage_rollup_sku")
    from_records = await answers(books, questions)

    assert with_rollups == from_records


async def test_reports_over_whole_days_do_not_read_the_records(books: Books) -> None:
    """A month that is rolled up is answered though its records are gone."""
    await books.add_tenant(time_zone="Europe/Berlin")
    await write(books.view.connection, random.Random(1), [random_record(random.Random(1), "acme", START, END)])
    await build(books, datetime(2026, 5, 2, tzinfo=UTC))
    period = Period(start=START, end=END)
    question = Question(scope=ACME, period=period, dimensions=(Dimension.DAY,), days=days_of(period, BERLIN))
    before = await answers(books, [question])
    await books.view.connection.execute("TRUNCATE usage_record")

    after = await answers(books, [question])

    assert before == after
    assert before[0].groups


async def test_days_are_a_chain_without_gaps_whatever_the_clocks_and_zones_do(books: Books) -> None:
    """A day of 23 hours, one that is longer because the tenant moved, days without records: each follows the last."""
    await books.add_tenant(time_zone="Europe/Berlin")
    await write(
        books.view.connection,
        random.Random(1),
        [random_record(random.Random(1), "acme", START, START + timedelta(hours=20))],
    )

    await build(books, datetime(2026, 3, 31, tzinfo=UTC))
    await books.view.connection.execute("UPDATE tenant SET time_zone = 'America/New_York'")
    await build(books, datetime(2026, 4, 2, 4, tzinfo=UTC))

    hours = [(day.end - day.start) // timedelta(hours=1) for day in await days(books)]
    assert hours == [24, 24, 24, 24, 23, 24, 6, 24, 24]
    assert (await days(books))[-1].end == datetime(2026, 4, 2, tzinfo=NEW_YORK)
    assert await differences(books) == []


async def test_a_day_is_not_made_before_it_is_over_at_the_watermark(books: Books) -> None:
    """One microsecond before midnight nothing is made, at midnight the day is."""
    await books.add_tenant()
    await books.book(at=datetime(2026, 5, 15, 12, tzinfo=UTC))
    midnight = datetime(2026, 5, 16, tzinfo=UTC)

    before = await build(books, midnight - timedelta(microseconds=1))
    after = await build(books, midnight)

    assert (before, after) == (0, 1)


async def test_two_builders_at_once_make_each_day_once(books: Books) -> None:
    """Neither fails, nothing is counted twice."""
    await books.add_tenant()
    await write(
        books.view.connection,
        random.Random(3),
        [random_record(random.Random(seed), "acme", START, END) for seed in range(50)],
    )

    built = await asyncio.gather(*(build(books, END) for _ in range(4)))
    built.append(await build(books, END))

    assert sum(built) == len(await days(books)) > 5
    assert await differences(books) == []


async def test_a_builder_that_dies_in_the_middle_leaves_nothing_and_the_next_one_makes_the_day(books: Books) -> None:
    """The day and its groups are one transaction."""
    await books.add_tenant()
    await books.book(at=START)
    with pytest.raises(KeyError):
        async with books.database.transaction() as session:
            await build_next_day(session, "acme", END)
            raise KeyError
    left = [await books.view.count(table) for table in ("usage_rollup_day", "usage_rollup", "usage_rollup_sku")]

    built = await build(books, END)

    assert left == [0, 0, 0]
    assert built == len(await days(books))
    assert await differences(books) == []


async def test_the_watermark_waits_for_every_transaction_that_has_read_the_ledgers_clock(books: Books) -> None:
    """A record stamped before it is committed and visible behind it."""
    await books.add_tenant()
    connection = books.view.connection
    transaction = connection.transaction()
    await transaction.start()
    stamped = await connection.fetchval("SELECT ledger_now()")

    async def watermark() -> datetime:
        async with books.database.transaction() as session:
            return await read_watermark(session)

    reading = asyncio.create_task(watermark())
    await asyncio.sleep(0.2)
    was_waiting = not reading.done()
    await transaction.commit()

    assert was_waiting
    assert await reading > stamped


async def test_who_has_read_the_watermark_keeps_no_tick_waiting(books: Books) -> None:
    """Even if he stands still before his transaction ends."""
    await books.add_tenant()

    async with books.database.transaction() as session:
        watermark = await read_watermark(session)
        stamped = await books.view.connection.fetchval("SELECT ledger_now()", timeout=5)

    assert stamped > watermark


@pytest.mark.parametrize(
    ("statement", "part", "field"),
    [
        ("UPDATE usage_rollup SET cost_nanos = cost_nanos + 1", "usage", "cost_nanos"),
        ("UPDATE usage_rollup_sku SET cost_nanos = cost_nanos - 1", "sku", "cost_nanos"),
        ("UPDATE usage_rollup_sku SET quantity = quantity + 1", "sku", "quantity"),
        ("UPDATE usage_record SET cost_nanos = cost_nanos + 1", "usage", "cost_nanos"),
        ("UPDATE usage_rollup_day SET cost_nanos = cost_nanos + 1", "day", "cost_nanos"),
        ("UPDATE usage_rollup_label SET cost_nanos = cost_nanos + 1", "label", "cost_nanos"),
        ("UPDATE usage_rollup_label SET value = 'another'", "label", "calls"),
        ("DELETE FROM usage_rollup_label", "label", "calls"),
        ("UPDATE usage_rollup_price SET quantity = quantity - 1", "price", "quantity"),
        ("UPDATE usage_rollup_price SET nanos_per_million = nanos_per_million + 1", "price", "cost_nanos"),
        ("DELETE FROM usage_rollup_price", "price", "cost_nanos"),
        ("UPDATE usage_record SET model = 'another'", "usage", "record_count"),
        ("DELETE FROM usage_rollup", "usage", "record_count"),
    ],
)
async def test_one_nano_dollar_amiss_is_found(books: Books, statement: str, part: str, field: str) -> None:
    """Whichever side it is on, with the tenant, the day and both values; and nothing is found before."""
    await books.add_tenant()
    await books.book(100, at=datetime(2026, 5, 15, 12, tzinfo=UTC), lines=[INPUT])
    await build(books, datetime(2026, 5, 16, tzinfo=UTC))
    before = await differences(books)
    await books.view.connection.execute(statement)

    found = await differences(books)

    assert before == []
    assert (part, field) in {(one.part, one.field) for one in found}
    assert {(one.tenant_id, one.day.start) for one in found} == {("acme", datetime(2026, 5, 15, tzinfo=UTC))}
    assert all(one.records != one.rollups for one in found)


async def test_what_needs_dropped_records_says_so(books: Books) -> None:
    """Whole days go on; half a day, another calendar's days and single records cannot be told any more."""
    await books.add_tenant()
    await books.book(at=datetime(2026, 5, 15, 12, tzinfo=UTC))
    await build(books, datetime(2026, 7, 1, tzinfo=UTC))
    await books.view.connection.execute(
        "INSERT INTO usage_export (month, state, record_count, cost_nanos, checksum, created_by) "
        "VALUES ('2026-05-01', 'DROPPED', 1, 100, 0, 'x')"
    )
    may = month_period("2026-05", ZoneInfo("UTC"))
    half = Period(start=may.start, end=datetime(2026, 5, 15, 13, tzinfo=UTC))
    in_berlin = Question(scope=ACME, period=may, dimensions=(Dimension.DAY,), days=days_of(may, BERLIN))

    whole = await answers(books, [Question(scope=ACME, period=may)])
    before = await answers(books, [Question(scope=ACME, period=Period(start=may.start, end=may.start))])

    assert (whole[0].total.calls, before[0].total.calls) == (1, 0)
    for question in (Question(scope=ACME, period=half), in_berlin):
        with pytest.raises(RecordsDropped):
            await answers(books, [question])
    with pytest.raises(RecordsDropped):
        async with books.database.transaction() as session:
            await store.list_records(session, ACME, may, after=None, newest_first=False, size=10)


async def test_the_chore_catches_up_on_every_tenant_and_compares_what_it_made(books: Books) -> None:
    """Two tenants after an outage of months: all days in one round, and a difference is told by the metric."""
    registry = CollectorRegistry()
    rollups = RollUps(books.database, Metrics(registry))
    now = datetime.now(UTC)
    for tenant in ("acme", "other"):
        await books.add_tenant(tenant)
        record = random_record(random.Random(1), tenant, now - timedelta(days=41), now - timedelta(days=40))
        await write(books.view.connection, random.Random(1), [record])
    await books.book(at=now - timedelta(days=1, hours=1))

    built, again = await rollups.build(), await rollups.build()
    right = await rollups.compare()
    await books.view.connection.execute("UPDATE usage_rollup SET calls = calls + 1")
    wrong = await rollups.compare()

    assert (built // 2 >= 40, again, right) == (True, 0, [])
    assert [one.field for one in wrong] == ["calls"]
    assert registry.get_sample_value("tollhouse_rollup_differences") == 1
    assert registry.get_sample_value("tollhouse_rollup_behind_tenants") == 0


async def test_a_record_that_cannot_be_added_up_stops_its_own_tenant_only(books: Books) -> None:
    """The other's days are made, and the metric says that one is behind."""
    registry = CollectorRegistry()
    for tenant in ("acme", "other"):
        await books.add_tenant(tenant)
        now = datetime.now(UTC)
        record = random_record(random.Random(1), tenant, now - timedelta(days=3), now - timedelta(days=2))
        await write(books.view.connection, random.Random(1), [record])
    await books.view.connection.execute("UPDATE usage_record SET lines = '7' WHERE tenant_id = 'acme'")

    built = await RollUps(books.database, Metrics(registry)).build()

    assert built >= 2
    assert await days(books) == []
    assert registry.get_sample_value("tollhouse_rollup_behind_tenants") == 1
