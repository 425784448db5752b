"""What happens when a part is not there: at the start, and under a server that runs."""

import asyncio
import json
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from tollhouse.admin.v1 import limits_pb2, prices_pb2, prices_pb2_grpc, upstream_keys_pb2, upstream_keys_pb2_grpc
from tollhouse.v1 import content_pb2, generation_pb2_grpc
from tollhouse.v1 import generation_pb2 as g
from tollhouse_server.simulator.client import SimulatorClient

from tests.drivers.administration import administration
from tests.drivers.callers import bearer, details_of, generation_stub, prompt, reason_of, text_of
from tests.drivers.command_line import administrators
from tests.drivers.deployment import ACCOUNT, UPSTREAM_KEY, Deployment, Parts, running_deployment, running_parts
from tests.drivers.forks import Forks
from tests.drivers.places import servers_place
from tests.drivers.stack import RunningStack

CONNECTIONS = 16
STALENESS = timedelta(seconds=2)


@pytest.fixture(scope="module")
def parts(server_forks: Forks) -> Iterator[Parts]:
    """PostgreSQL, OpenBao and the simulator."""
    with servers_place("parts") as directory, running_parts(directory, server_forks) as running:
        yield running


@pytest.fixture(scope="module")
def deployment(parts: Parts) -> Iterator[Deployment]:
    """A gateway that serves on the parts, with every worker: one that has no key yet can get none without Vault."""
    with running_deployment(parts) as running:
        every_worker_serves(running.gateway)
        yield running


def call(gateway: RunningStack, *, seconds: float = 10, **fields: Any) -> g.GenerateContentResponse:
    """Make one unary call as the demo's caller."""
    with generation_stub(gateway) as stub:
        request = prompt("Hello", **fields)
        answer: g.GenerateContentResponse = stub.GenerateContent(
            request, metadata=bearer(gateway.demo_api_key), timeout=seconds
        )
        return answer


def refusal_of(attempt: Callable[[], object]) -> grpc.RpcError:
    """Return the error of a call that must fail."""
    with pytest.raises(grpc.RpcError) as raised:
        attempt()
    return raised.value


