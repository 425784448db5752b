"""Reserve and settle on real PostgreSQL."""

import asyncio
import random
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from tollhouse_server.errors import DuplicateRequest, LimitExceeded, RequestIdReused, StoreUnavailable
from tollhouse_server.ledger.terms import Amounts, RecordKind, Reservation, Settlement

from tests.drivers.ledger import LedgerProcess, LedgerView, ledger_process, settled, terms
from tests.drivers.postgres import TestDatabase


async def outcomes(calls: list[Coroutine[Any, Any, Reservation]]) -> tuple[list[Reservation], list[BaseException]]:
    """Run the calls at once and part what they return from what they raise."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    admitted = [result for result in results if isinstance(result, Reservation)]
    return admitted, [result for result in results if isinstance(result, BaseException)]


async def test_a_settled_call_moves_its_hold_to_what_it_really_cost(process: LedgerProcess, view: LedgerView) -> None:
    """Held while in flight, settled at the actual cost, the attempt replaced by one record."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 1000)

    reservation = await process.ledger.reserve(terms(cost_nanos=100), timeout_seconds=5)
    in_flight = await view.counter(limit), await view.count("attempt")
    await process.ledger.settle(reservation, settled(60))

    assert in_flight == ((100, 0), 1)
    assert await view.counter(limit) == (0, 60)
    assert await view.count("attempt") == 0
    assert await view.records() == [("SETTLED", 60)]


async def test_a_hard_budget_admits_exactly_what_fits_under_concurrency(
    process: LedgerProcess, view: LedgerView, fresh_database: TestDatabase
) -> None:
    """Two processes, 500 calls at once, room for 200: 200 are admitted and held + settled never passes the amount."""
    limit = await view.add_limit("budget", "tenants/acme/departments/research", "COST", "MONTH", 200 * 100)

    async with ledger_process(fresh_database.app_dsn) as other:
        calls = [(process, other)[i % 2].ledger.reserve(terms(), timeout_seconds=20) for i in range(500)]
        admitted, refused = await outcomes(calls)

    assert len(admitted) == 200
    assert {type(error) for error in refused} == {LimitExceeded}
    assert await view.counter(limit) == (20_000, 0)


async def test_a_refusal_names_the_limit_its_use_and_its_reset(process: LedgerProcess, view: LedgerView) -> None:
    """The error carries everything that a caller needs to understand and to wait."""
    await view.add_limit("team-minute", "tenants/acme/departments/vision", "REQUESTS", "MINUTE", 1)
    held = await process.ledger.reserve(terms(), timeout_seconds=5)

    with pytest.raises(LimitExceeded) as raised:
        await process.ledger.reserve(terms(), timeout_seconds=5)

    error = raised.value
    assert held.holds
    assert (error.limit, error.metric, error.window) == ("tenants/acme/limits/team-minute", "REQUESTS", "MINUTE")
    assert (error.amount, error.held, error.settled, error.requested) == (1, 1, 0, 1)
    assert error.retry_after_seconds is not None
    assert 0 < error.retry_after_seconds <= 60


async def test_a_refused_call_holds_nothing_on_any_limit(process: LedgerProcess, view: LedgerView) -> None:
    """All or nothing: the roomy limit above does not keep a hold of a call that the narrow one refused."""
    roomy = await view.add_limit("roomy", "tenants/acme", "COST", "MONTH", 10_000)
    await view.add_limit("narrow", "tenants/acme/departments/research", "COST", "MONTH", 50)

    with pytest.raises(LimitExceeded):
        await process.ledger.reserve(terms(cost_nanos=100), timeout_seconds=5)

    assert await view.counter(roomy) == (0, 0)
    assert await view.count("attempt") == 0
    assert await view.count("request_key") == 0


@pytest.mark.parametrize(
    ("scope", "selector", "binds"),
    [
        ("tenants/acme", "", True),
        ("tenants/acme/departments/research", "tiers/flash", True),
        ("tenants/acme/departments/vision/projects/labels", "models/gemini-3.5-flash", True),
        ("tenants/acme/departments/vision/projects/labels/apiKeys/k1", "", True),
        ("tenants/acme/departments/research", "tiers/pro", False),
        ("tenants/acme/departments/sales", "", False),
        ("tenants/acme/departments/vision/projects/other", "", False),
    ],
)
async def test_a_limit_binds_the_calls_below_its_scope_and_within_its_selector(
    process: LedgerProcess, view: LedgerView, scope: str, selector: str, binds: bool
) -> None:
    """Tenant, department, sub-department, project and credential; tier or model."""
    await view.add_limit("none", scope, "REQUESTS", "TOTAL", 0, selector)

    _, refused = await outcomes([process.ledger.reserve(terms(), timeout_seconds=5)])

    assert bool(refused) is binds


