"""What the metrics port serves beside what processes count: readings, exemplars, processes; bounded whatever comes."""

import errno
import os
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest, parser
from prometheus_client.openmetrics import parser as openmetrics
from tollhouse_server.telemetry.declarations import calls, ledger, money, observing, processes
from tollhouse_server.telemetry.exemplars import Exemplars, all_exemplars, write_exemplars
from tollhouse_server.telemetry.exposition import Exposition
from tollhouse_server.telemetry.families import MOST_SERIES, OTHER, counter
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.telemetry.own_files import OwnFiles
from tollhouse_server.telemetry.readings import STALE_SECONDS, Reading, publish, reading, withdraw
from tollhouse_server.telemetry.supervision import ProcessReadings

HOSTILE = 100_000


def cost(**dollars: float) -> Reading:
    return Reading(declaration=money.DEPARTMENT_COST, values={("acme", name): value for name, value in dollars.items()})


def test_a_department_that_is_no_longer_told_of_is_gone_at_the_next_scrape(tmp_path: Path) -> None:
    """A gauge of prometheus_client would keep its last value for as long as the process lives."""
    exposition = Exposition(tmp_path)
    publish(tmp_path, [cost(sales=2.5, vision=1)])
    before = exposition.render()
    publish(tmp_path, [cost(vision=3)])

    after = exposition.render()

    assert b'tollhouse_department_cost_dollars{tenant="acme",department="sales"} 2.5\n' in before
    assert b"sales" not in after
    assert b'tollhouse_department_cost_dollars{tenant="acme",department="vision"} 3.0\n' in after


def test_readings_of_a_leader_that_leads_no_more_are_not_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it said so, stopped reading, or was killed."""
    exposition = Exposition(tmp_path)
    publish(tmp_path, [reading(ledger.SUSPENSE_OLDEST, 5)])
    served = exposition.render()
    withdraw(tmp_path)
    withdrawn = exposition.render()
    publish(tmp_path, [reading(ledger.SUSPENSE_OLDEST, 5)])
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + STALE_SECONDS + 1)
    old = exposition.render()
    monkeypatch.undo()
    exposition.end(os.getpid())

    killed = exposition.render()

    assert b"tollhouse_suspense_oldest_seconds 5.0\n" in served
    assert (withdrawn, old, killed) == (b"", b"", b"")


@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), max_size=5, unique=True))
def test_any_label_value_reads_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, labels: list[tuple[str, str]]
) -> None:
    """A quote, a backslash or a line break in a name must not end it."""
    directory = tmp_path_factory.mktemp("metrics")
    publish(directory, [Reading(declaration=money.DEPARTMENT_COST, values=dict.fromkeys(labels, 1.0))])
    exposition = Exposition(directory)

    for read_back, said in (
        (parser, exposition.render()),
        (openmetrics, exposition.render(openmetrics=True)),
    ):
        families = read_back.text_string_to_metric_families(said.decode())
        read = [(one.labels["tenant"], one.labels["department"]) for family in families for one in family.samples]
        assert sorted(read) == sorted(labels)


def test_what_the_supervisor_could_not_log_is_added_to_what_its_processes_could_not(tmp_path: Path) -> None:
    """It has no file of metrics of its own, and its lines are the first to tell of trouble."""
    name = observing.LOG_LINES_DROPPED.name
    for pid, lines in ((71, 4.0), (72, 5.0)):
        OwnFiles(tmp_path, pid)("counter", name, name, [], [], "x").inc(lines)
    exposition = Exposition(tmp_path, lambda: [reading(observing.LOG_LINES_DROPPED, 3)])

    both = exposition.render()
    exposition.end(71)

    assert f"\n{name} 12.0\n".encode() in both
    assert f"\n{name} 12.0\n".encode() in exposition.render()
    assert name in {one.declaration.name for one in ProcessReadings(dict, ["worker"])()}


def test_two_processes_with_one_id_that_end_while_the_disk_is_full_keep_their_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process may get the id of one whose file is left over."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    exposition, name = Exposition(tmp_path), observing.LOG_LINES_DROPPED.name
    with monkeypatch.context() as patched:
        patched.setattr("tollhouse_server.telemetry.exposition.add_up", full)
        for failures in (4.0, 5.0, 6.0):
            OwnFiles(tmp_path, 71)("counter", name, name, [], [], "x").inc(failures)
            exposition.end(71)
            exposition.end(72)
        left = exposition.values_of(observing.LOG_LINES_DROPPED)
    exposition.end(72)

    assert left == exposition.values_of(observing.LOG_LINES_DROPPED) == {(): 15.0}
    assert [path.name for path in tmp_path.iterdir()] == ["counter_0.db"]


def test_hostile_label_values_make_no_series() -> None:
    """A hundred thousand names, addresses, keys and sentences become `other`; what comes after them is told as ever."""
    registry = CollectorRegistry()
    family = counter(calls.REFUSALS, registry)
    for number in range(HOSTILE // 4):
        for value in (
            f"department {number}",
            f"jane.doe-{number}@example.com",
            f"th_live_{number:012}_Secret",
            f"Please summarise the contract {number}",
        ):
            family[(value,)].inc()
    family[("LIMIT_EXCEEDED",)].inc()

    said = generate_latest(registry).decode()

    series = [line for line in said.splitlines() if line.startswith("tollhouse_refusals_total{")]
    assert series == [
        f'tollhouse_refusals_total{{reason="{OTHER}"}} {float(HOSTILE)}',
        'tollhouse_refusals_total{reason="LIMIT_EXCEEDED"} 1.0',
    ]
    assert len(family) == 2


def test_values_that_look_like_good_ones_are_bounded_too() -> None:
    """Of a hundred thousand the first thousand have series, in a family of counters as in one of histograms."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    for number in range(HOSTILE // 10):
        metrics.call_started(rpc=f"X.Y{number}")
        metrics.call_finished(rpc=f"X.Y{number}", code="OK", seconds=0.1)

    said = generate_latest(registry).decode()

    children = set(re.findall(r'^tollhouse_calls_total\{.*rpc="([^"]+)"', said, re.MULTILINE))
    histograms = set(re.findall(r'^tollhouse_call_duration_seconds_sum\{rpc="([^"]+)"', said, re.MULTILINE))
    assert len(children) == MOST_SERIES + 1
    assert 251 < len(histograms) < MOST_SERIES
    assert OTHER in children & histograms


