"""Do the books and the simulator's log tell the same story, call by call?"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tollhouse_server.simulator.client import ServedCall, SimulatorClient

from tests.drivers.bills import ListPriceBook, total_nanos
from tests.drivers.stack import RunningStack

_RECORDS = "SELECT attempt_id::text, kind, cost_nanos, requests FROM usage_record"
_COUNTERS = """
SELECT l.metric, sum(c.held)::bigint AS held, sum(c.settled)::bigint AS settled
FROM counter c JOIN usage_limit l USING (tenant_id, limit_id) WHERE l.scope = $1 GROUP BY l.metric
"""
_ENDED_ONCE = ({"SETTLED": 1}, {"SUSPENSE": 1}, {"SUSPENSE": 1, "ADJUSTMENT": 1}, {"REFUSED": 1})


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """What the ledger has booked: kinds of records and cost of each attempt, and what the counters say."""

    kinds: Mapping[str, Counter[str]]
    cost_nanos: Mapping[str, int]
    requests: int
    counters: Mapping[str, tuple[int, int]]
    in_flight: int
    open_suspense: int

    @classmethod
    def read(cls, stack: RunningStack, scope: str) -> "Attempts":
        """Read the whole ledger and the counters of the limits on `scope`, under which all calls were made."""
        records = stack.query(_RECORDS)
        kinds: dict[str, Counter[str]] = {row["attempt_id"]: Counter() for row in records}
        costs = Counter[str]()
        for row in records:
            kinds[row["attempt_id"]][row["kind"]] += 1
            costs[row["attempt_id"]] += row["cost_nanos"]
        return cls(
            kinds=kinds,
            cost_nanos=costs,
            requests=sum(row["requests"] for row in records),
            counters={row["metric"]: (row["held"], row["settled"]) for row in stack.query(_COUNTERS, scope)},
            in_flight=in_flight(stack),
            open_suspense=stack.query("SELECT count(*) AS n FROM suspense WHERE resolved_at IS NULL")[0]["n"],
        )

    def ended_as(self, kind: str) -> set[str]:
        """Return the attempts that ended with this kind of record alone."""
        return {attempt for attempt, kinds in self.kinds.items() if kinds == {kind: 1}}


def in_flight(stack: RunningStack) -> int:
    """Return how many attempts have not ended."""
    return int(stack.query("SELECT count(*) AS n FROM attempt")[0]["n"])


async def served_calls(stack: RunningStack) -> list[ServedCall]:
    """Return the simulator's log."""
    async with SimulatorClient(stack.simulator) as simulator:
        return await simulator.calls()


def assert_books_agree(booked: Attempts, served: Iterable[ServedCall], receipts: Mapping[str, int]) -> None:
    """Every served call is booked once, settled at its price or in suspense; every receipt is honoured.

    `receipts` are what the callers were told: attempt -> nano-dollars.
    """
    book, calls = ListPriceBook(), list(served)
    bills = {str(call.attempt_id): total_nanos([book.bill(call)]) for call in calls}
    unknown = booked.ended_as("SUSPENSE")
    assert booked.in_flight == 0
    assert len(bills) == len(calls), "an attempt was sent twice"
    assert [kinds for kinds in booked.kinds.values() if kinds not in _ENDED_ONCE] == []
    assert bills.keys() <= booked.kinds.keys(), "a served call was lost"
    assert booked.ended_as("REFUSED").isdisjoint(bills), "a served call was booked as refused"
    assert booked.kinds.keys() - unknown - booked.ended_as("REFUSED") <= bills.keys(), "a call was booked, not served"
    assert {a: n for a, n in booked.cost_nanos.items() if a in bills.keys() - unknown} == {
        attempt: nanos for attempt, nanos in bills.items() if attempt not in unknown
    }
    assert {attempt: bills.get(attempt) for attempt in receipts} == receipts
    assert unknown.isdisjoint(receipts)
    assert booked.open_suspense == len(unknown)
    assert booked.counters == {
        "COST": (0, sum(booked.cost_nanos.values())),
        "REQUESTS": (0, booked.requests),
    }