def eventually(attempt: Callable[[], object], seconds: float = 15) -> None:
    """Repeat a call until it works; fail when it still does not in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(grpc.RpcError):
            attempt()
            return
        time.sleep(0.2)
    attempt()


def every_worker_serves(gateway: RunningStack) -> None:
    """Wait until so many connections in a row are served that none of the workers can be without a key."""
    eventually(lambda: [call(gateway) for _ in range(12)], seconds=60)


# --- at the start -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"postgres_dsn": "postgresql://tollhouse_app:x@127.0.0.1:9/tollhouse"}, 1, "database is not available"),
        ({"vault_address": "http://127.0.0.1:9"}, 1, "Vault is not available"),
        ({"postgres_dsn": None}, 1, "TOLLHOUSE_POSTGRES_DSN"),
        ({"vault_role_id_file": None}, 1, "TOLLHOUSE_VAULT_ROLE_ID_FILE"),
        ({"workers": "many"}, 2, "TOLLHOUSE_WORKERS"),
    ],
)
def test_serve_says_in_one_line_what_is_missing(
    parts: Parts, change: dict[str, str | None], status: int, words: str
) -> None:
    """PostgreSQL down, Vault down, a setting absent or wrong: one line, an exit status, no traceback."""
    ended = parts.command("serve", **change)

    last = ended.stderr.strip().splitlines()[-1]
    assert ended.returncode == status, ended.stderr
    assert last.startswith("tollhouse-server: ")
    assert words in last
    assert "Traceback" not in ended.stderr


def test_serve_with_a_wrong_database_password_says_so(parts: Parts) -> None:
    """Not a timeout, not a traceback, and the password is not repeated."""
    right = parts.environment["TOLLHOUSE_POSTGRES_DSN"]
    user, _, host = right.rpartition("@")
    wrong = f"{user.rsplit(':', 1)[0]}:canary-password@{host}"

    ended = parts.command("serve", postgres_dsn=wrong)

    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "canary-password" not in ended.stderr


# --- under a running server -------------------------------------------------------------------------------------------


def test_without_postgresql_nothing_is_dispatched_and_service_comes_back_by_itself(deployment: Deployment) -> None:
    """UNAVAILABLE within the deadline, no call reaches the upstream, and no restart is needed afterwards."""
    gateway, parts = deployment.gateway, deployment.parts
    call(gateway)
    served = asyncio.run(served_calls(gateway))

    parts.stop_postgres()
    started_at = time.monotonic()
    error = refusal_of(lambda: call(gateway, seconds=4))
    seconds = time.monotonic() - started_at
    parts.start_postgres()
    eventually(lambda: call(gateway, seconds=4))

    assert error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
    assert seconds < 6
    assert asyncio.run(served_calls(gateway)) == served + 1


async def served_calls(gateway: RunningStack) -> int:
    """Return how many calls the simulator has served."""
    async with SimulatorClient(gateway.simulator) as simulator:
        return await simulator.count_calls()


def test_without_vault_calls_go_on_and_a_new_key_is_refused(deployment: Deployment) -> None:
    """Keys already held keep serving; what needs Vault says that it is away."""
    gateway, parts = deployment.gateway, deployment.parts
    call(gateway)

    parts.stop_openbao()
    answers = [text_of(call(gateway)) for _ in range(5)]
    error = refusal_of(lambda: add_upstream_key(gateway, "second"))
    parts.start_openbao()
    eventually(lambda: add_upstream_key(gateway, "second"), seconds=30)

    assert all(answers)
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert reason_of(error) == "VAULT_UNAVAILABLE"


def add_upstream_key(gateway: RunningStack, key_id: str) -> None:
    """Add a key to the account, as the administrator."""
    with grpc.insecure_channel(gateway.grpc) as channel:
        upstream_keys_pb2_grpc.UpstreamKeyServiceStub(channel).AddUpstreamKey(
            upstream_keys_pb2.AddUpstreamKeyRequest(
                parent=ACCOUNT, upstream_key_id=key_id, secret=f"simulator-key-{key_id}"
            ),
            metadata=bearer(gateway.admin_api_key),
            timeout=15,
        )


@pytest.mark.parametrize(("part", "failed"), [("openbao", ["vault.reachable"]), ("postgres", ["postgres.reachable"])])
def test_doctor_names_the_part_that_is_away_and_what_to_type(
    deployment: Deployment, tmp_path: Path, part: str, failed: list[str]
) -> None:
    """In one line, while what needs the part is left out; the host's own command says the same."""
    doctor = administrators(deployment.gateway, tmp_path)

    getattr(deployment.parts, f"stop_{part}")()
    try:
        found = {one["name"]: one for one in json.loads(doctor("doctor", "-o", "json").stdout)["checks"]}
        on_host = deployment.parts.command("doctor")
    finally:
        getattr(deployment.parts, f"start_{part}")()
        eventually(lambda: call(deployment.gateway, seconds=4))

    wrong = [name for name, one in found.items() if one["outcome"] == "failure"]
    assert wrong == failed
    assert "tollhouse-server doctor" in found[failed[0]]["advice"] or "TOLLHOUSE_VAULT" in found[failed[0]]["advice"]
    assert on_host.returncode == 1
    assert f"checks failed: {failed[0]}" in on_host.stderr
    assert "Traceback" not in on_host.stderr


def test_without_an_upstream_key_nothing_is_booked(deployment: Deployment) -> None:
    """A disabled key is out of use on every worker, and the refusal says what to do."""
    gateway = deployment.gateway
    before = gateway.query("SELECT count(*) FROM usage_record")[0][0]
    with suppress(grpc.RpcError):
        switch_key(gateway, f"{ACCOUNT}/upstreamKeys/second", on=False)

    switch_key(gateway, UPSTREAM_KEY, on=False)
    time.sleep(1.5)
    error = refusal_of(lambda: call(gateway))
    switch_key(gateway, UPSTREAM_KEY, on=True)
    booked = gateway.query("SELECT count(*) FROM usage_record")[0][0] - before
    every_worker_serves(gateway)

    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert reason_of(error) == "NO_UPSTREAM_KEY"
    assert booked == 0


