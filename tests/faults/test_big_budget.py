"""10,000 concurrent calls of $0.10 against a hard budget of $100, through three servers.

Results stand in build/big_budget.jsonl, one line for each seed; a seed that stands there without findings is not run
again. Size and seeds: FAULTS_BUDGET_CALLS (10000) and FAULTS_BUDGET_SEEDS (20). Some 15 s for a seed of full size.
"""

import asyncio
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import asyncpg
import grpc
import psutil
import pytest
from tollhouse.admin.v1 import limits_pb2 as limits
from tollhouse.v1 import generation_pb2 as g
from tollhouse.v1.generation_pb2_grpc import GenerationServiceStub
from tollhouse_server.database.engine import Database
from tollhouse_server.embedded.postgres_roles import APP, OWNER, ROOT
from tollhouse_server.ledger.verification_store import Finding
from tollhouse_server.simulator.client import SimulatorClient

from tests.drivers.administration import dollars
from tests.drivers.callers import bearer, prompt
from tests.drivers.deployment import running_parts
from tests.drivers.fleet import Fleet, fleet_administration, running_fleet
from tests.drivers.ledger import ledger_view
from tests.drivers.postgres import TestDatabase
from tests.drivers.verification import findings_in
from tests.faults.budget_trap import set_trap, watched
from tests.faults.crowd import Order, Outcome
from tests.faults.journal import FILE, Journal

CALLS = int(os.environ.get("FAULTS_BUDGET_CALLS", "10000"))
SEEDS = int(os.environ.get("FAULTS_BUDGET_SEEDS", "20"))
SERVERS, CROWDS = 3, 2
MODEL = "gemini-2.5-flash-lite"
OUTPUT_TOKENS = 100
PRICE_NANOS = 10**8
PAID_FOR = CALLS // 10
BUDGET_NANOS = PAID_FOR * PRICE_NANOS
# Input is free and the answer uses every token that it may: then the worst case is the price.
PRICES = f"""
[[prices]]
model = "{MODEL}"
effective_from = 2025-01-01
source = "a test"
input = "0"
cached = "0"
output = "{PRICE_NANOS // OUTPUT_TOKENS // 1000}"
cache_storage = "1.00"
grounding_prompt = "35"
service_tiers = {{ batch = "0.5", flex = "0.5", priority = "1.8" }}
zero_prices = true
"""
_RESULTS = FILE.with_name("big_budget.jsonl")
_QUIET_SECONDS = 60.0
_BOOKED = """
SELECT coalesce(sum(cost_nanos), 0)::bigint AS nanos,
    count(DISTINCT attempt_id) FILTER (WHERE kind <> 'REFUSED') AS attempts,
    count(*) FILTER (WHERE kind = 'SUSPENSE') AS ever_suspended
FROM usage_record WHERE project_id = $1
"""
_OPEN = """
SELECT count(*) FROM suspense s
WHERE s.resolved_at IS NULL AND EXISTS (
    SELECT FROM usage_record r
    WHERE r.tenant_id = s.tenant_id AND r.attempt_id = s.attempt_id AND r.project_id = $1)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one seed showed. Money in nano-dollars; `most` is the highest held + settled of any commit.

    `ever_suspended` counts also what a worker settled after all that was only too busy to send a heartbeat.
    """

    served_upstream: int
    told: int
    refused: int
    held: int
    settled: int
    booked: int
    attempts: int
    suspended: int
    ever_suspended: int
    in_flight: int
    most: int
    commits: int
    passed: int
    kills: int
    cut_off: int
    other_ends: dict[str, int]
    seconds: float

    def findings(self, *, with_kills: bool) -> list[str]:
        """Return which promise is broken."""
        always = {
            "a commit passed the budget": self.passed or self.most > BUDGET_NANOS,
            "more was served than is paid for": self.served_upstream > PAID_FOR,
            "something stays held": self.held or self.in_flight,
            "the counter is not the sum of its records": self.settled != self.booked,
            "served calls are not booked": self.attempts < self.served_upstream,
            "callers were turned away for another reason than the budget": self.other_ends,
            "a call has no end": self.told + self.refused != CALLS,
        }
        without_kills = {
            "not exactly what is paid for was served": self.served_upstream != PAID_FOR or self.told != PAID_FOR,
            "the budget is not used up": self.settled != BUDGET_NANOS,
            "something is in suspense": self.suspended,
        }
        checks = always if with_kills else always | without_kills
        return [what for what, is_so in checks.items() if is_so]


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Three servers of one worker each, the trap on their database, and calls that cost their worst case."""
    directory = Path(tempfile.mkdtemp(prefix="tollhouse-budget-"))
    directory.chmod(0o711)
    settings = {"workers": 1, "worker_dead_after_seconds": 4, "drain_seconds": 3}
    # All calls come to the ledger at once, and nobody is shed: the budget alone decides.
    settings |= {"max_calls_upstream": CALLS, "max_calls_waiting": CALLS}
    try:
        with running_parts(directory) as parts, running_fleet(parts, servers=SERVERS, **settings) as running:
            asyncio.run(set_trap(running.dsn(OWNER)))
            with fleet_administration(running) as admin:
                version = admin.import_prices(PRICES)
            asyncio.run(_until_priced(running, version))
            yield running
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def _until_priced(fleet: Fleet, version: str) -> None:
    """Wait until every server goes by a version of the price book; counting is free."""
    request = g.CountTokensRequest(model=MODEL, contents=prompt("How long?").contents)
    for target in fleet.targets:
        async with grpc.aio.insecure_channel(target) as channel:
            for _ in range(100):
                answer = await GenerationServiceStub(channel).CountTokens(
                    request, metadata=bearer(fleet.first.demo_api_key), timeout=20
                )
                if answer.outcome.receipt.price_version == version:
                    break
                await asyncio.sleep(0.1)
            else:
                raise AssertionError(f"{target} never came to price version {version}")


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_hundred_dollars_pay_for_a_thousand_of_ten_thousand_concurrent_calls(fleet: Fleet, seed: int) -> None:
    """Exactly what is paid for is admitted, by the simulator's count; no commit ever passes the budget."""
    _run_once(fleet, f"budget-{CALLS}-{seed}", seed, with_kills=False)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_killed_workers_do_not_stretch_the_budget(fleet: Fleet, seed: int) -> None:
    """kill -9 of random workers meanwhile: settled and suspense together stay within the budget, as what is served."""
    _run_once(fleet, f"budget-kills-{CALLS}-{seed}", seed, with_kills=True)


