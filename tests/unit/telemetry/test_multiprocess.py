"""Metrics of real processes are added up and served on one port."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from tollhouse_server.telemetry.declarations.calls import CALL_DURATION, CALLS
from tollhouse_server.telemetry.declarations.processes import PART_UP
from tollhouse_server.telemetry.exposition import Exposition
from tollhouse_server.telemetry.multiprocess import prepare_directory
from tollhouse_server.telemetry.own_files import OwnFiles
from tollhouse_server.telemetry.server import Condition, serve_metrics

REPORT = """
import sys
from prometheus_client import CollectorRegistry
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.telemetry.multiprocess import shared_with_other_processes

assert shared_with_other_processes()
metrics = Metrics(CollectorRegistry())
metrics.process_started(role="worker")
if sys.argv[1] != "none":
    metrics.vault_seen(up=sys.argv[1] == "up")
for _ in range(int(sys.argv[2])):
    metrics.call_started(rpc="X.Y")
    metrics.call_finished(rpc="X.Y", code="OK", seconds=0.01)
print("reported", flush=True)
sys.stdin.read()
"""


class Workers:
    """Processes that report and then live until they are ended."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._environment = {**os.environ, **prepare_directory(directory), "PYTHONPATH": os.pathsep.join(sys.path)}
        self._running: list[subprocess.Popen[str]] = []

    def start(self, vault: str, calls: int) -> subprocess.Popen[str]:
        """Start one and wait until it has reported."""
        process = subprocess.Popen(
            [sys.executable, "-c", REPORT, vault, str(calls)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self._environment,
        )
        self._running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "reported\n"
        return process

    def stop_all(self) -> None:
        """End whatever runs."""
        for process in self._running:
            process.kill()
            process.communicate()


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    started = Workers(tmp_path / "metrics")
    yield started
    started.stop_all()


def lines(text: bytes) -> set[str]:
    return set(text.decode().splitlines())


def test_counts_are_summed_and_the_worst_state_is_shown(workers: Workers) -> None:
    """Two processes are one server: calls add up, and Vault is up only when both reach it."""
    workers.start("up", 3)
    workers.start("down", 4)

    seen = lines(Exposition(workers.directory).render())

    assert 'tollhouse_calls_total{code="OK",rpc="X.Y"} 7.0' in seen
    assert 'tollhouse_processes{role="worker"} 2.0' in seen
    assert 'tollhouse_part_up{part="vault"} 0.0' in seen


def test_what_is_served_is_what_prometheus_client_would_serve(workers: Workers) -> None:
    """Reading the files ourselves is quicker; it must not come to other figures."""
    workers.start("up", 3)
    exposition = Exposition(workers.directory)
    exposition.render()
    workers.start("down", 4)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(workers.directory))  # type: ignore[no-untyped-call]

    ours, theirs = lines(exposition.render()), lines(generate_latest(registry))

    assert {line for line in ours if line[0] != "#"} == {line for line in theirs if line[0] != "#"}


def test_dead_process_keeps_its_counts_and_loses_its_gauges(workers: Workers) -> None:
    """What was served stays served; a killed worker is no longer counted as living."""
    workers.start("up", 3)
    killed = workers.start("down", 4)
    exposition = Exposition(workers.directory)
    before = lines(exposition.render())
    killed.kill()
    killed.wait()

    exposition.end(killed.pid)

    seen = lines(exposition.render())
    assert 'tollhouse_processes{role="worker"} 2.0' in before
    assert list(workers.directory.glob(f"*_{killed.pid}.db")) == []
    assert seen == lines(Exposition(workers.directory).render())
    assert 'tollhouse_calls_total{code="OK",rpc="X.Y"} 7.0' in seen
    assert 'tollhouse_processes{role="worker"} 1.0' in seen
    assert 'tollhouse_part_up{part="vault"} 1.0' in seen