def switch_key(gateway: RunningStack, name: str, *, on: bool) -> None:
    """Enable or disable an upstream key."""
    with grpc.insecure_channel(gateway.grpc) as channel:
        stub = upstream_keys_pb2_grpc.UpstreamKeyServiceStub(channel)
        metadata = bearer(gateway.admin_api_key)
        if on:
            stub.EnableUpstreamKey(upstream_keys_pb2.EnableUpstreamKeyRequest(name=name), metadata=metadata)
        else:
            stub.DisableUpstreamKey(upstream_keys_pb2.DisableUpstreamKeyRequest(name=name), metadata=metadata)


@pytest.mark.parametrize(
    ("kind", "reason", "record"),
    [
        ("429", "UPSTREAM_EXHAUSTED", "REFUSED"),
        ("500", "UPSTREAM_UNAVAILABLE", "REFUSED"),
        ("503", "UPSTREAM_UNAVAILABLE", "REFUSED"),
        ("reset", "UPSTREAM_OUTCOME_UNKNOWN", "SUSPENSE"),
        ("garbage", "UPSTREAM_OUTCOME_UNKNOWN", "SUSPENSE"),
        ("truncate", "UPSTREAM_OUTCOME_UNKNOWN", "SUSPENSE"),
    ],
)
def test_an_upstream_fault_is_booked_as_what_it_is(deployment: Deployment, kind: str, reason: str, record: str) -> None:
    """Known to be free: REFUSED at zero. Perhaps charged: SUSPENSE at the ceiling. Nothing stays held."""
    gateway = deployment.gateway
    asyncio.run(add_fault(gateway, kind))
    request = prompt("Hello", model="gemini-3.5-flash", labels={"case": kind})

    error = refusal_of(lambda: stream_or_call(gateway, request, streamed=kind == "truncate"))
    asyncio.run(clear_faults(gateway))

    rows = gateway.query("SELECT kind, cost_nanos FROM usage_record WHERE labels ->> 'case' = $1", kind)
    assert reason_of(error) == reason
    assert {row["kind"] for row in rows} == {record}
    assert all((row["cost_nanos"] > 0) is (record == "SUSPENSE") for row in rows)
    assert gateway.query("SELECT coalesce(sum(held), 0) FROM counter")[0][0] == 0
    assert ("RetryInfo" in details_of(error)) is (kind == "429")


def stream_or_call(gateway: RunningStack, request: g.GenerateContentRequest, *, streamed: bool) -> None:
    """Make the call and read it to its end."""
    with generation_stub(gateway) as stub:
        metadata = bearer(gateway.demo_api_key)
        if streamed:
            list(stub.StreamGenerateContent(request, metadata=metadata, timeout=10))
        else:
            stub.GenerateContent(request, metadata=metadata, timeout=10)


async def add_fault(gateway: RunningStack, kind: str) -> None:
    """Have every call to the simulator end in a fault."""
    settings: dict[str, Any] = {"after_chunks": 1} if kind == "truncate" else {}
    async with SimulatorClient(gateway.simulator) as simulator:
        await simulator.add_fault(kind, **settings)


async def clear_faults(gateway: RunningStack) -> None:
    """Let the simulator serve again."""
    async with SimulatorClient(gateway.simulator) as simulator:
        await simulator.clear_faults()


