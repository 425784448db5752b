"""The metrics port serves whoever scrapes, whatever others do with it."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from tollhouse_server.fork_server import ForkServer
from tollhouse_server.supervisor import ProcessPlan, ProcessStartFailed, Supervisor
from tollhouse_server.telemetry.declarations import money
from tollhouse_server.telemetry.exposition import Exposition
from tollhouse_server.telemetry.readings import Reading, publish
from tollhouse_server.telemetry.server import _Renders as Renders
from tollhouse_server.telemetry.server import serve_metrics

_REQUEST = b"GET /metrics HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
_MANY = 300


@asynccontextmanager
async def served(directory: Path) -> AsyncIterator[int]:
    async with serve_metrics(0, Exposition(directory)) as port:
        yield port


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def sent(port: int, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    return reader, writer


async def asked(port: int, request: bytes = _REQUEST) -> bytes:
    """The whole answer to a request."""
    reader, writer = await sent(port, request)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize("beginning", [b"", b"GET /metrics HT", _REQUEST])
async def test_connections_that_are_kept_open_are_bounded_and_hold_up_nobody(tmp_path: Path, beginning: bytes) -> None:
    """Those that say nothing, half a line, or ask and do not read: the oldest gives way, a scrape is answered."""
    # More than a socket takes that nobody reads.
    values: dict[tuple[str, ...], float] = {
        ("acme", f"department-{number}"): 1.0 for number in range(20_000 if beginning is _REQUEST else 1)
    }
    publish(tmp_path, [Reading(declaration=money.DEPARTMENT_COST, values=values)])
    async with served(tmp_path) as port, AsyncExitStack() as stack:
        before = open_files()
        for _ in range(_MANY if beginning is not _REQUEST else 80):
            _, writer = await sent(port, beginning)
            stack.callback(writer.transport.abort)

        answer = await asked(port)

        ours = open_files() - before
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b" 1.0\n")
    # Both ends are this process's.
    assert ours <= (_MANY if beginning is not _REQUEST else 80) + 70


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /metrics?" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nx: " + b"a" * 100_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /metrics HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n\x00",
    ],
    ids=["long line", "long header", "TLS", "HTTP/2", "length", "version"],
)
async def test_what_is_no_http_is_refused_without_a_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, request_bytes: bytes
) -> None:
    """Anybody who reaches the port could fill the disk with tracebacks otherwise."""
    async with served(tmp_path) as port:
        answer = await asked(port, request_bytes)

        assert answer.startswith(b"HTTP/1.0 4") or answer.startswith(b"HTTP/1.1 4")
        assert (await asked(port)).startswith(b"HTTP/1.1 200 OK")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_wrong_paths_and_methods_lead_nowhere(tmp_path: Path) -> None:
    """There are three pages, to be read."""
    paths = (
        b"GET /",
        b"GET /../../etc/passwd",
        b"GET /metrics/",
        b"POST /metrics",
        b"DELETE /readyz",
        b"GET //metrics",
    )
    async with served(tmp_path) as port:
        answers = [await asked(port, path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") for path in paths]

    assert {answer.split()[1] for answer in answers} == {b"404", b"405"}


async def test_scrapes_at_once_all_get_the_same(tmp_path: Path) -> None:
    """As two Prometheus do, and whoever looks besides."""
    publish(tmp_path, [Reading(declaration=money.DEPARTMENT_COST, values={("acme", "sales"): 2.5})])
    async with served(tmp_path) as port:
        answers = await asyncio.gather(*(asked(port) for _ in range(40)))

    assert len({answer.partition(b"\r\n\r\n")[2] for answer in answers}) == 1
    assert b'department="sales"} 2.5' in answers[0]


class SlowExposition(Exposition):
    """One that has begun when it says so, and ends when it is let."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.renders = 0
        self.has_begun, self.may_end = threading.Event(), threading.Event()

    def render(self, *, openmetrics: bool = False) -> bytes:
        self.renders += 1
        self.has_begun.set()
        assert self.may_end.wait(20)
        return super().render(openmetrics=openmetrics)


async def test_scrapes_at_once_cost_one(tmp_path: Path) -> None:
    """Also where he hangs up for whom it was begun."""
    publish(tmp_path, [Reading(declaration=money.DEPARTMENT_COST, values={("acme", "sales"): 2.5})])
    exposition = SlowExposition(tmp_path)
    async with serve_metrics(0, exposition) as port:
        _, first = await sent(port, _REQUEST)
        await asyncio.to_thread(exposition.has_begun.wait, 20)
        others = [await sent(port, _REQUEST) for _ in range(5)]
        first.transport.abort()
        # Answered after all that came before it was heard.
        await asked(port, _REQUEST.replace(b"metrics", b"healthz"))
        exposition.may_end.set()
        async with asyncio.timeout(20):
            answers = [await reader.read() for reader, _ in others]
        for _, writer in others:
            writer.close()

    assert exposition.renders == 1
    assert all(answer.endswith(b'department="sales"} 2.5\n') for answer in answers)


async def test_who_asks_no_more_takes_it_from_nobody(tmp_path: Path) -> None:
    """A page whose server is told to end the handlers of those who hang up goes on for the others."""
    exposition = SlowExposition(tmp_path)
    renders = Renders(exposition)
    first, second = (asyncio.create_task(renders.render(openmetrics=False)) for _ in range(2))
    await asyncio.to_thread(exposition.has_begun.wait, 20)

    first.cancel()
    await asyncio.wait([first])
    exposition.may_end.set()

    assert (await second, first.cancelled(), exposition.renders) == (b"", True, 1)


async def test_a_scrape_that_fails_is_told_to_who_asked_and_ends_nothing(tmp_path: Path) -> None:
    """The next one is another."""
    async with served(tmp_path) as port:
        tmp_path.rmdir()  # noqa: ASYNC240 - it takes no time
        failed = await asked(port)
        tmp_path.mkdir()  # noqa: ASYNC240

        assert failed.startswith(b"HTTP/1.1 500")
        assert (await asked(port)).startswith(b"HTTP/1.1 200 OK")


async def test_a_process_that_cannot_be_started_ends_no_supervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Want of files, processes or memory is a start that failed, which is tried again."""
    monkeypatch.setattr("sys.executable", str(tmp_path / "missing"))
    plan = ProcessPlan(workers=1, environment={}, metrics_directory=tmp_path, drain_seconds=0)
    files = open_files()

    with pytest.raises(ProcessStartFailed):
        await Supervisor(plan, ForkServer({})).start()

    assert open_files() <= files + 1
