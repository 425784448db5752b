"""Processes that tell each other of their traffic through a real PostgreSQL, and the shares that follow."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest
from prometheus_client import CollectorRegistry
from tollhouse_server.database.engine import Database
from tollhouse_server.database.rows import run_sql
from tollhouse_server.errors import StoreUnavailable
from tollhouse_server.routing.targets import AccountLimit, AccountMetric
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.traffic import report_store, reports
from tollhouse_server.traffic.breakers import Breakers
from tollhouse_server.traffic.reports import Reports
from tollhouse_server.traffic.traffic import Traffic

from tests.drivers.postgres import TestDatabase, TestPostgres
from tests.unit.traffic.calls import MODEL, account, request

REQUESTS = AccountMetric.REQUESTS_PER_MINUTE
OF_A_DAY = AccountMetric.REQUESTS_PER_DAY


class Process:
    """What one process of the server has of the traffic."""

    def __init__(self, database: Database, *limits: AccountLimit, key: str) -> None:
        self.traffic = Traffic(
            accounts=[account(*limits)], breakers=Breakers(), metrics=Metrics(CollectorRegistry()), max_waiting=1000
        )
        self.reports = Reports(database, self.traffic.bucket_reports, process_key=key)
        self.traffic.join(self.reports)

    async def take_all(self, at_most: int = 1000) -> int:
        """Take places until there is no room at once, and return how many that were."""
        taken = 0
        while taken < at_most:
            place = asyncio.create_task(self.traffic.place(request()))
            await asyncio.sleep(0)
            if not place.done():
                place.cancel()
                with suppress(asyncio.CancelledError):
                    await place
                return taken
            place.result().succeeded(0.1)
            taken += 1
        return taken

    def share(self, metric: AccountMetric) -> int:
        """The share of the one limit of a metric."""
        caps = self.traffic.buckets.caps("acme", MODEL)
        return next(cap.share for cap in caps.in_force if cap.metric == list(AccountMetric).index(metric))


@pytest.fixture
async def database(fresh_database: TestDatabase) -> AsyncIterator[Database]:
    database = Database(fresh_database.app_dsn)
    yield database
    await database.close()


@pytest.fixture
def process(database: Database) -> Callable[..., Process]:
    return lambda key, *limits: Process(database, *limits, key=key)


def limit(amount: int, metric: AccountMetric = REQUESTS) -> AccountLimit:
    return AccountLimit(metric=metric, amount=amount, model=MODEL)


async def settle(*processes: Process, rounds: int = 3) -> None:
    """Let everybody report in turn, as often as it takes to agree."""
    for _ in range(rounds):
        for one in processes:
            await one.reports.exchange()


async def test_two_processes_that_want_all_share_a_limit_and_keep_to_it_together(
    process: Callable[..., Process],
) -> None:
    """The limit is the account's: two processes with one each would have twice of it."""
    first, second = process("a", limit(100)), process("b", limit(100))
    await settle(first, second)

    taken = await first.take_all(), await second.take_all()

    assert sum(taken) <= 100
    assert min(taken) >= 40


async def test_what_a_process_does_not_want_goes_to_the_one_that_wants_it(process: Callable[..., Process]) -> None:
    """Half of a quota must not lie idle because a second worker is idle."""
    busy, idle = process("a", limit(100)), process("b", limit(100))
    await settle(busy, idle)
    taken = await busy.take_all()

    for _ in range(3):
        await settle(busy, idle)
        taken += await busy.take_all()

    assert taken >= 80
    assert taken + await idle.take_all() <= 100


async def test_what_a_dead_process_used_counts_for_those_that_live(
    process: Callable[..., Process], database: Database
) -> None:
    """Google goes on counting a minute's calls when their process dies."""
    dead, living = process("a", limit(100)), process("b", limit(100))
    await settle(dead, living)
    used = await dead.take_all()
    await dead.reports.exchange()
    await age(database, "a", seconds=20)

    await settle(living)

    assert living.share(REQUESTS) == 100 - used


async def test_a_dead_process_is_forgotten_when_its_window_has_passed(
    process: Callable[..., Process], database: Database
) -> None:
    """Nobody else can use what a dead process would keep for ever."""
    dead, living = process("a", limit(100)), process("b", limit(100))
    await settle(dead, living)
    await dead.take_all()
    await dead.reports.exchange()
    await age(database, "a", seconds=62)

    await settle(living)

    assert living.share(REQUESTS) == 100


