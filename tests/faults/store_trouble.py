"""What can happen to PostgreSQL under load, and that nobody has to restart anything afterwards."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import asyncpg
import psutil
from tollhouse_server.embedded.postgres_roles import APP
from tollhouse_server.ledger.tick import LANES

from tests.drivers.referee import Finding
from tests.faults.cast import Cast
from tests.faults.fates import judge, watched_bookings
from tests.faults.journal import Journal
from tests.faults.report import say
from tests.faults.rig import Rig
from tests.faults.traffic import Code, Manner, Traffic, traffic_on

CAMPAIGN = "store"
PATIENT = Manner(seconds=30.0)
HASTY = Manner(seconds=2.0, may_be_told=frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED}))
_HASTY_LATEST_SECONDS = 2.6
CALLERS = (
    *(PATIENT,) * 6,
    *(HASTY,) * 4,
    replace(PATIENT, every_seconds=0.3),
    replace(HASTY, every_seconds=0.3),
)
_AFTERWARDS_SECONDS = 3.0
_ATTEMPTS_PER_SECOND = 10.0 + 10.0 * LANES
"""How often one process may try to connect: heartbeats (six a second in these tests), epochs, each lane of the tick."""

_LEDGER = "application_name = 'tollhouse-ledger'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Something that befalls the database. `proof` returns 0 when it has not really happened."""

    name: str
    strike: Callable[[Rig, float], Awaitable[None]]
    seconds: float
    proof: str = ""
    ends_connections: bool = False


async def run(rig: Rig, journal: Journal, *, seed: int, only: Sequence[str] = ()) -> None:
    """Run every trouble under load."""
    cast = Cast(rig, workers=2)
    for trouble in TROUBLES:
        if all(word in trouble.name for word in only):
            findings, measured = await befall(cast, trouble, CALLERS, seed=seed, seconds=trouble.seconds)
            journal.add(CAMPAIGN, trouble.name, findings, seed=seed, **measured)
            say(f"  {trouble.name}: {measured}")
            for finding in dict.fromkeys(findings):
                say(f"      {finding} x {findings.count(finding)}")


async def befall(
    cast: Cast, trouble: Trouble, manners: Sequence[Manner], *, seed: int, seconds: float
) -> tuple[list[Finding], dict[str, Any]]:
    """Let a trouble befall the database under load; return what is wrong, and what was measured."""
    rig = cast.rig
    await cast.complete()
    before = await _measured(rig, trouble)
    async with watched_bookings(rig) as bookings, traffic_on(rig, *manners, seed=seed) as traffic:
        await asyncio.sleep(1)
        started_at = time.monotonic()
        await trouble.strike(rig, seconds)
        lasted = time.monotonic() - started_at
        await asyncio.sleep(min(_AFTERWARDS_SECONDS, seconds / 2))
    if trouble.ends_connections:
        await rig.reconnect()
    after = await _measured(rig, trouble)
    sessions = after["sessions"] - before["sessions"]
    findings = _judge(traffic, trouble, before, after)
    findings += [Finding("ended by the outage", name) for name, driven in cast.playing.items() if driven.ended.is_set()]
    bound = _ATTEMPTS_PER_SECOND * len(cast.playing) * (lasted + _AFTERWARDS_SECONDS + 1)
    if not trouble.ends_connections and sessions > bound:
        findings.append(Finding("a herd of connections", trouble.name, f"{sessions} sessions, bound {bound:.0f}"))
    findings += await cast.next_calls(f"after {trouble.name}", 20) + await rig.verdict()
    wrongs, fates = await judge(rig, traffic.refusals, bookings)
    told = {f"{deadline:.0f} s: {code}": count for (deadline, code), count in sorted(traffic.told.items())}
    longest = {f"{deadline:.0f} s": round(took, 2) for deadline, took in traffic.longest_seconds.items()}
    measured = {"told": told, "fates": fates, "longest": longest, "sessions": sessions, "seconds": round(lasted, 1)}
    return findings + wrongs, measured


def _judge(traffic: Traffic, trouble: Trouble, before: dict[str, int], after: dict[str, int]) -> list[Finding]:
    findings = list(traffic.findings)
    took = traffic.longest_seconds.get(HASTY.seconds, 0.0)
    if took > _HASTY_LATEST_SECONDS:
        findings.append(Finding("a deadline of 2 s was answered late", trouble.name, f"{took:.2f} s"))
    if trouble.proof and after["proof"] <= before["proof"]:
        findings.append(Finding("the test has shown nothing", trouble.name, trouble.proof))
    return findings


async def _measured(rig: Rig, trouble: Trouble) -> dict[str, int]:
    sessions = "SELECT sum(sessions)::bigint FROM pg_stat_database"
    return {
        "sessions": await rig.root.fetchval(sessions),
        "proof": await rig.root.fetchval(trouble.proof or "SELECT 0"),
    }


# --- the troubles -----------------------------------------------------------------------------------------------------


async def frozen(rig: Rig, seconds: float) -> None:
    """Every process of PostgreSQL stands still: connections stay open and nobody answers."""
    processes = _postgres_processes(rig)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(seconds)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGCONT)


def _postgres_processes(rig: Rig) -> list[psutil.Process]:
    child = rig.parts.postgres.child
    assert child is not None
    postmaster = psutil.Process(child.pid)
    return [postmaster, *postmaster.children(recursive=True)]