def test_the_ledger_of_all_those_runs_adds_up(fleet: Fleet) -> None:
    """`tollhouse ledger verify` has nothing to say about what the seeds above have left."""

    async def verify() -> list[Finding]:
        database = Database(fleet.dsn(APP))
        try:
            return await findings_in(database)
        finally:
            await database.close()

    assert asyncio.run(verify()) == []


async def test_the_trap_sees_one_nano_dollar(fresh_database: TestDatabase) -> None:
    """A trap that never closes would prove nothing."""
    await set_trap(fresh_database.owner_dsn)
    async with ledger_view(fresh_database.root_dsn) as view:
        await view.add_tenant()
        limit = await view.add_limit("budget", "tenants/acme", "COST", "TOTAL", 1000)
        count = (
            "INSERT INTO counter (tenant_id, limit_id, window_start, held, settled) VALUES ('acme', $1, now(), $2, $3)"
        )

        await view.connection.execute(count, limit, 500, 500)
        exactly = await watched(view.connection, limit)
        await view.connection.execute("UPDATE counter SET settled = settled + 1")

        above = await watched(view.connection, limit)
    assert (exactly.commits, exactly.most, exactly.passed) == (1, 1000, 0)
    assert (above.commits, above.most, above.passed) == (2, 1001, 1)


def _run_once(fleet: Fleet, case: str, seed: int, *, with_kills: bool) -> None:
    journal = Journal.open(_RESULTS)
    if journal.has_passed(case):
        pytest.skip(f"{case} stands in {journal.path.name}")
    run = asyncio.run(_run(fleet, seed, with_kills=with_kills))
    findings = run.findings(with_kills=with_kills)
    journal.add("big budget, kills" if with_kills else "big budget", case, findings, **asdict(run))
    assert findings == [], run


