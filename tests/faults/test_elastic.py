"""A $10 budget under recorded mixed traffic: how much of it is used before the first refusal, and how far it is passed.

The real ledger in two processes; each call holds its worst case at list prices and settles what was recorded. A call
is "in flight" for as long as the other callers need for theirs. Figures go to build/elastic.jsonl.
"""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import pytest
from tollhouse_server.errors import LimitExceeded
from tollhouse_server.ledger.terms import RecordKind, Settlement

from tests.drivers.ledger import LedgerProcess, LedgerView, ledger_process, ledger_view, terms
from tests.drivers.postgres import TestDatabase
from tests.faults.journal import FILE, Journal
from tests.faults.recorded_load import RecordedCall, endless_load

DOLLAR = 10**9
BUDGET_NANOS = 10 * DOLLAR
OVERSHOOT_NANOS = 10 * DOLLAR
CALLERS = 16
SEEDS = range(3)
REFUSED_IN_A_ROW = 200
_LIMIT = """
UPDATE usage_limit SET mode = $2, overshoot = $3 WHERE limit_id = $1
"""
_STATE = "SELECT held, expected, settled FROM counter WHERE limit_id = $1"


@dataclass(slots=True)
class Run:
    """What became of one budget, in nano-dollars. `used_first`: what was used by the calls before the first refusal."""

    calls: int = 0
    used_first: int | None = None
    settled: int = 0
    most_at_risk: int = 0
    refused: int = 0

    @property
    def utilisation(self) -> float:
        """Return the share of the budget that was used before the first refusal."""
        return (self.used_first or 0) / BUDGET_NANOS

    @property
    def overshoot(self) -> int:
        """Return how far the budget was passed."""
        return max(0, self.settled - BUDGET_NANOS)


class Load:
    """Callers who share one traffic and stop when the budget is spent: nobody was admitted for a while."""

    def __init__(self, processes: tuple[LedgerProcess, ...], traffic: Iterator[RecordedCall], seed: int) -> None:
        self._processes = processes
        self._traffic = traffic
        self._dice = random.Random(seed)
        self._used = 0
        self._refused_in_a_row = 0
        self.run = Run()

    async def call_until_spent(self) -> Run:
        """Run all callers to their end."""
        await asyncio.gather(*(self._call_again_and_again(number) for number in range(CALLERS)))
        return self.run

    async def _call_again_and_again(self, number: int) -> None:
        ledger = self._processes[number % len(self._processes)].ledger
        while self._refused_in_a_row < REFUSED_IN_A_ROW:
            call = next(self._traffic)
            try:
                asked = terms(ceiling=call.ceiling, model=call.model)
                reservation = await ledger.reserve(asked, timeout_seconds=30)
            except LimitExceeded:
                self._note_refusal()
                continue
            self._refused_in_a_row = 0
            self._used += call.actual.cost_nanos
            self.run.calls += 1
            await asyncio.sleep(self._dice.uniform(0, 0.01))
            await ledger.settle(reservation, Settlement(kind=RecordKind.SETTLED, actual=call.actual, outcome="SERVED"))

    def _note_refusal(self) -> None:
        self.run.refused += 1
        self._refused_in_a_row += 1
        if self.run.used_first is None:
            self.run.used_first = self._used


async def spend(database: TestDatabase, mode: str, overshoot_nanos: int, seed: int) -> Run:
    """Spend a budget of one mode to its end."""
    async with ledger_view(database.root_dsn) as view:
        await view.add_tenant()
        limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", BUDGET_NANOS)
        await view.connection.execute(_LIMIT, limit, mode, overshoot_nanos)
        async with ledger_process(database.app_dsn) as one, ledger_process(database.app_dsn) as another:
            load = Load((one, another), endless_load(seed), seed)
            watch = asyncio.create_task(_watch(view, limit, load.run))
            run = await load.call_until_spent()
            watch.cancel()
        held, run.settled = await view.counter(limit)
    assert held == 0
    return run


async def _watch(view: LedgerView, limit_id: int, run: Run) -> None:
    """Note the most that settled and the worst case of calls in flight come to together."""
    while True:
        row = await view.connection.fetchrow(_STATE, limit_id)
        if row is not None:
            run.most_at_risk = max(run.most_at_risk, row["held"] + row["settled"])
        await asyncio.sleep(0.02)


def note(case: str, run: Run) -> None:
    """Write a run's figures down."""
    journal = Journal.open(FILE.with_name("elastic.jsonl"))
    journal.add("elastic", case, [], utilisation=round(run.utilisation, 4), overshoot=run.overshoot, **asdict(run))


@pytest.mark.parametrize("seed", SEEDS)
async def test_an_elastic_budget_is_used_up_before_anyone_is_refused(fresh_database: TestDatabase, seed: int) -> None:
    """95 per cent are spent before the first refusal, and the overshoot stays within its bound."""
    run = await spend(fresh_database, "ELASTIC", OVERSHOOT_NANOS, seed)

    note(f"elastic-{seed}", run)
    assert run.utilisation >= 0.95, run
    assert run.overshoot <= OVERSHOOT_NANOS, run
    assert run.most_at_risk <= BUDGET_NANOS + OVERSHOOT_NANOS, run


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_strict_budget_is_never_passed_by_the_same_traffic(fresh_database: TestDatabase, seed: int) -> None:
    """It refuses sooner: whoever is in flight holds his worst case."""
    run = await spend(fresh_database, "STRICT", 0, seed)

    note(f"strict-{seed}", run)
    assert run.overshoot == 0, run
    assert run.most_at_risk <= BUDGET_NANOS, run
    assert run.utilisation < 0.95, run
