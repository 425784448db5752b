"""The referee of the fault tests: the simulator's log against the books, attempt by attempt, again and again.

He remembers what he has seen, so that a check after each of a thousand faults looks at what is new only, and so that
one fault's damage is not reported again after the next.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import asyncpg
from tollhouse_server.simulator.client import ServedCall, SimulatorClient

from tests.drivers.bills import ListPriceBook, total_nanos

_OVERLAP = timedelta(seconds=90)
"""A record is stamped before its commit; so far back we look for records that were not visible the last time."""

_RECORDS = """
SELECT attempt_id::text, kind, cost_nanos, settled_at, method, outcome FROM usage_record
WHERE settled_at >= $1 ORDER BY settled_at
"""
_OPEN_SUSPENSE = "SELECT attempt_id::text FROM suspense WHERE resolved_at IS NULL"
_IN_FLIGHT = "SELECT count(*) FROM attempt"
_HELD = "SELECT coalesce(sum(abs(held)), 0)::bigint + coalesce(sum(abs(expected)), 0)::bigint FROM counter"
# Every limit of these tests is on a tenant or on a department: what is below it is told by the records' path.
_COUNTERS = """
SELECT l.name, l.metric,
    (SELECT coalesce(sum(c.settled), 0)::bigint FROM counter c
     WHERE c.tenant_id = l.tenant_id AND c.limit_id = l.limit_id) AS settled,
    (SELECT coalesce(sum(CASE l.metric
        WHEN 'COST' THEN r.cost_nanos WHEN 'REQUESTS' THEN r.requests WHEN 'IMAGES' THEN r.images
        WHEN 'INPUT_TOKENS' THEN r.input_tokens WHEN 'OUTPUT_TOKENS' THEN r.output_tokens ELSE 0 END), 0)::bigint
     FROM usage_record r
     WHERE r.tenant_id = l.tenant_id AND (l.scope NOT LIKE '%/departments/%'
        OR split_part(split_part(l.scope, '/departments/', 2), '/', 1) = ANY (r.department_path))) AS booked
FROM usage_limit l WHERE l.state = 'ACTIVE'
"""
_NOT_LOGGED = {"countTokens"}
"""Free of charge, so the simulator's log of what is charged has it not."""

_CUT = {"CUT_OFF"}

