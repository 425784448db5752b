"""What a reservation and a settlement cost, beside the least that PostgreSQL can do for them: two bare commits.

Each figure is made by processes of their own (`ledger_load.py`), set up as workers are; PostgreSQL is on the same
machine and waits for the disk. A benchmark holds only that every call was booked, never how long it took.
"""

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import asyncpg
import pytest
from tollhouse_server.embedded.postgres import EmbeddedPostgres, PostgresConfig, PostgresEndpoint
from tollhouse_server.embedded.postgres_roles import APP, OWNER, ROOT
from tollhouse_server.ledger.tick import LANES

from tests.bench.ledger_load import Measured, Plan
from tests.bench.recorder import Recorder
from tests.bench.rounds import RECORDS, SIZES
from tests.drivers.ledger import LedgerView, ledger_view
from tests.drivers.postgres import migrate

ROOT_DIRECTORY = Path(__file__).parents[2]
HERTZ = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A PostgreSQL that waits for the disk, as in production."""

    endpoint: PostgresEndpoint
    pid: int

    def cpu_seconds(self) -> float:
        """Return the processor time of the server and all its processes, of those too that have ended."""
        living = sum(_ticks(stat, 11, 12) for stat in Path("/proc").glob("[0-9]*/stat") if _belongs(stat, self.pid))
        return (living + _ticks(Path(f"/proc/{self.pid}/stat"), 13, 14)) / HERTZ


def _fields(stat: Path) -> list[str]:
    try:
        return stat.read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []


def _belongs(stat: Path, pid: int) -> bool:
    fields = _fields(stat)
    return stat.parent.name == str(pid) or (len(fields) > 1 and fields[1] == str(pid))


def _ticks(stat: Path, *columns: int) -> int:
    """Return the sum of some columns of proc(5): 11 and 12 are a process's own time, 13 and 14 its ended children's."""
    fields = _fields(stat)
    return sum(int(fields[column]) for column in columns) if fields else 0


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that PostgreSQL's account may enter."""
    directory = Path(tempfile.mkdtemp(prefix="tollhouse-bench-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
async def server(directory: Path) -> AsyncIterator[Server]:
    """A server with all migrations."""
    embedded = EmbeddedPostgres(
        PostgresConfig(
            directory=directory / "server", secrets_directory=directory / "secrets", log_path=directory / "postgres.log"
        )
    )
    endpoint = await embedded.start()
    migrate(endpoint.dsn(OWNER))
    await fill_log(endpoint.dsn(ROOT))
    pid_file = next((directory / "server").rglob("postmaster.pid"))
    yield Server(endpoint=endpoint, pid=int(pid_file.read_text().splitlines()[0]))
    await embedded.stop()


async def fill_log(dsn: str) -> None:
    """Have the server write into segments of its log that it has used before, as one does that has run for an hour.

    A new server makes and fills each segment first, which is a tenth of its processor time.
    """
    connection = await asyncpg.connect(dsn)
    for setting in ("min_wal_size = '1GB'", "max_wal_size = '4GB'"):
        await connection.execute(f"ALTER SYSTEM SET {setting}")
    await connection.execute("SELECT pg_reload_conf()")
    for _ in range(3):
        await connection.execute(
            "SELECT count(pg_logical_emit_message(false, '', repeat('x', 1000000))) FROM generate_series(1, 300)"
        )
        await connection.execute("CHECKPOINT")
    await connection.close()


@pytest.fixture
async def view(server: Server) -> AsyncIterator[LedgerView]:
    """Tenant acme."""
    async with ledger_view(server.endpoint.dsn(ROOT)) as view:
        await view.add_tenant()
        yield view


async def add_limits(view: LedgerView, departments: int) -> None:
    """Give the tenant and each department, project and key a budget: four counters a call."""
    await view.connection.execute(
        """
        INSERT INTO usage_limit (tenant_id, name, scope, metric, "window", amount)
        SELECT 'acme', kind || n, 'tenants/acme' || CASE kind
            WHEN 'tenant' THEN ''
            WHEN 'department' THEN '/departments/d' || n
            WHEN 'project' THEN '/departments/d' || n || '/projects/p' || n
            ELSE '/departments/d' || n || '/projects/p' || n || '/apiKeys/k' || n END, 'COST', 'MONTH', 10::bigint ^ 15
        FROM generate_series(0, $1::int - 1) AS n, unnest(ARRAY['tenant', 'department', 'project', 'key']) AS kind
        WHERE kind <> 'tenant' OR n = 0
        """,
        departments,
    )
    await view.announce()


async def bare_commits_per_second(dsn: str, count: int = 500) -> float:
    """Return how many one-row transactions one connection commits in a second."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE IF NOT EXISTS bare (n int)")
    started_at = time.perf_counter()
    for n in range(count):
        await connection.execute("INSERT INTO bare VALUES ($1)", n)
    seconds = time.perf_counter() - started_at
    await connection.close()
    return count / seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One row of a table, over all processes that ran at the same time."""

    calls: int
    calls_per_s: float
    cpu_us_per_call: float
    postgres_us_per_call: float
    works_per_tick: float
    p50_ms: float
    p99_ms: float


async def run(server: Server, plans: Sequence[Plan]) -> Figure:
    """Run a process for each plan, all at once."""
    processes = [await _start(server.endpoint.dsn(APP), plan) for plan in plans]
    for process in processes:
        assert (await _line(process)) == "ready"
    cpu = server.cpu_seconds()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
    measured = [Measured(**json.loads(await _line(process))) for process in processes]
    postgres = server.cpu_seconds() - cpu
    for process in processes:
        assert await process.wait() == 0
    calls = sum(one.calls for one in measured)
    return Figure(
        calls=calls,
        calls_per_s=sum(one.calls / one.seconds for one in measured),
        cpu_us_per_call=sum(one.cpu_seconds for one in measured) / calls * 1e6,
        postgres_us_per_call=postgres / calls * 1e6,
        works_per_tick=sum(one.works_per_tick for one in measured) / len(measured),
        p50_ms=max(one.reserve_p50_ms for one in measured),
        p99_ms=max(one.reserve_p99_ms for one in measured),
    )


async def _start(dsn: str, plan: Plan) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.ledger_load"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT_DIRECTORY,
        env=os.environ | {"LEDGER_LOAD_DSN": dsn},
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(asdict(plan)).encode() + b"\n")
    return process


async def _line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


def record(recorder: Recorder, key: str, figure: Figure, bare: float) -> None:
    """Record one figure, with its ratio to bare commits of the same minute."""
    found = asdict(figure)
    del found["calls"]
    recorder.record_all(key, {**found, "per_bare_commit": figure.calls_per_s / bare})


async def booked(view: LedgerView) -> int:
    """Return how many calls were charged."""
    return int(await view.connection.fetchval("SELECT count(*) FROM usage_record WHERE kind = 'SETTLED'"))


@pytest.mark.parametrize("departments", SIZES)
async def test_reserve_and_settle(server: Server, view: LedgerView, recorder: Recorder, departments: int) -> None:
    """Four counters a call, one process with two ticks under way, from one caller to 256."""
    await add_limits(view, departments)
    made = 0

    for callers, calls in ((1, 500), (16, 8000), (64, 32_000), (256, 51_200)):
        bare = await bare_commits_per_second(server.endpoint.dsn(ROOT))
        warm = min(calls, 20 * callers) // callers * callers
        figure = await run(server, [Plan(departments=departments, callers=callers, calls=calls, lanes=LANES)])
        record(recorder, f"ledger/departments_{departments}/c{callers}", figure, bare)
        made += figure.calls + warm

    assert await booked(view) == made


async def test_many_servers_on_one_hot_tenant(server: Server, view: LedgerView, recorder: Recorder) -> None:
    """1, 2, 4 and 8 processes that all lock the tenant's counter, 64 callers each."""
    await add_limits(view, 100)
    for processes in (1, 2, 4, 8):
        for lanes in (1, 2):
            bare = await bare_commits_per_second(server.endpoint.dsn(ROOT))
            plans = [
                Plan(departments=100, callers=64, calls=25_600 // processes // 64 * 64, lanes=lanes, seed=seed)
                for seed in range(processes)
            ]
            figure = await run(server, plans)
            record(recorder, f"ledger_hot_tenant/{processes}_processes/{lanes}_lanes", figure, bare)

    held, settled = await view.connection.fetchrow("SELECT sum(held), sum(settled) FROM counter") or (0, 0)
    assert (held, settled) == (0, 4 * 60 * await booked(view))


async def test_records_do_not_matter(server: Server, view: LedgerView, recorder: Recorder) -> None:
    """No record, and many (BENCH_RECORDS): a call costs the same."""
    await add_limits(view, 100)

    had = 0
    for records in RECORDS:
        await view.connection.execute(
            "INSERT INTO usage_record SELECT 'acme', gen_random_uuid(), now() - n * interval '1 microsecond', "
            "'SETTLED', gen_random_uuid(), now(), 1, '{d1}', 'p1', 'k1', 'robot', 'generateContent', 'flash', 'm', "
            "'main', '{}', 1, 1, 9, 11, 0, 60, 100, '{}', '[]', 'SERVED', '' FROM generate_series($1::int, $2::int) n",
            *(had + 1, records),
            timeout=3600,
        )
        had = records
        bare = await bare_commits_per_second(server.endpoint.dsn(ROOT))
        figure = await run(server, [Plan(departments=100, callers=64, calls=25_600, lanes=LANES)])
        record(recorder, f"ledger/records_{records}/c64", figure, bare)

    assert await booked(view) >= RECORDS[-1] + len(RECORDS) * 25_600