def test_without_a_housekeeper_every_worker_counts_by_the_date_of_a_move(
    deployment: Deployment, tmp_path: Path, tollhouse_forks: Forks
) -> None:
    """Never before the moment, within two seconds of it on both; the limits of both sides agree with the records."""
    gateway, here = deployment.gateway, ("--tenant", "demo")
    tollhouse = administrators(gateway, tmp_path, tollhouse_forks)
    for name in ("before", "after"):
        tollhouse.ok("departments", "create", name, *here)
    with administration(gateway) as admin:
        key = admin.add_department("crew")
        for name in ("before", "after", "crew"):
            scope, amount = f"tenants/demo/departments/{name}", limits_pb2.LimitAmount(units=10**6)
            metric, window = limits_pb2.LIMIT_METRIC_REQUESTS, limits_pb2.LIMIT_WINDOW_TOTAL
            admin.add_limit(f"on-{name}", scope, metric, window, amount)
    tollhouse.ok("departments", "move", "crew", "--to", "before", *here)

    with stopped_housekeeper(gateway):
        at = datetime.now(UTC) + timedelta(seconds=4)
        tollhouse.ok("departments", "move", "crew", "--to", "after", "--effective", at.isoformat(), *here)
        served = keep_counting(gateway, key, until=at + STALENESS + timedelta(seconds=0.5))
        (last, first) = tollhouse.json("departments", "moves", *here)

    question = (
        "SELECT dispatched_at, worker_epoch, department_path FROM usage_record WHERE 'crew' = ANY(department_path)"
    )
    booked = [(row[0], row[1], tuple(row[2])) for row in gateway.query(question)]
    old, new = ("before", "crew"), ("after", "crew")
    assert len(booked) == served
    assert {path for moment, _, path in booked if moment < at} == {old}
    assert {path for moment, _, path in booked if moment > at + STALENESS} == {new}
    assert len({worker for _, worker, path in booked if path == new}) == 2
    assert (last["state"], first["state"]) == ("STATE_APPLIED", "STATE_APPLIED")
    paths = Counter(path for _, _, path in booked)
    counted = gateway.query("SELECT name, sum(settled) FROM counter JOIN usage_limit USING (limit_id) GROUP BY name")
    expected = {"on-before": paths[old], "on-after": paths[new], "on-crew": served}
    assert {row[0]: int(row[1]) for row in counted if row[0] in expected} == expected


@contextmanager
def stopped_housekeeper(gateway: RunningStack) -> Iterator[None]:
    """Stop the housekeeper; a killed one would be started again."""
    (found,) = gateway.processes("housekeeper")
    found.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        found.send_signal(signal.SIGCONT)


def keep_counting(gateway: RunningStack, key: str, *, until: datetime) -> int:
    """Have tokens counted, which costs nothing and is booked, one call after the other; return how many were.

    Over so many connections in turn that each worker has some of them.
    """
    contents = [content_pb2.Content(role="user", parts=[content_pb2.Part(text="How long is the bridge?")])]
    request = g.CountTokensRequest(contents=contents, tier="flash")
    count = 0
    with ExitStack() as opened:
        own = [("grpc.use_local_subchannel_pool", 1)]
        channels = [opened.enter_context(grpc.insecure_channel(gateway.grpc, own)) for _ in range(CONNECTIONS)]
        stubs: list[Any] = [generation_pb2_grpc.GenerationServiceStub(channel) for channel in channels]
        while datetime.now(UTC) < until:
            stubs[count % CONNECTIONS].CountTokens(request, metadata=bearer(key), timeout=10)
            count += 1
            time.sleep(0.02)
    return count


# --- refused changes --------------------------------------------------------------------------------------------------

_WRONG_PRICES = {
    "not a number": 'input = "cheap"',
    "negative": 'input = "-1"',
    "huge": 'input = "1e30"',
    "blank": 'input = ""',
    "unknown key": 'inputs = "1"',
}


@pytest.mark.parametrize("case", _WRONG_PRICES)
def test_a_wrong_price_file_is_refused_with_the_field_named(deployment: Deployment, case: str) -> None:
    """The last good price book stays in force."""
    gateway = deployment.gateway
    line = _WRONG_PRICES[case]
    content = f'[[prices]]\nmodel = "gemini-3.5-flash"\neffective_from = 2026-12-01\nsource = "test"\n{line}\n'
    version = gateway.query("SELECT max(version) FROM price_book_version")[0][0]

    error = refusal_of(lambda: import_prices(gateway, content))

    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(error) == "PRICE_FILE_INVALID"
    assert line.split(" ")[0] in str(details_of(error)["BadRequest"])
    assert gateway.query("SELECT max(version) FROM price_book_version")[0][0] == version


def import_prices(gateway: RunningStack, content: str) -> None:
    """Import a TOML price file as the administrator."""
    request = prices_pb2.ImportPricesRequest(content=content, format=prices_pb2.PRICE_FILE_FORMAT_TOML)
    with grpc.insecure_channel(gateway.grpc) as channel:
        prices_pb2_grpc.PriceServiceStub(channel).ImportPrices(
            request, metadata=bearer(gateway.admin_api_key), timeout=10
        )
