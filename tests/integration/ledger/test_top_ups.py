"""Attempts in flight that need more than they hold."""

import asyncio

import pytest
from tollhouse_server.errors import LimitExceeded, StoreUnavailable
from tollhouse_server.ledger.terms import Amounts

from tests.drivers.ledger import LedgerProcess, LedgerView, settled, terms

MORE = Amounts(output_tokens=5, cost_nanos=30)


async def test_a_top_up_holds_more_on_the_counters_of_the_attempt(process: LedgerProcess, view: LedgerView) -> None:
    """Money grows by what was asked; requests and concurrency do not: it is still one call."""
    money = await view.add_limit("money", "tenants/acme", "COST", "MONTH", 1000)
    calls = await view.add_limit("calls", "tenants/acme", "REQUESTS", "MONTH", 1)
    together = await view.add_limit("together", "tenants/acme", "CONCURRENCY", "TOTAL", 1)
    reservation = await process.ledger.reserve(terms(cost_nanos=100), timeout_seconds=5)

    grown = await process.ledger.top_up(reservation, MORE, timeout_seconds=5)

    assert [await view.counter(limit) for limit in (money, calls, together)] == [(130, 0), (1, 0), (1, 0)]
    assert grown.terms.ceiling.cost_nanos == 130
    await process.ledger.settle(grown, settled(120))
    assert [await view.counter(limit) for limit in (money, calls, together)] == [(0, 120), (0, 1), (0, 0)]
    assert await view.alerts() == []


async def test_a_refused_top_up_leaves_the_attempt_as_it_was(process: LedgerProcess, view: LedgerView) -> None:
    """All or nothing, over all of its limits."""
    wide = await view.add_limit("wide", "tenants/acme", "COST", "MONTH", 1000)
    narrow = await view.add_limit("narrow", "tenants/acme/departments/vision", "COST", "MONTH", 120)
    reservation = await process.ledger.reserve(terms(cost_nanos=100), timeout_seconds=5)

    with pytest.raises(LimitExceeded) as refused:
        await process.ledger.top_up(reservation, MORE, timeout_seconds=5)

    assert (refused.value.limit, refused.value.requested) == ("tenants/acme/limits/narrow", 30)
    assert [await view.counter(limit) for limit in (wide, narrow)] == [(100, 0), (100, 0)]
    await process.ledger.settle(reservation, settled(90))
    assert [await view.counter(limit) for limit in (wide, narrow)] == [(0, 90), (0, 90)]


async def test_a_settlement_frees_what_a_lost_top_up_has_added(process: LedgerProcess, view: LedgerView) -> None:
    """The caller gave up waiting and settles what he knows of; the row knows of the rest."""
    money = await view.add_limit("money", "tenants/acme", "COST", "MONTH", 1000)
    reservation = await process.ledger.reserve(terms(cost_nanos=100), timeout_seconds=5)
    await process.ledger.top_up(reservation, MORE, timeout_seconds=5)

    await process.ledger.settle(reservation, settled(100))

    assert await view.counter(money) == (0, 100)
    holds = await view.connection.fetchval("SELECT holds FROM usage_record")
    assert ",130,0]" in holds


async def test_a_top_up_whose_commit_was_in_doubt_is_not_made_twice(process: LedgerProcess, view: LedgerView) -> None:
    """The same top-up again, as a tick would try it that does not know whether its commit happened."""
    money = await view.add_limit("money", "tenants/acme", "COST", "MONTH", 1000)
    reservation = await process.ledger.reserve(terms(cost_nanos=100), timeout_seconds=5)
    once = await process.ledger.top_up(reservation, MORE, timeout_seconds=5)

    again = await process.ledger.top_up(reservation, MORE, timeout_seconds=5)

    assert (again.terms.ceiling, again.holds, again.top_ups) == (once.terms.ceiling, once.holds, 1)
    assert await view.counter(money) == (130, 0)


async def test_a_top_up_counts_in_the_window_of_its_attempt(process: LedgerProcess, view: LedgerView) -> None:
    """A call that began in another month stays there, and that month's room decides."""
    money = await view.add_limit("money", "tenants/acme", "COST", "MONTH", 1000)
    reservation = await process.ledger.reserve(terms(cost_nanos=100), timeout_seconds=5)
    hold = reservation.holds[0]
    await view.connection.execute("UPDATE counter SET window_start = window_start - interval '31 days'")
    await view.connection.execute("UPDATE counter SET settled = 880")
    earlier = hold._replace(key=hold.key._replace(window_start=hold.key.window_start - 31 * 86400))
    earlier_start = await view.connection.fetchval("SELECT window_start FROM counter")
    if int(earlier_start.timestamp()) != earlier.key.window_start:
        pytest.fail("the test has moved the counter elsewhere")
    moved = reservation._replace(holds=(earlier,))

    with pytest.raises(LimitExceeded) as refused:
        await process.ledger.top_up(moved, MORE, timeout_seconds=5)

    assert (refused.value.settled, refused.value.held) == (880, 100)
    assert await view.counter(money) == (100, 880)


async def test_a_suspended_attempt_cannot_be_topped_up(process: LedgerProcess, view: LedgerView) -> None:
    """Its worker was taken for dead; nothing more is held for it."""
    money = await view.add_limit("money", "tenants/acme", "COST", "MONTH", 1000)
    reservation = await process.ledger.reserve(terms(cost_nanos=100), timeout_seconds=5)
    await view.connection.execute("UPDATE worker SET heartbeat_at = now() - interval '1 hour'")
    await process.sweeper.sweep()

    with pytest.raises(StoreUnavailable, match="suspense"):
        await process.ledger.top_up(reservation, MORE, timeout_seconds=5)

    assert await view.counter(money) == (0, 100)


async def test_many_top_ups_at_once_never_pass_the_limit(process: LedgerProcess, view: LedgerView) -> None:
    """Ten streams, room for fifteen steps more: fifteen are granted."""
    money = await view.add_limit("money", "tenants/acme", "COST", "MONTH", 1000 + 15 * 30)
    streams = [await process.ledger.reserve(terms(cost_nanos=100), timeout_seconds=5) for _ in range(10)]

    async def grow(stream: int) -> int:
        reservation, granted = streams[stream], 0
        for _ in range(5):
            try:
                reservation = await process.ledger.top_up(reservation, MORE, timeout_seconds=5)
            except LimitExceeded:
                continue
            granted += 1
        streams[stream] = reservation
        return granted

    granted = await asyncio.gather(*(grow(stream) for stream in range(10)))

    assert sum(granted) == 15
    assert await view.counter(money) == (1450, 0)
    await asyncio.gather(*(process.ledger.settle(stream, settled(100)) for stream in streams))
    assert await view.counter(money) == (0, 1000)