async def down(rig: Rig, seconds: float) -> None:
    """PostgreSQL is shut down; somebody else counts who knocks meanwhile."""
    await rig.parts.postgres.stop()
    async with _knocks(rig.parts.endpoints[0].port) as knocks:
        await asyncio.sleep(seconds)
    await rig.parts.postgres.start()
    rate = len(knocks) / seconds
    say(f"    {len(knocks)} attempts to connect in {seconds:.0f} s, by all processes")
    if rate > _ATTEMPTS_PER_SECOND * sum(not one.ended.is_set() for one in rig.driven):
        rig.noted.append(Finding("a herd of connections", "PostgreSQL down", f"{rate:.0f} a second"))


@asynccontextmanager
async def _knocks(port: int) -> AsyncIterator[list[float]]:
    """Count who connects to a port, and hang up on each."""
    knocks: list[float] = []

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        knocks.append(time.monotonic())
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", port, reuse_port=False)
    try:
        yield knocks
    finally:
        server.close()
        await server.wait_closed()


async def restarted(rig: Rig, seconds: float) -> None:
    """It is restarted again and again, in the midst of commits."""
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        await rig.parts.postgres.stop()
        await rig.parts.postgres.start()
        await asyncio.sleep(0.7)


async def crashed(rig: Rig, seconds: float) -> None:
    """One of its processes dies by kill -9: all connections end, and it recovers from its log."""
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        await rig.reconnect()
        pid = await rig.root.fetchval(f"SELECT pid FROM pg_stat_activity WHERE {_LEDGER} LIMIT 1")  # noqa: S608
        if pid is not None:
            psutil.Process(pid).kill()
        await asyncio.sleep(1.5)


async def locked(rig: Rig, seconds: float) -> None:
    """Another session holds every counter for seconds at a time."""
    async with rig.another_session() as other:
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at:
            async with other.transaction():
                await other.execute("SELECT FROM counter FOR UPDATE")
                await asyncio.sleep(min(3.0, seconds / 2))
            await asyncio.sleep(0.3)


async def locked_long(rig: Rig, seconds: float) -> None:
    """Another session holds every counter for longer than a statement may take."""
    async with rig.another_session() as other, other.transaction():
        await other.execute("SELECT FROM counter FOR UPDATE")
        await asyncio.sleep(seconds)


async def without_connections(rig: Rig, seconds: float) -> None:
    """Somebody has eaten every connection up, and the ledger loses its own."""
    eaten: list[asyncpg.Connection[asyncpg.Record]] = []
    dsn = rig.parts.endpoints[0].dsn(APP)
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        try:
            eaten.append(await asyncpg.connect(dsn, timeout=5))
        except (asyncpg.TooManyConnectionsError, OSError, TimeoutError):
            await rig.root.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {_LEDGER}")  # noqa: S608
            await asyncio.sleep(0.1)
    for connection in eaten:
        connection.terminate()


async def deadlocked(rig: Rig, seconds: float) -> None:
    """Another session locks the counters in the other order, and waits longer than the ledger for the verdict."""
    async with rig.another_session() as other:
        await other.execute("SET deadlock_timeout = '20s'")
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at:
            keys = await other.fetch(
                "SELECT ctid FROM counter ORDER BY tenant_id DESC, limit_id DESC, window_start DESC"
            )
            with suppress(asyncpg.DeadlockDetectedError):
                async with other.transaction():
                    for key in keys:
                        await other.execute("SELECT FROM counter WHERE ctid = $1 FOR UPDATE", key["ctid"])
                        await asyncio.sleep(0.02)
            await asyncio.sleep(0.05)


async def unserializable(rig: Rig, seconds: float) -> None:
    """Writes fail to serialize, again and again."""
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        await rig.raise_errors("40001")
        await asyncio.sleep(0.2)
    await rig.raise_errors(None)


async def cancelled(rig: Rig, seconds: float) -> None:
    """Whatever the ledger's connections run is cancelled, every few milliseconds."""
    await _again_and_again(rig, seconds, "pg_cancel_backend", 0.01)


async def terminated(rig: Rig, seconds: float) -> None:
    """The ledger's connections are terminated, again and again."""
    await _again_and_again(rig, seconds, "pg_terminate_backend", 0.05)


async def _again_and_again(rig: Rig, seconds: float, function: str, pause: float) -> None:
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        await rig.root.execute(f"SELECT {function}(pid) FROM pg_stat_activity WHERE {_LEDGER}")  # noqa: S608
        await asyncio.sleep(pause)


_DEADLOCKS = "SELECT sum(deadlocks)::bigint FROM pg_stat_database"

TROUBLES = (
    Trouble(name="frozen", strike=frozen, seconds=10),
    Trouble(name="down", strike=down, seconds=10, ends_connections=True),
    Trouble(name="restarted", strike=restarted, seconds=8, ends_connections=True),
    Trouble(name="crashed", strike=crashed, seconds=8, ends_connections=True),
    Trouble(name="locked", strike=locked, seconds=8),
    Trouble(name="locked longer than a statement may take", strike=locked_long, seconds=12),
    Trouble(name="out of connections", strike=without_connections, seconds=6),
    Trouble(name="deadlocked", strike=deadlocked, seconds=8, proof=_DEADLOCKS),
    Trouble(name="unserializable", strike=unserializable, seconds=4, proof="SELECT last_value FROM fault_total"),
    Trouble(name="cancelled", strike=cancelled, seconds=6),
    Trouble(name="terminated", strike=terminated, seconds=6),
)