def test_a_traced_call_is_the_example_of_its_bucket(tmp_path: Path) -> None:
    """In OpenMetrics only: the plain text format knows no exemplars."""
    one, other = Exemplars(), Exemplars()
    one.note(calls.CALL_DURATION, ("X.Y",), 0.04, "a" * 32)
    write_exemplars(tmp_path, 1, one.news())
    other.note(calls.CALL_DURATION, ("X.Y",), 0.03, "b" * 32)
    other.note(calls.CALL_DURATION, ("X.Y",), 999.0, "c" * 32)
    write_exemplars(tmp_path, 2, other.news())

    found = all_exemplars(tmp_path)

    bounds = (*calls.CALL_DURATION.buckets, float("inf"))
    assert {bounds[bucket]: example.trace_id[0] for (_, _, bucket), example in found.items()} == {
        0.05: "b",
        float("inf"): "c",
    }


def test_processes_are_told_by_role_and_cpu_of_those_that_ended_stays() -> None:
    """What the kernel says of this very process, under two roles."""
    pids = {"supervisor": [os.getpid()], "worker": [os.getpid(), os.getpid() + 1_000_000]}
    readings = ProcessReadings(lambda: pids, ["supervisor", "worker"])
    readings.restarted("worker")
    first = {one.declaration: one.values for one in readings()}
    pids["worker"] = []

    second = {one.declaration: one.values for one in readings()}
    pids["worker"] = [os.getpid()]
    with_the_same_id = {one.declaration: one.values for one in readings()}

    assert first[processes.RESIDENT_MEMORY]["worker",] > 10_000_000
    assert first[processes.OPEN_FILES]["worker",] >= 3
    assert second[processes.RESIDENT_MEMORY].keys() == {("supervisor",)}
    assert second[processes.CPU]["worker",] == first[processes.CPU]["worker",] > 0
    assert with_the_same_id[processes.CPU]["worker",] >= 2 * first[processes.CPU]["worker",]
    assert second[processes.RESTARTS] == {("supervisor",): 0, ("worker",): 1}
    assert second[processes.STARTED][()] == pytest.approx(time.time(), abs=60)