async def test_a_changed_limit_binds_the_next_call(process: LedgerProcess, view: LedgerView) -> None:
    """Definitions are remembered only as long as their epoch stands."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 100)
    await process.ledger.reserve(terms(), timeout_seconds=5)
    await view.connection.execute("UPDATE usage_limit SET amount = 200 WHERE limit_id = $1", limit)
    await view.connection.execute("UPDATE epoch SET value = value + 1 WHERE topic = 'limits'")

    await process.ledger.reserve(terms(), timeout_seconds=5)

    assert await view.counter(limit) == (200, 0)


async def test_a_limit_that_has_just_been_made_binds_the_next_call(process: LedgerProcess, view: LedgerView) -> None:
    """A process that knows only the wide one has made its plans already."""
    wide = await view.add_limit("wide", "tenants/acme", "COST", "MONTH", 1000)
    await process.ledger.reserve(terms(), timeout_seconds=5)
    await view.add_limit("narrow", "tenants/acme/departments/vision", "COST", "MONTH", 50)

    with pytest.raises(LimitExceeded):
        await process.ledger.reserve(terms(), timeout_seconds=5)

    assert await view.counter(wide) == (100, 0)


async def test_an_elastic_limit_refuses_what_is_expected_to_pass_it(process: LedgerProcess, view: LedgerView) -> None:
    """Nobody knows these calls yet, so each is expected to use its worst case, which the overshoot would bear."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 150, mode="ELASTIC", overshoot=1000)
    await process.ledger.reserve(terms(), timeout_seconds=5)

    with pytest.raises(LimitExceeded):
        await process.ledger.reserve(terms(), timeout_seconds=5)

    assert await view.counter(limit) == (100, 0)


async def test_a_request_id_is_admitted_once_over_two_servers(
    process: LedgerProcess, view: LedgerView, fresh_database: TestDatabase
) -> None:
    """Forty duplicates at once: one reservation, the others are told that it is in flight."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 100_000)
    request_id = uuid4()

    async with ledger_process(fresh_database.app_dsn) as other:
        ledgers = [(process, other)[i % 2].ledger for i in range(40)]
        admitted, refused = await outcomes(
            [ledger.reserve(terms(request_id=request_id), timeout_seconds=20) for ledger in ledgers]
        )

    assert len(admitted) == 1
    assert {type(error) for error in refused} == {DuplicateRequest}
    assert await view.counter(limit) == (100, 0)


async def test_a_request_id_with_another_body_is_a_mistake_of_its_own(process: LedgerProcess, view: LedgerView) -> None:
    """The fingerprint tells a retry from a mix-up; a retry learns the state of the first."""
    request_id = uuid4()
    first = await process.ledger.reserve(terms(request_id=request_id), timeout_seconds=5)
    await process.ledger.settle(first, settled())

    with pytest.raises(RequestIdReused):
        await process.ledger.reserve(terms(request_id=request_id, fingerprint=b"other"), timeout_seconds=5)
    with pytest.raises(DuplicateRequest) as raised:
        await process.ledger.reserve(terms(request_id=request_id), timeout_seconds=5)

    assert raised.value.state == "SETTLED"
    assert await view.count("request_key") == 1


async def test_a_settlement_above_the_hold_is_booked_in_full(process: LedgerProcess, view: LedgerView) -> None:
    """What Gemini charged is booked even where the ceiling was too low."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 100)
    reservation = await process.ledger.reserve(terms(cost_nanos=100), timeout_seconds=5)

    await process.ledger.settle(reservation, settled(130))

    assert await view.counter(limit) == (0, 130)