async def test_a_process_that_says_goodbye_leaves_its_share_to_others_at_once(process: Callable[..., Process]) -> None:
    """One that takes its place would otherwise wait until it is taken for dead; what it used counts on."""
    leaving, staying = process("a", limit(100), limit(100, OF_A_DAY)), process("b", limit(100), limit(100, OF_A_DAY))
    await settle(leaving, staying)
    used = await leaving.take_all(10)

    await leaving.reports.say_goodbye()
    # What its round says once more before the process ends changes nothing.
    await leaving.reports.exchange()
    await staying.reports.exchange()

    assert staying.share(REQUESTS) == 100 - used
    assert staying.share(OF_A_DAY) == 100 - used


async def test_a_goodbye_does_not_wait_for_a_round_that_hangs(
    process: Callable[..., Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL may stand still, or another's lock be in the way; others take the process for dead by themselves."""
    monkeypatch.setattr(reports, "_GOODBYE_SECONDS", 0.05)
    leaving = process("a", limit(100))

    async with leaving.reports._exchanging, asyncio.timeout(5):
        with pytest.raises(StoreUnavailable):
            await leaving.reports.say_goodbye()


async def test_two_reports_at_once_count_a_days_requests_once(process: Callable[..., Process]) -> None:
    """A process says goodbye while its round may be under way."""
    before = process("a", limit(100, OF_A_DAY))
    await before.take_all(10)
    await asyncio.gather(before.reports.exchange(), before.reports.say_goodbye(), before.reports.exchange())

    after = process("b", limit(100, OF_A_DAY))
    await settle(after)

    assert after.share(OF_A_DAY) == 90


async def test_requests_of_a_day_are_counted_over_processes_and_restarts(
    process: Callable[..., Process], database: Database
) -> None:
    """A restart must not give the account a new day."""
    before = process("a", limit(100, OF_A_DAY))
    await before.take_all(60)
    await before.reports.exchange()
    await age(database, "a", seconds=3600)

    after = process("b", limit(100, OF_A_DAY))
    await settle(after)

    assert after.share(OF_A_DAY) == 40
    assert await after.take_all() == 40


async def test_a_429_that_one_process_met_keeps_the_others_away(process: Callable[..., Process]) -> None:
    """All processes share the account, so one 429 is for all of them."""
    first, second = process("a", limit(100)), process("b", limit(100))
    await settle(first, second)
    violation = {"quotaId": "GenerateRequestsPerMinutePerProjectPerModel", "quotaValue": "10"}
    (await first.traffic.place(request())).exhausted(30.0, [violation])

    await settle(first, second, rounds=1)

    assert await second.take_all() == 0
    assert second.traffic.buckets.caps("acme", MODEL).in_force[0].limit == 10


async def test_reports_of_the_living_can_be_listed(process: Callable[..., Process], database: Database) -> None:
    """Operators see what every process says; the dead have nothing to say."""
    first, second = process("a", limit(100)), process("b", limit(100))
    await first.take_all(3)
    await settle(first, second, rounds=1)
    await age(database, "b", seconds=6)

    async with database.transaction() as session:
        living = await report_store.list_living(session)

    assert [report.process_key for report in living] == ["a"]
    assert living[0].sections["buckets"][0]["used"]["REQUESTS_PER_MINUTE"] == 3
    assert living[0].sections["queue"]["in_flight"] == 0


async def test_old_rows_are_deleted(process: Callable[..., Process], database: Database) -> None:
    """Every start of a process leaves a row."""
    one = process("a", limit(100, OF_A_DAY))
    await one.take_all(3)
    await one.reports.exchange()
    await age(database, "a", seconds=3600)
    async with database.transaction() as session:
        await run_sql(session, "UPDATE account_day SET day = day - 3")

    async with database.transaction() as session:
        await report_store.forget_old(session)

    async with database.transaction() as session:
        counts = [
            (await run_sql(session, query)).scalar_one()
            for query in ("SELECT count(*) FROM process_report", "SELECT count(*) FROM account_day")
        ]
    assert counts == [0, 0]


async def test_without_a_database_everybody_keeps_the_last_share(
    process: Callable[..., Process], database: Database, postgres_server: TestPostgres, fresh_database: TestDatabase
) -> None:
    """An outage neither stops calls nor gives anybody the whole of a limit."""
    first, second = process("a", limit(100)), process("b", limit(100))
    await settle(first, second)
    share = first.share(REQUESTS)
    await asyncio.to_thread(postgres_server.drop_database, fresh_database)

    with pytest.raises(StoreUnavailable):
        await first.reports.exchange()

    assert first.share(REQUESTS) == share < 100
    assert await first.take_all() == share


async def age(database: Database, process_key: str, *, seconds: int) -> None:
    async with database.transaction() as session:
        statement = "UPDATE process_report SET reported_at = reported_at - make_interval(secs => :s)"
        await run_sql(session, f"{statement} WHERE process_key = :key", {"s": seconds, "key": process_key})