async def _run(fleet: Fleet, seed: int, *, with_kills: bool) -> Run:
    await asyncio.to_thread(fleet.wait_until_ready)
    department = f"b{seed}-{'kills' if with_kills else 'calm'}"
    key, limit_name = await asyncio.to_thread(_add_budget, fleet, department)
    connection = await asyncpg.connect(fleet.dsn(ROOT))
    try:
        limit_id = await connection.fetchval("SELECT limit_id FROM usage_limit WHERE name = $1", limit_name)
        async with SimulatorClient(fleet.first.simulator) as simulator:
            await simulator.set_pace(MODEL, latency_ms=random.Random(seed).choice((0, 100, 1000)))
            before = await simulator.count_calls(model=MODEL)
            began = time.monotonic()
            async with _killing(fleet, seed if with_kills else None) as kills:
                outcomes = await _send_crowds(fleet, key)
            seconds = time.monotonic() - began
            await _until_quiet(connection)
            served = await simulator.count_calls(model=MODEL) - before
        return await _result(
            connection, limit_id, department, outcomes, served=served, kills=len(kills), seconds=seconds
        )
    finally:
        await connection.close()


def _add_budget(fleet: Fleet, department: str) -> tuple[str, str]:
    with fleet_administration(fleet) as admin:
        key = admin.add_department(department)
        admin.add_limit(
            department,
            f"tenants/demo/departments/{department}",
            limits.LIMIT_METRIC_COST,
            limits.LIMIT_WINDOW_TOTAL,
            dollars(BUDGET_NANOS),
        )
    return key, department


async def _send_crowds(fleet: Fleet, key: str) -> list[Outcome]:
    shares = [CALLS // CROWDS + (number < CALLS % CROWDS) for number in range(CROWDS)]
    orders = [
        Order(targets=fleet.targets, key=key, model=MODEL, output_tokens=OUTPUT_TOKENS, calls=share) for share in shares
    ]
    return await asyncio.gather(*(_send_crowd(order) for order in orders))


async def _send_crowd(order: Order) -> Outcome:
    crowd = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.crowd"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "GRPC_VERBOSITY": "NONE"},
    )
    said, _ = await crowd.communicate(json.dumps(asdict(order)).encode())
    assert crowd.returncode == 0
    return Outcome(**json.loads(said))


@asynccontextmanager
async def _killing(fleet: Fleet, seed: int | None) -> AsyncIterator[list[int]]:
    """Kill a random worker every second or so until the block is left, or enough are dead; None: kill nobody."""
    killed: list[int] = []
    if seed is None:
        yield killed
        return
    killer = asyncio.create_task(_kill(fleet, random.Random(seed), killed))
    try:
        yield killed
    finally:
        killer.cancel()
        with suppress(asyncio.CancelledError):
            await killer


async def _kill(fleet: Fleet, dice: random.Random, killed: list[int]) -> None:
    # A handful: each time it is killed the supervisor takes longer to start a worker again.
    for _ in range(dice.randint(3, 8)):
        await asyncio.sleep(dice.uniform(0.2, 2.0))
        with suppress(psutil.Error):
            for victim in dice.sample(living := fleet.workers(), k=min(1, len(living))):
                victim.send_signal(signal.SIGKILL)
                killed.append(victim.pid)


async def _until_quiet(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Wait until nothing is in flight; what stays for too long is found in the counters."""
    ends_at = time.monotonic() + _QUIET_SECONDS
    while await connection.fetchval("SELECT count(*) FROM attempt") and time.monotonic() < ends_at:  # noqa: ASYNC110 - a table wakes nobody
        await asyncio.sleep(0.1)


async def _result(
    connection: "asyncpg.Connection[asyncpg.Record]",
    limit_id: int,
    project: str,
    outcomes: list[Outcome],
    *,
    served: int,
    kills: int,
    seconds: float,
) -> Run:
    counter = await connection.fetchrow("SELECT held, settled FROM counter WHERE limit_id = $1", limit_id)
    booked = await connection.fetchrow(_BOOKED, project)
    seen = await watched(connection, limit_id)
    assert counter is not None
    assert booked is not None
    reasons = {
        reason: sum(one.refusals.get(reason, 0) for one in outcomes) for one in outcomes for reason in one.refusals
    }
    return Run(
        served_upstream=served,
        told=sum(len(one.receipts) for one in outcomes),
        refused=sum(reasons.values()),
        held=counter["held"],
        settled=counter["settled"],
        booked=booked["nanos"],
        attempts=booked["attempts"],
        suspended=await connection.fetchval(_OPEN, project),
        ever_suspended=booked["ever_suspended"],
        in_flight=await connection.fetchval("SELECT count(*) FROM attempt"),
        most=seen.most,
        commits=seen.commits,
        passed=seen.passed,
        kills=kills,
        cut_off=sum(one.cut_off for one in outcomes),
        other_ends={reason: count for reason, count in reasons.items() if reason != "LIMIT_EXCEEDED"},
        seconds=round(seconds, 1),
    )
