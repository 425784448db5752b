"""Thousands of calls that are cancelled, of several tenants at once: nothing of one ever reaches another.

First over gRPC, on a server as a user starts it, then on a pool of connections alone, where what a connection is left
with can be seen.
"""

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

import asyncpg
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse_server.database.engine import Database
from tollhouse_server.database.roles import ALL_TENANTS, TENANT_SETTING
from tollhouse_server.embedded.postgres import PostgresEndpoint
from tollhouse_server.embedded.postgres_roles import ROOT
from tollhouse_server.embedded.state_directory import StateDirectory
from tollhouse_server.simulator.client import SimulatorClient

from tests.drivers.canaries import CanaryTenant, add_canary_tenants, hang_up
from tests.drivers.referee import Finding, Referee
from tests.drivers.stack import RunningStack, running_stack_in
from tests.drivers.verification import findings_in
from tests.faults.journal import Journal
from tests.faults.report import say
from tests.faults.rig import parts_directory

CAMPAIGN = "cancels"
_TENANTS = 6
_WORKERS = 2
_POOL = 5
_AT_ONCE = 25
_QUIET_SECONDS = 60.0
_LOOK = text("SELECT current_setting(:setting), (SELECT array_agg(DISTINCT tenant_id) FROM department)")
_WAIT = text("SELECT pg_sleep(:seconds)")


@contextmanager
def cancel_parts() -> Iterator[RunningStack]:
    """Run a server of its own. Synchronous: the kernel ends our servers with the thread that started them."""
    with parts_directory() as directory, running_stack_in(directory, workers=_WORKERS) as stack:
        yield stack


async def run(stack: RunningStack, journal: Journal, *, seed: int, calls: int) -> None:
    """Have `calls` calls cancelled, and as many transactions; then look what was heard, booked and left behind."""
    started_at = time.monotonic()
    tenants = await asyncio.to_thread(add_canary_tenants, stack, random.Random(seed), _TENANTS)
    async with SimulatorClient(stack.simulator) as simulator:
        await simulator.set_pace(latency_ms=30, tokens_per_second=1500)
        overheard = await hang_up(stack, tenants, calls=calls, seed=seed)
        await simulator.set_pace(latency_ms=0, tokens_per_second=0)
        findings = [Finding("a tenant's canary crossed", one) for one in overheard.crossed]
        findings += await _books(stack, simulator)
    findings += await _verified(stack)
    cancelled, left = await _cancel_transactions(stack, tenants, random.Random(seed), calls)
    findings += left
    measured = {
        "told": overheard.told,
        "messages": overheard.messages,
        "transactions_cancelled": cancelled,
        "seconds": round(time.monotonic() - started_at, 1),
    }
    journal.add(CAMPAIGN, f"{calls} cancelled calls, seed {seed}", findings, seed=seed, **measured)
    say(f"  {measured}")
    for finding in findings:
        say(f"      {finding}")


async def _books(stack: RunningStack, simulator: SimulatorClient) -> list[Finding]:
    """Wait until all that was cancelled is booked, and return what the referee finds wrong."""
    connection = await asyncpg.connect(_root_dsn(stack))
    try:
        referee, ends_at = Referee(connection, simulator), time.monotonic() + _QUIET_SECONDS
        while await referee.in_flight() and time.monotonic() < ends_at:  # noqa: ASYNC110 - another process tells nobody
            await asyncio.sleep(0.1)
        return await referee.check()
    finally:
        await connection.close()


def _root_dsn(stack: RunningStack) -> str:
    secrets = StateDirectory(stack.state_dir).secrets
    port = int(str(stack.run["postgres"]).rpartition(":")[2].partition("/")[0])
    endpoint = PostgresEndpoint(
        port=port,
        pid=stack.pids["postgres"],
        root_password_file=secrets / f"{ROOT}.password",
        owner_password_file=secrets,
        app_password_file=secrets,
    )
    return endpoint.dsn(ROOT)


async def _verified(stack: RunningStack) -> list[Finding]:
    database = Database(str(stack.run["postgres"]))
    try:
        return [Finding("the ledger does not add up", f"{one.table} {one.key}") for one in await findings_in(database)]
    finally:
        await database.close()


async def _cancel_transactions(
    stack: RunningStack, tenants: list[CanaryTenant], dice: random.Random, count: int
) -> tuple[int, list[Finding]]:
    """Cancel transactions of one pool at random moments; return how many, and whose setting or rows stood where."""
    database, findings, cancelled = Database(str(stack.run["postgres"]), pool_size=_POOL), list[Finding](), 0
    waiting = iter(range(count))
    # What the driver has to say of each connection that is cut off in the middle.
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)

    async def keep_cancelling() -> None:
        nonlocal cancelled
        for _ in waiting:
            tenant = dice.choice(tenants).canary
            work = asyncio.create_task(_transact(database, tenant, findings, dice.random() * 0.02))
            await asyncio.sleep(dice.random() * 0.03)
            work.cancel()
            (ended,) = await asyncio.gather(work, return_exceptions=True)
            cancelled += isinstance(ended, asyncio.CancelledError)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(keep_cancelling())
        findings += await _left_behind(database)
    finally:
        await database.close()
    return cancelled, findings


async def _transact(database: Database, tenant: str, findings: list[Finding], seconds: float) -> None:
    async with database.within(tenant) as session:
        for _ in range(2):
            setting, seen = await _look(session)
            if (setting, seen) != (tenant, [tenant]):
                findings.append(Finding("a transaction of another tenant", tenant, f"{setting} saw {seen}"))
            await (await session.connection()).execute(_WAIT, {"seconds": seconds})


async def _left_behind(database: Database) -> list[Finding]:
    """Look at every connection of the pool at once."""
    async with AsyncExitStack() as sessions:
        opened = [await sessions.enter_async_context(database.transaction()) for _ in range(2 * _POOL)]
        settings = [(await _look(session))[0] for session in opened]
    return [Finding("a pooled connection carries a tenant", one) for one in settings if one != ALL_TENANTS]


async def _look(session: AsyncSession) -> tuple[str, list[str]]:
    setting, seen = (await (await session.connection()).execute(_LOOK, {"setting": TENANT_SETTING})).one()
    return setting, seen