def test_whoever_else_reads_sees_what_processes_counted_that_ended(workers: Workers) -> None:
    """The supervisor puts another file in the place of the one that the reader has open."""
    supervisor, reader = Exposition(workers.directory), Exposition(workers.directory)
    for calls in (3, 4):
        process = workers.start("up", calls)
        reader.values_of(CALLS)
        process.kill()
        process.wait()
        supervisor.end(process.pid)
        reader.values_of(CALLS)

    assert reader.values_of(CALLS) == {("X.Y", "OK"): 7.0}
    assert sum(reader.counts_of(CALL_DURATION)["X.Y",]) == 7


def test_process_that_never_looks_into_a_part_says_nothing_of_it(workers: Workers) -> None:
    """The housekeeper does not look into Vault; that must not read as Vault being down."""
    workers.start("up", 1)
    workers.start("none", 1)

    assert 'tollhouse_part_up{part="vault"} 1.0' in lines(Exposition(workers.directory).render())


def test_value_goes_on_counting_when_its_file_has_grown(tmp_path: Path) -> None:
    """Others see what a value counts that was made when the file was smaller."""
    files = OwnFiles(tmp_path, 1)
    first = files("counter", "calls", "calls_total", (), (), "x" * 1000)
    later = [files("counter", "calls", f"later{number}_total", (), (), "x" * 1000) for number in range(200)]

    first.inc(2)
    later[-1].inc(3)

    seen = {key: value for key, value, *_ in MmapedDict.read_all_values_from_file(str(tmp_path / "counter_1.db"))}  # type: ignore[no-untyped-call]
    assert (tmp_path / "counter_1.db").stat().st_size > 200_000
    assert sorted(seen.values())[-2:] == [2.0, 3.0]
    assert OwnFiles(tmp_path, 1)("counter", "calls", "calls_total", (), (), "x" * 1000).get() == 2.0


def test_directory_of_an_earlier_run_is_emptied(workers: Workers) -> None:
    """Counts of the last run are not this run's."""
    workers.start("up", 3)
    workers.stop_all()

    prepare_directory(workers.directory)

    assert Exposition(workers.directory).render() == b""


async def test_metrics_port_serves_metrics_health_and_readiness(workers: Workers) -> None:
    """Prometheus and a load balancer find what they ask for, and a problem is named."""
    workers.start("up", 3)
    conditions = [
        Condition(problems=("PostgreSQL cannot be reached",), remarks=("not said",)),
        Condition(remarks=("Vault cannot be reached",)),
        Condition(),
    ]

    async def readiness() -> Condition:
        return conditions.pop()

    async with (
        serve_metrics(0, Exposition(workers.directory), readiness=readiness) as port,
        aiohttp.ClientSession() as client,
    ):
        base = f"http://127.0.0.1:{port}"
        async with client.get(f"{base}/metrics") as answer:
            metrics, content_type = await answer.read(), answer.headers["Content-Type"]
        async with client.get(f"{base}/healthz") as answer:
            health = (answer.status, await answer.text())
        async with client.get(f"{base}/readyz") as answer:
            ready = (answer.status, await answer.text())
        async with client.get(f"{base}/readyz") as answer:
            ready_with_a_remark = (answer.status, await answer.text())
        async with client.get(f"{base}/readyz") as answer:
            not_ready = (answer.status, await answer.text())

    assert 'tollhouse_calls_total{code="OK",rpc="X.Y"} 3.0' in lines(metrics)
    assert content_type.startswith("text/plain")
    assert health == ready == (200, "ok\n")
    assert ready_with_a_remark == (200, "ok\nVault cannot be reached\n")
    assert not_ready == (503, "PostgreSQL cannot be reached\n")


async def test_port_in_use_is_an_error_that_names_it(tmp_path: Path) -> None:
    """Two servers on one port would hide each other."""
    async with serve_metrics(0, Exposition(tmp_path)) as port:
        with pytest.raises(OSError, match=str(port)):
            async with serve_metrics(port, Exposition(tmp_path)):
                pass


def test_a_part_is_down_when_one_process_cannot_reach_it(workers: Workers) -> None:
    """Readiness asks for the worst view."""
    workers.start("up", 1)
    exposition = Exposition(workers.directory)
    before = exposition.values_of(PART_UP)
    workers.start("down", 1)

    after = exposition.values_of(PART_UP)

    assert before == {("vault",): 1.0}
    assert after == {("vault",): 0.0}
