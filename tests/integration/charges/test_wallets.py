"""Wallets: limits whose amount is what was paid, on a real ledger."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money
from tollhouse.admin.v1 import departments_pb2, limit_alerts_pb2, limit_increases_pb2, limits_pb2
from tollhouse.admin.v1 import wallets_pb2 as pb
from tollhouse_server.chargeback import wallet_store
from tollhouse_server.chargeback.wallets import WalletExpiry
from tollhouse_server.errors import InvalidRequest, LimitExceeded, ResourceExists, ResourceInUse
from tollhouse_server.ledger.terms import CallTerms

from tests.drivers.ledger import LedgerProcess, ledger_process, settled, terms
from tests.drivers.pages import all_pages
from tests.drivers.postgres import TestDatabase
from tests.integration.admin.increases import asked as asked_increase
from tests.integration.admin.limits import dollars, ledger_of
from tests.integration.admin.plane import Plane

NAME = "tenants/acme/wallets/purse"
LIMIT = "tenants/acme/limits/purse"


@pytest.fixture
async def process(plane: Plane, fresh_database: TestDatabase) -> AsyncIterator[LedgerProcess]:
    """A ledger in which tenant acme has an empty wallet."""
    await plane.tenant("acme")
    await plane.call(new_wallet())
    async with ledger_process(fresh_database.app_dsn) as process:
        yield process


def new_wallet(wallet: str = "purse", **fields: Any) -> pb.CreateWalletRequest:
    """A wallet of the whole tenant."""
    return pb.CreateWalletRequest(
        parent="tenants/acme", wallet_id=wallet, wallet=pb.Wallet(**{"scope": "tenants/acme", **fields})
    )


def top_up(nanos: int, name: str = "", *, days: float | None = None) -> pb.TopUpWalletRequest:
    """Nano-dollars put in, that expire in some days."""
    expire_time = None
    if days is not None:
        expire_time = Timestamp()
        expire_time.FromDatetime(datetime.now(UTC) + timedelta(days=days))
    put_in = pb.WalletTopUp(amount=Money(nanos=nanos), expire_time=expire_time, reference="invoice 7")
    return pb.TopUpWalletRequest(name=NAME, top_up_id=name, top_up=put_in)


async def spend(process: LedgerProcess, nanos: int, *, ceiling: int | None = None) -> None:
    """Make a call."""
    call = await reserve(process, ceiling or nanos)
    await process.ledger.settle(call, settled(nanos))


async def reserve(process: LedgerProcess, nanos: int) -> Any:
    """Have a call admitted, and leave it in flight."""
    call: CallTerms = terms(cost_nanos=nanos)
    return await process.ledger.reserve(call, timeout_seconds=5)


async def wallet(plane: Plane) -> tuple[int, ...]:
    """What was paid, has expired, is spent, held, and left."""
    found = await plane.call(pb.GetWalletRequest(name=NAME))
    return tuple(
        money.units * 10**9 + money.nanos
        for money in (found.paid, found.expired, found.spent, found.held, found.balance)
    )


async def make_due(database: TestDatabase, top_up_id: str) -> None:
    """Let a top-up have been due a second ago."""
    async with ledger_of(database.root_dsn) as connection:
        await connection.execute(
            "UPDATE wallet_top_up SET expires_at = clock_timestamp() - interval '1 second' WHERE top_up_id = $1",
            top_up_id,
        )


async def test_nothing_is_spent_that_was_not_paid(plane: Plane, process: LedgerProcess) -> None:
    """An empty wallet refuses; a top-up counts for the next call; what is held cannot be spent twice."""
    with pytest.raises(LimitExceeded):
        await spend(process, 1)

    await plane.call(top_up(100))
    await spend(process, 60, ceiling=70)
    in_flight = await reserve(process, 30)

    with pytest.raises(LimitExceeded):
        await reserve(process, 20)
    assert await wallet(plane) == (100, 0, 60, 30, 10)
    await process.ledger.settle(in_flight, settled(30))
    limit = await plane.call(limits_pb2.GetLimitRequest(name=LIMIT))
    assert (limit.amount, limit.current.settled, limit.window) == (
        dollars(0, 100),
        dollars(0, 90),
        limits_pb2.LIMIT_WINDOW_TOTAL,
    )


async def test_top_ups_are_listed_page_by_page(plane: Plane, process: LedgerProcess) -> None:
    """The newest first, none twice and none left out."""
    put_in = [await plane.call(top_up(number, f"t-{number}")) for number in range(1, 4)]

    listed = await all_pages(plane.call, pb.ListWalletTopUpsRequest(name=NAME, page_size=1), "top_ups")

    assert listed == put_in[::-1]


async def test_what_expires_first_is_spent_first_and_the_rest_of_it_expires(
    plane: Plane, process: LedgerProcess, fresh_database: TestDatabase
) -> None:
    """What a call in flight holds of it is let be until the call has ended."""
    await plane.call(top_up(100, "ever"))
    await plane.call(top_up(50, "soon", days=1))
    await spend(process, 20)
    in_flight = await reserve(process, 10)
    await make_due(fresh_database, "soon")

    await WalletExpiry(plane.database).expire_due()
    while_held = await wallet(plane)
    await process.ledger.settle(in_flight, settled(4))
    await WalletExpiry(plane.database).expire_due()

    assert while_held == (150, 20, 20, 10, 100)
    assert await wallet(plane) == (150, 26, 24, 0, 100)
    assert await WalletExpiry(plane.database).expire_due() == 0
    listed = await plane.call(pb.ListWalletTopUpsRequest(name=NAME))
    assert [(one.top_up_id, one.spent.nanos, one.expired.nanos, one.remaining.nanos) for one in listed.top_ups] == [
        ("soon", 24, 26, 0),
        ("ever", 0, 0, 100),
    ]


async def test_a_low_balance_is_told_once_for_each_top_up(plane: Plane, process: LedgerProcess) -> None:
    """By an alert of the limit, as of every limit."""

    async def alerts() -> list[tuple[int, int]]:
        request = limit_alerts_pb2.ListLimitAlertsRequest(parent="tenants/acme", limit=LIMIT)
        found = (await plane.call(request)).limit_alerts
        return [(one.threshold, one.settled.money.nanos) for one in found]

    await plane.call(top_up(100))
    await spend(process, 79)
    before = await alerts()
    await spend(process, 1)
    await spend(process, 1)
    low = await alerts()
    await plane.call(top_up(100))
    await spend(process, 78)
    enough = await alerts()
    await spend(process, 1)

    assert (before, low, enough) == ([], [(80, 80)], [(80, 80)])
    assert await alerts() == [(80, 160), (80, 80)]


async def test_the_limit_of_a_wallet_is_nobodys_to_change(plane: Plane, process: LedgerProcess) -> None:
    """Money comes from top-ups alone; when it is low may be said otherwise."""
    amount = limits_pb2.UpdateLimitRequest(limit=limits_pb2.Limit(name=LIMIT, amount=dollars(5)))
    mode = limits_pb2.UpdateLimitRequest(limit=limits_pb2.Limit(name=LIMIT, mode=limits_pb2.LIMIT_MODE_SOFT))

    for request in (amount, mode, limits_pb2.DeleteLimitRequest(name=LIMIT), asked_increase(limit=LIMIT)):
        with pytest.raises(ResourceInUse, match="wallets/purse"):
            await plane.call(request)
    changed = await plane.call(limits_pb2.UpdateLimitRequest(limit=limits_pb2.Limit(name=LIMIT, thresholds=[50])))

    assert list(changed.thresholds) == [50]
    increases = await plane.call(limit_increases_pb2.ListLimitIncreasesRequest(parent="tenants/acme"))
    assert not increases.limit_increases


async def test_the_wallet_of_a_merged_department_goes_with_it(plane: Plane, process: LedgerProcess) -> None:
    """Though its limits end: a wallet is money."""
    await plane.call(new_wallet("emeas", scope="tenants/acme/departments/emea"))

    await plane.call(
        departments_pb2.MergeDepartmentRequest(
            name="tenants/acme/departments/emea",
            into_department="tenants/acme/departments/sales",
            limit_policy=departments_pb2.MERGED_LIMITS_END,
        )
    )

    moved = await plane.call(pb.ListWalletsRequest(parent="tenants/acme", scope="tenants/acme/departments/sales"))
    assert [one.name for one in moved.wallets] == ["tenants/acme/wallets/emeas"]
    limit = await plane.call(limits_pb2.GetLimitRequest(name="tenants/acme/limits/emeas"))
    assert limit.scope == "tenants/acme/departments/sales"


async def test_a_top_up_is_made_once_however_often_it_is_sent(plane: Plane, process: LedgerProcess) -> None:
    """A dry run makes none; what makes no sense is refused."""
    request = top_up(100, "first")
    request.request_id = "4f3c2e0e-9f5a-4d7e-8a51-0d4f60a1b222"
    request.validate_only = True
    await plane.call(request)
    dry = await wallet(plane)
    request.validate_only = False

    await plane.call(request)
    again = await plane.call(request)

    assert (dry[0], again.top_up_id, (await wallet(plane))[0]) == (0, "first", 100)
    with pytest.raises(ResourceExists):
        await plane.call(top_up(1, "first"))
    for wrong in (top_up(0), top_up(-1), top_up(1, days=-1)):
        with pytest.raises(InvalidRequest):
            await plane.call(wrong)


async def test_calls_top_ups_and_expiries_at_once_lose_no_money(
    plane: Plane, process: LedgerProcess, fresh_database: TestDatabase
) -> None:
    """What was paid is spent, expired or left, to the nano-dollar; what is spent is what the calls have cost."""
    chance = random.Random(7)
    served: list[int] = []

    async def caller() -> None:
        for _ in range(25):
            ceiling = chance.randint(1, 40)
            try:
                call = await reserve(process, ceiling)
            except LimitExceeded:
                await asyncio.sleep(0)
                continue
            cost = chance.randint(0, ceiling)
            await process.ledger.settle(call, settled(cost))
            served.append(cost)

    async def payer() -> None:
        for number in range(12):
            name = f"top-up-{number:02}"
            await plane.call(top_up(chance.randint(100, 300), name, days=1 if number % 2 else None))
            if number % 2:
                await make_due(fresh_database, name)
            await WalletExpiry(plane.database).expire_due()

    async with asyncio.timeout(60):
        await asyncio.gather(payer(), *(caller() for _ in range(8)))
        await WalletExpiry(plane.database).expire_due()

    paid, expired, spent, held, left = await wallet(plane)
    assert (spent, held) == (sum(served), 0)
    assert served
    assert expired > 0
    assert left == paid - expired - spent >= 0
    listed = (await plane.call(pb.ListWalletTopUpsRequest(name=NAME))).top_ups
    assert sum(one.spent.nanos for one in listed) == spent
    assert sum(one.remaining.nanos for one in listed) == left


@pytest.mark.parametrize("looks_first", [False, True])
async def test_a_call_that_waits_while_a_top_up_expires_is_refused_what_has_expired(
    plane: Plane, process: LedgerProcess, fresh_database: TestDatabase, looks_first: bool
) -> None:
    """The limits that a tick goes by are those of the moment at which it has the wallet's counter, not of its start."""
    await plane.call(top_up(100, "soon", days=1))
    await spend(process, 1)
    process.tick.memory.backoff.ticks_to_look = 10 if looks_first else 0
    await make_due(fresh_database, "soon")

    async with asyncio.timeout(20):
        async with plane.database.transaction() as session:
            await wallet_store.bring_up_to_date(session, "acme", "purse")
            waiting = asyncio.create_task(reserve(process, 50))
            async with ledger_of(fresh_database.root_dsn) as connection:
                await somebody_waits_for_a_row(connection)

        with pytest.raises(LimitExceeded):
            await waiting

    assert await wallet(plane) == (100, 99, 1, 0, 0)


async def somebody_waits_for_a_row(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Return once a statement of this database waits for another one's lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    while not await connection.fetchval(query):  # noqa: ASYNC110 - the database tells nobody
        await asyncio.sleep(0)