async def test_a_released_attempt_frees_its_hold_and_costs_nothing(process: LedgerProcess, view: LedgerView) -> None:
    """An attempt that was not sent is on record as one, at zero."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 100)
    reservation = await process.ledger.reserve(terms(), timeout_seconds=5)

    await process.ledger.release(reservation)

    assert await view.counter(limit) == (0, 0)
    assert await view.records() == [("REFUSED", 0)]


async def test_a_caller_who_gives_up_leaves_no_hold(process: LedgerProcess, view: LedgerView) -> None:
    """A cancelled reservation is given back whether its verdict had come or not."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 100_000)
    waiting = [asyncio.create_task(process.ledger.reserve(terms(), timeout_seconds=5)) for _ in range(50)]
    await asyncio.sleep(0.002)

    for task in waiting:
        task.cancel()
    admitted = [r for r in await asyncio.gather(*waiting, return_exceptions=True) if isinstance(r, Reservation)]
    for reservation in admitted:
        await process.ledger.release(reservation)
    await process.ledger.reserve(terms(), timeout_seconds=5)
    await process.ledger.drain()

    assert await view.counter(limit) == (100, 0)
    assert await view.count("attempt") == 1


async def test_one_impossible_work_does_not_take_its_tick_with_it(process: LedgerProcess, view: LedgerView) -> None:
    """A call whose amount no BIGINT can hold fails alone."""
    await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 2**62)
    poison = terms(ceiling=Amounts(requests=1, cost_nanos=1, input_tokens=2**70))

    admitted, failed = await outcomes(
        [process.ledger.reserve(t, timeout_seconds=30) for t in (terms(), poison, terms())]
    )

    assert len(admitted) == 2
    assert len(failed) == 1


async def test_a_settlement_of_unknown_outcome_is_corrected_when_it_is_known(
    process: LedgerProcess, view: LedgerView
) -> None:
    """Suspense is booked at the ceiling; the late settlement books the difference and closes it."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 1000)
    reservation = await process.ledger.reserve(terms(cost_nanos=100), timeout_seconds=5)
    unknown = Settlement(kind=RecordKind.SUSPENSE, actual=reservation.terms.ceiling, outcome="BROKEN")
    await process.ledger.settle(reservation, unknown)
    suspended = await view.counter(limit)

    await process.ledger.settle(reservation, settled(70))
    await process.ledger.settle(reservation, settled(70))

    assert suspended == (0, 100)
    assert await view.counter(limit) == (0, 70)
    assert await view.records() == [("SUSPENSE", 100), ("ADJUSTMENT", -30)]
    assert await view.connection.fetchval("SELECT count(*) FROM suspense WHERE resolved_at IS NULL") == 0


async def test_settling_twice_books_once(process: LedgerProcess, view: LedgerView) -> None:
    """A settlement that is repeated because its commit was in doubt finds its own record."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 1000)
    reservation = await process.ledger.reserve(terms(), timeout_seconds=5)

    await asyncio.gather(*(process.ledger.settle(reservation, settled(60)) for _ in range(3)))

    assert await view.counter(limit) == (0, 60)
    assert await view.records() == [("SETTLED", 60)]


async def test_a_lost_connection_loses_no_settlement_and_admits_nothing_unbooked(
    process: LedgerProcess, view: LedgerView
) -> None:
    """The tick's connection is cut again and again under load: every admitted call is settled, nothing stays held."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 10**9)
    moments = random.Random(7)

    async def cut() -> None:
        await asyncio.sleep(moments.uniform(0, 0.02))
        await view.connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'tollhouse-ledger' AND pid <> pg_backend_pid()"
        )

    async def one() -> int:
        try:
            reservation = await process.ledger.reserve(terms(), timeout_seconds=20)
        except StoreUnavailable:
            return 0
        await process.ledger.settle(reservation, settled(60))
        return 1

    served = rounds = 0
    while len(process.observer.failures) < 10 and rounds < 100:
        results = await asyncio.gather(cut(), *(one() for _ in range(20)))
        served += sum(result or 0 for result in results)
        rounds += 1
    await process.ledger.drain()

    assert len(process.observer.failures) >= 10
    # How many were admitted in time depends on the machine; what was admitted is booked, the rest given back.
    kinds = [kind for kind, _ in await view.records()]
    assert served > 0
    assert await view.counter(limit) == (0, 60 * served)
    assert kinds.count("SETTLED") == served
    assert set(kinds) <= {"SETTLED", "REFUSED"}
    assert await view.count("attempt") == 0


async def test_a_text_that_the_database_refuses_does_not_lose_the_charge(
    process: LedgerProcess, view: LedgerView
) -> None:
    """A NUL in Gemini's response id cannot be stored; the cost is booked all the same."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 1000)
    reservation = await process.ledger.reserve(terms(), timeout_seconds=5)

    await process.ledger.settle(reservation, replace(settled(60), response_id="nul\0"))

    assert await view.counter(limit) == (0, 60)
    assert await view.records() == [("SETTLED", 60)]
