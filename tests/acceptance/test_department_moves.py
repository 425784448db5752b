"""A department moves at a moment, on two servers whose housekeepers are stopped: each call counts where it belongs."""

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from tollhouse.admin.v1 import limits_pb2 as limits
from tollhouse.v1 import content_pb2, generation_pb2, generation_pb2_grpc

from tests.drivers.callers import bearer
from tests.drivers.command_line import SOURCES, CommandLine
from tests.drivers.deployment import running_parts
from tests.drivers.fleet import Fleet, fleet_administration, running_fleet

STALENESS = timedelta(seconds=2)
HERE = ("--tenant", "demo")


@pytest.fixture
def fleet(stack_directory: Path) -> Iterator[Fleet]:
    """Two servers with one worker each, on parts of their own: their housekeepers are harmed."""
    with running_parts(stack_directory) as parts, running_fleet(parts, servers=2, workers=1, drain_seconds=1) as fleet:
        yield fleet


def test_two_servers_count_by_the_date_while_no_housekeeper_works(fleet: Fleet, tmp_path: Path) -> None:
    """Never before the moment, within two seconds of it on both; the limits of both sides agree with the records."""
    tollhouse = command_line(fleet, tmp_path)
    for name in ("before", "after"):
        tollhouse.ok("departments", "create", name, *HERE)
    with fleet_administration(fleet) as administration:
        key = administration.add_department("crew")
        for name in ("before", "after", "crew"):
            administration.add_limit(
                f"on-{name}",
                f"tenants/demo/departments/{name}",
                limits.LIMIT_METRIC_REQUESTS,
                limits.LIMIT_WINDOW_TOTAL,
                limits.LimitAmount(units=10**6),
            )
    tollhouse.ok("departments", "move", "crew", "--to", "before", *HERE)

    at = datetime.now(UTC) + timedelta(seconds=8)
    with stopped_housekeepers(fleet), ThreadPoolExecutor(2) as pool:
        tollhouse.ok("departments", "move", "crew", "--to", "after", "--effective", at.isoformat(), *HERE)
        until = at + STALENESS + timedelta(seconds=0.5)
        served = sum(pool.map(lambda target: keep_counting(target, key, until=until), fleet.targets))
        (last, first) = tollhouse.json("departments", "moves", *HERE)

    rows = fleet.first.query("SELECT dispatched_at, worker_epoch, department_path FROM usage_record")
    booked = [(row[0], row[1], tuple(row[2])) for row in rows]
    old, new = ("before", "crew"), ("after", "crew")
    assert len(booked) == served
    assert {path for moment, _, path in booked if moment < at} == {old}
    assert {path for moment, _, path in booked if moment > at + STALENESS} == {new}
    assert len({server for _, server, path in booked if path == new}) == 2
    assert (last["state"], first["state"]) == ("STATE_APPLIED", "STATE_APPLIED")
    paths = Counter(path for _, _, path in booked)
    counted = fleet.first.query(
        "SELECT name, sum(settled) FROM counter JOIN usage_limit USING (limit_id) GROUP BY name"
    )
    expected = {"on-before": paths[old], "on-after": paths[new], "on-crew": served}
    assert {row[0]: int(row[1]) for row in counted if row[0] in expected} == expected


def command_line(fleet: Fleet, directory: Path) -> CommandLine:
    """Return the command line of the platform's administrator at the first server."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": SOURCES,
        "XDG_CONFIG_HOME": str(directory),
        "TOLLHOUSE_ENDPOINT": fleet.first.grpc,
        "TOLLHOUSE_API_KEY": fleet.first.admin_api_key,
    }
    return CommandLine(environment=environment, directory=directory)


@contextmanager
def stopped_housekeepers(fleet: Fleet) -> Iterator[None]:
    """Stop the housekeepers; killed ones would be started again."""
    found = [
        child
        for server in fleet.servers
        for child in psutil.Process(server.process.pid).children()
        if "housekeeper" in child.cmdline()
    ]
    assert len(found) == 2
    for one in found:
        one.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for one in found:
            one.send_signal(signal.SIGCONT)


def keep_counting(target: str, key: str, *, until: datetime) -> int:
    """Have tokens counted, which costs nothing and is booked, one call after the other; return how many were."""
    contents = [content_pb2.Content(role="user", parts=[content_pb2.Part(text="How long is the bridge?")])]
    request = generation_pb2.CountTokensRequest(contents=contents, tier="flash")
    count = 0
    with grpc.insecure_channel(target) as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        while datetime.now(UTC) < until:
            stub.CountTokens(request, metadata=bearer(key), timeout=10)
            count += 1
            time.sleep(0.02)
    return count
