"""What a reservation and a settlement cost, beside the least that PostgreSQL can do for them: two bare commits."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
from tollhouse_server.embedded.postgres import EmbeddedPostgres, PostgresConfig, PostgresEndpoint
from tollhouse_server.embedded.postgres_roles import APP, OWNER, ROOT

from tests.drivers.ledger import LedgerProcess, ledger_process, ledger_view, settled, terms
from tests.drivers.postgres import migrate

_SCOPES = (
    "tenants/acme",
    "tenants/acme/departments/research",
    "tenants/acme/departments/vision",
    "tenants/acme/departments/vision/projects/labels",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One row of the table."""

    callers: int
    calls_per_second: float
    cpu_microseconds: float
    works_per_tick: float


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that PostgreSQL's account may enter."""
    directory = Path(tempfile.mkdtemp(prefix="tollhouse-bench-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
async def durable_postgres(directory: Path) -> AsyncIterator[PostgresEndpoint]:
    """A PostgreSQL that waits for the disk, as in production."""
    server = EmbeddedPostgres(
        PostgresConfig(
            directory=directory / "server", secrets_directory=directory / "secrets", log_path=directory / "postgres.log"
        )
    )
    endpoint = await server.start()
    migrate(endpoint.dsn(OWNER))
    yield endpoint
    await server.stop()


async def bare_commits_per_second(dsn: str, count: int) -> float:
    """Return how many one-row transactions one connection commits in a second."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE bare (n int)")
    started_at = time.perf_counter()
    for n in range(count):
        await connection.execute("INSERT INTO bare VALUES ($1)", n)
    seconds = time.perf_counter() - started_at
    await connection.close()
    return count / seconds


async def measure(process: LedgerProcess, callers: int, calls: int) -> Figure:
    """Reserve and settle `calls` times from `callers` callers at once, four counters a call."""

    async def one() -> None:
        for _ in range(calls // callers):
            reservation = await process.ledger.reserve(terms(), timeout_seconds=30)
            await process.ledger.settle(reservation, settled(60))

    ticks, cpu, started_at = process.observer.finished, time.process_time(), time.perf_counter()
    await asyncio.gather(*(one() for _ in range(callers)))
    seconds = time.perf_counter() - started_at
    return Figure(
        callers=callers,
        calls_per_second=calls / seconds,
        cpu_microseconds=(time.process_time() - cpu) / calls * 1e6,
        works_per_tick=2 * calls / (process.observer.finished - ticks),
    )


async def test_reserve_and_settle_beside_bare_commits(
    durable_postgres: PostgresEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prints the table; it holds only that every call was booked, never how long it took."""
    figures = []
    async with ledger_view(durable_postgres.dsn(ROOT)) as view:
        await view.add_tenant()
        for number, scope in enumerate(_SCOPES):
            await view.add_limit(f"limit-{number}", scope, "COST", "MONTH", 10**15)
        bare = await bare_commits_per_second(durable_postgres.dsn(ROOT), 500)
        async with ledger_process(durable_postgres.dsn(APP)) as process:
            for callers, calls in ((1, 300), (16, 3200), (64, 9600), (256, 10240)):
                figures.append(await measure(process, callers, calls))
        booked = await view.count("usage_record")

    with capsys.disabled():
        print(f"\nbare one-row commits on one connection: {bare:,.0f}/s")  # noqa: T201 - a benchmark's result
        print("callers   calls/s   CPU us/call   works/tick   calls per bare commit")  # noqa: T201
        for row in figures:
            print(  # noqa: T201
                f"{row.callers:7} {row.calls_per_second:9,.0f} {row.cpu_microseconds:13.0f}"
                f" {row.works_per_tick:12.1f} {row.calls_per_second / bare:23.2f}"
            )
    assert booked == 300 + 3200 + 9600 + 10240
