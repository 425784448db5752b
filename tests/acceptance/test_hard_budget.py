"""A hard budget under more callers than it can pay for. Some 5 s."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import grpc
from tollhouse.admin.v1 import limits_pb2 as limits
from tollhouse.v1 import content_pb2 as c
from tollhouse.v1 import generation_pb2 as g
from tollhouse_server.database.roles import AS_CONTROL
from tollhouse_server.simulator.client import SimulatorClient

from tests.drivers.administration import administration, dollars, nanos_of
from tests.drivers.callers import details_of, prompt
from tests.drivers.load import Caller, callers
from tests.drivers.stack import RunningStack

CALLS, PAID_FOR = 500, 200
CALLERS = 8
MODEL = "gemini-2.5-flash-lite"
"""No other test uses it: its price is changed here."""

OUTPUT_TOKENS = 50
PRICE_NANOS = OUTPUT_TOKENS * 4_000
BUDGET_NANOS = PAID_FOR * PRICE_NANOS
# Input is free and the answer uses every token that it may: then the worst case is the price.
PRICES = f"""
[[prices]]
model = "{MODEL}"
effective_from = 2025-01-01
source = "a test"
input = "0"
cached = "0"
output = "4.00"
cache_storage = "1.00"
grounding_prompt = "35"
service_tiers = {{ batch = "0.5", flex = "0.5", priority = "1.8" }}
zero_prices = true
"""


def dear_call(number: int) -> g.GenerateContentRequest:
    """Build a call that costs exactly its ceiling."""
    config = c.GenerationConfig(max_output_tokens=OUTPUT_TOKENS)
    return prompt(f"[[full]] call {number}", model=MODEL, generation_config=config)


@dataclass(slots=True)
class Results:
    """What the callers got."""

    served: list[g.Outcome] = field(default_factory=list)
    refused: list[grpc.aio.AioRpcError] = field(default_factory=list)

    async def send(self, caller: Caller, number: int) -> None:
        """Send a call, every third as a stream, and note how it ended."""
        send = caller.streamed if number % 3 == 0 else caller.unary
        try:
            self.served.append(await send(dear_call(number)))
        except grpc.aio.AioRpcError as error:
            self.refused.append(error)


async def until_priced(caller: Caller, version: str) -> None:
    """Wait until the worker behind this connection goes by a version of the price book; counting is free."""
    request = g.CountTokensRequest(model=MODEL, contents=prompt("How long?").contents)
    for _ in range(50):
        if (await caller.unary(request)).receipt.price_version == version:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"the worker never came to price version {version}")


async def watch_counter(dsn: str, limit_name: str, seen: list[tuple[int, int]], is_over: threading.Event) -> None:
    """Note the limit's (held, settled) again and again, for the last time when all is over."""
    connection = await asyncpg.connect(dsn, server_settings=dict(AS_CONTROL))
    try:
        is_last = False
        while not is_last:
            is_last = is_over.is_set()
            row = await connection.fetchrow(
                "SELECT held, settled FROM counter JOIN usage_limit USING (tenant_id, limit_id) WHERE name = $1",
                limit_name,
            )
            if row is not None:
                seen.append((row["held"], row["settled"]))
            await asyncio.sleep(0.005)
    finally:
        await connection.close()


@asynccontextmanager
async def watched(dsn: str, limit_name: str) -> AsyncIterator[list[tuple[int, int]]]:
    """Watch the counter until the block is left, in a thread of its own: 500 callers leave their loop no time."""
    seen, is_over = list[tuple[int, int]](), threading.Event()
    watching = asyncio.create_task(asyncio.to_thread(asyncio.run, watch_counter(dsn, limit_name, seen, is_over)))
    try:
        yield seen
    finally:
        is_over.set()
        await watching


async def test_a_budget_for_200_calls_serves_200_of_500_concurrent_ones(two_workers: RunningStack) -> None:
    """300 are told which limit has no room; not one nano-dollar is overspent, nor overbooked on the way."""
    with administration(two_workers) as admin:
        key = admin.add_department("thrifty")
        price_version = admin.import_prices(PRICES)
        limit = admin.add_limit(
            "thrifty-budget",
            "tenants/demo/departments/thrifty",
            limits.LIMIT_METRIC_COST,
            limits.LIMIT_WINDOW_MONTH,
            dollars(BUDGET_NANOS),
        )
    results = Results()
    began = datetime.now(UTC)
    async with SimulatorClient(two_workers.simulator) as simulator:
        # Slow enough that holds of calls in flight, not booked ones alone, fill the budget.
        await simulator.set_pace(MODEL, latency_ms=1000)
        earlier_calls = await simulator.count_calls(model=MODEL)
        async with (
            watched(str(two_workers.run["postgres"]), "thrifty-budget") as seen,
            callers(two_workers, key, CALLERS) as among,
        ):
            await asyncio.gather(*(until_priced(caller, price_version) for caller in among))
            await asyncio.gather(*(results.send(among[number % CALLERS], number) for number in range(CALLS)))

        calls_upstream = await simulator.count_calls(model=MODEL) - earlier_calls
    with administration(two_workers) as admin:
        current = admin.limit(limit.name).current
    assert len(results.served) == calls_upstream == PAID_FOR
    assert {nanos_of(outcome.cost) for outcome in results.served} == {PRICE_NANOS}
    assert (nanos_of(current.held.money), nanos_of(current.settled.money)) == (0, BUDGET_NANOS)
    assert max(held + settled for held, settled in seen) == BUDGET_NANOS
    assert len(results.refused) == CALLS - PAID_FOR
    for error in results.refused:
        assert_names_the_limit(error, limit, began)
    # The ledger's own word, from under its locks; who only looks now and then can miss it.
    states: list[Any] = [details_of(error)["LimitState"] for error in results.refused]
    assert any(state.held > 0 for state in states)


def assert_names_the_limit(error: grpc.aio.AioRpcError, limit: limits.Limit, began: datetime) -> None:
    """A refusal says which limit, how full it is by whom, and when it is empty again."""
    details: dict[str, Any] = {**details_of(error)}
    state, quota = details["LimitState"], details["QuotaFailure"]
    retry_after = details["RetryInfo"].retry_delay.ToTimedelta()
    resets_at = limit.current.reset_time.ToDatetime(tzinfo=UTC)
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details["ErrorInfo"].reason == "LIMIT_EXCEEDED"
    assert (state.limit, state.metric, state.unit) == (limit.name, "COST", "nanos")
    assert (state.amount, state.requested) == (BUDGET_NANOS, PRICE_NANOS)
    assert state.held + state.settled == BUDGET_NANOS
    assert state.resets_at.ToDatetime(tzinfo=UTC) == resets_at
    assert timedelta(0) < retry_after <= resets_at - began
    assert [violation.subject for violation in quota.violations] == [limit.name]