_ENDED_ONCE = ({"SETTLED": 1}, {"SUSPENSE": 1}, {"SUSPENSE": 1, "ADJUSTMENT": 1}, {"REFUSED": 1})


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must never be: `rule` is which promise is broken, `about` an attempt or a limit."""

    rule: str
    about: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.rule}: {self.about} {self.detail}".strip()


@dataclass(slots=True)
class _Booked:
    method: str
    kinds: Counter[str] = field(default_factory=Counter)
    cost_nanos: int = 0
    is_cut: bool = False
    """Ended by us in the midst of a stream: nobody can know exactly what it has cost, so it is booked at a bound."""


@dataclass(slots=True)
class Referee:
    """Judges one installation; `connection` reads the ledger's tables past the server."""

    connection: "asyncpg.Connection[asyncpg.Record]"
    simulator: SimulatorClient
    receipts: dict[str, int] = field(default_factory=dict)
    """What callers were told: attempt -> nano-dollars. Whoever calls adds to it."""

    booked: dict[str, _Booked] = field(default_factory=dict)
    bills: dict[str, int] = field(default_factory=dict)
    _seen_records: set[tuple[str, str, datetime]] = field(default_factory=set)
    _last_sequence: int = 0
    _looked_at: datetime = datetime.min.replace(tzinfo=UTC) + timedelta(days=1)
    _known: set[Finding] = field(default_factory=set)
    _prices: ListPriceBook = field(default_factory=ListPriceBook)

    async def in_flight(self) -> int:
        """Return how many attempts have not ended."""
        return int(await self.connection.fetchval(_IN_FLIGHT))

    async def check(self) -> list[Finding]:
        """Return what is wrong now and was not before. To be called when no attempt is in flight any more."""
        served = await self.simulator.calls(after=self._last_sequence)
        # One moment for all: a late settlement may come between two looks.
        async with self.connection.transaction(isolation="repeatable_read", readonly=True):
            touched = await self._read_records() | {str(call.attempt_id) for call in served}
            totals = await self._totals()
        findings = self._served_twice(served)
        await self._read_bills_of_cut(touched)
        findings += [finding for attempt in sorted(touched) for finding in self._judge(attempt)]
        findings += totals
        fresh = [finding for finding in findings if finding not in self._known]
        self._known.update(fresh)
        return fresh

    def count(self, kind: str) -> int:
        """Return how many attempts seen so far ended as `kind` and nothing else."""
        return sum(one.kinds == {kind: 1} for one in self.booked.values())

    async def _read_records(self) -> set[str]:
        since, self._looked_at = self._looked_at, await self.connection.fetchval("SELECT clock_timestamp()")
        touched = set()
        for row in await self.connection.fetch(_RECORDS, since - _OVERLAP):
            key = (row["attempt_id"], row["kind"], row["settled_at"])
            if key not in self._seen_records:
                self._seen_records.add(key)
                booked = self.booked.setdefault(row["attempt_id"], _Booked(row["method"]))
                booked.kinds[row["kind"]] += 1
                booked.cost_nanos += row["cost_nanos"]
                booked.is_cut = booked.is_cut or row["outcome"] in _CUT
                touched.add(row["attempt_id"])
        return touched

    def _served_twice(self, served: Iterable[ServedCall]) -> list[Finding]:
        findings = []
        for call in served:
            attempt = str(call.attempt_id)
            if attempt in self.bills:
                findings.append(Finding("served twice", attempt))
            self.bills[attempt] = total_nanos([self._prices.bill(call)])
            self._last_sequence = max(self._last_sequence, call.sequence)
        return findings

    async def _read_bills_of_cut(self, attempts: Iterable[str]) -> None:
        """Read again what was billed for streams that we ended: the upstream notices a little later."""
        for attempt in attempts:
            booked, tries = self.booked.get(attempt), 40
            while booked and booked.is_cut and self.bills.get(attempt, 0) > booked.cost_nanos and tries:
                await asyncio.sleep(0.05)
                tries -= 1
                (call,) = await self.simulator.calls(attempt_id=attempt)
                self.bills[attempt] = total_nanos([self._prices.bill(call)])

    def _judge(self, attempt: str) -> list[Finding]:
        """Judge one attempt: ended exactly once, and as what it was."""
        bill, booked = self.bills.get(attempt), self.booked.get(attempt)
        if booked is None:
            return [Finding("served, not booked", attempt, f"{bill} nanos")]
        told, kinds = self.receipts.get(attempt), dict(booked.kinds)
        is_open, is_logged = kinds == {"SUSPENSE": 1}, booked.method not in _NOT_LOGGED
        is_known = not is_open and bill is not None
        wrong = {
            "not ended exactly once": kinds not in _ENDED_ONCE,
            "booked, not served": kinds == {"SETTLED": 1} and bill is None and is_logged,
            "served, booked as refused": kinds == {"REFUSED": 1} and bill is not None,
            "booked at another price": is_known and not booked.is_cut and booked.cost_nanos != bill,
            "booked below its bill": is_known and booked.is_cut and booked.cost_nanos < (bill or 0),
            "receipt not honoured": told is not None and (is_open or told != booked.cost_nanos),
        }
        detail = f"{kinds} booked {booked.cost_nanos}, bill {bill}, receipt {told}"
        return [Finding(rule, attempt, detail) for rule, is_so in wrong.items() if is_so]

    async def _totals(self) -> list[Finding]:
        """Nothing held, every counter the sum of its records, every open suspense listed."""
        findings = []
        held = await self.connection.fetchval(_HELD)
        if held:
            findings.append(Finding("held though nothing is in flight", "counters", str(held)))
        for row in await self.connection.fetch(_COUNTERS):
            if row["settled"] != row["booked"]:
                difference = f"{row['metric']}: counter - records = {row['settled'] - row['booked']}"
                findings.append(Finding("counter is not the sum of its records", row["name"], difference))
        listed = {row["attempt_id"] for row in await self.connection.fetch(_OPEN_SUSPENSE)}
        unknown = {attempt for attempt, one in self.booked.items() if one.kinds == {"SUSPENSE": 1}}
        for attempt in listed ^ unknown:
            findings.append(Finding("suspense and its list differ", attempt, f"listed: {attempt in listed}"))
        return findings


def summary_of(findings: Iterable[Finding]) -> Mapping[str, int]:
    """Count findings by the rule that they break."""
    return Counter(finding.rule for finding in findings)
