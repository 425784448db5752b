"""What operators see of a running server, and what nobody may see."""

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from tests.drivers.callers import bearer, generation_stub, prompt
from tests.drivers.prometheus import program
from tests.drivers.stack import RunningStack

_CALLS = 12


@pytest.fixture(scope="module")
def used_stack(two_workers: RunningStack) -> RunningStack:
    """A server of two workers that has answered a dozen calls and refused one."""
    stack = two_workers
    for _ in range(_CALLS):
        # A channel each, so that both workers get some.
        with generation_stub(stack) as stub:
            stub.GenerateContent(prompt("Hello"), metadata=bearer(stack.demo_api_key), timeout=20)
    with generation_stub(stack) as stub, pytest.raises(grpc.RpcError):
        stub.GenerateContent(prompt("x", tier="no-such"), metadata=bearer(stack.demo_api_key), timeout=20)
    return stack


def samples(stack: RunningStack) -> dict[str, float]:
    """Return the sum of every sample over its labels."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(fetch(stack.metrics)[1]):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def fetch(url: str) -> tuple[int, str]:
    """Return status and text of a page."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own loopback port
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_metrics_of_all_processes_are_added_up(used_stack: RunningStack) -> None:
    """Calls, latency, tokens, cost, refusals, upstream attempts, ticks, keys and processes are there."""
    found = samples(used_stack)

    assert found["tollhouse_calls_total"] >= _CALLS + 1
    assert found["tollhouse_call_duration_seconds_count"] >= _CALLS + 1
    assert found["tollhouse_tokens_total"] > 0
    assert found["tollhouse_cost_dollars_total"] > 0
    assert found["tollhouse_refusals_total"] >= 1
    assert found["tollhouse_upstream_attempts_total"] >= _CALLS
    assert found["tollhouse_tick_duration_seconds_count"] > 0
    assert found["tollhouse_upstream_keys"] > 0
    assert found["tollhouse_processes"] == len(
        [name for name in used_stack.pids if name.startswith(("worker", "house"))]
    )


def test_leader_and_supervisor_tell_of_money_database_and_processes(used_stack: RunningStack) -> None:
    """The first readings are there soon after the start; every process has memory, and none had to be started again."""
    deadline = time.monotonic() + 20
    while "tollhouse_readings_timestamp_seconds" not in (found := samples(used_stack)):
        assert time.monotonic() < deadline, "nobody leads"
        time.sleep(0.1)

    assert found["tollhouse_budget_amount_dollars"] > 0
    assert found["tollhouse_database_connections"] > 3
    assert found["tollhouse_database_size_bytes"] > 1_000_000
    assert found["tollhouse_process_resident_memory_bytes"] > 100_000_000
    assert found["tollhouse_process_cpu_seconds_total"] > 0
    assert found["tollhouse_process_restarts_total"] == 0
    assert found["tollhouse_added_latency_seconds_count"] >= _CALLS
    assert found["tollhouse_build_info"] == 1


def test_names_and_texts_are_as_promtool_wants_them(used_stack: RunningStack) -> None:
    """Prometheus' own rules for units, suffixes and help texts, on what a server really says."""
    text = fetch(used_stack.metrics)[1]

    checked = subprocess.run(
        [program("promtool"), "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False
    )

    assert (checked.returncode, checked.stderr) == (0, "")


def test_openmetrics_says_the_same_as_the_plain_text(used_stack: RunningStack) -> None:
    """Prometheus asks for it, for the exemplars; its own parser is stricter than that of the plain text."""
    before = samples(used_stack).keys()
    request = urllib.request.Request(used_stack.metrics, headers={"Accept": "application/openmetrics-text"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own loopback port
        text, content_type = answer.read().decode(), answer.headers["Content-Type"]

    families = openmetrics.text_string_to_metric_families(text)  # type: ignore[no-untyped-call]

    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    # Processes that have begun just now have more to tell from one moment to the next.
    assert before <= {sample.name for family in families for sample in family.samples} <= samples(used_stack).keys()


def test_health_and_readiness_answer(used_stack: RunningStack) -> None:
    """A server that serves says so, over HTTP and over gRPC for each service."""
    base = used_stack.metrics.rsplit("/", 1)[0]
    with grpc.insecure_channel(used_stack.grpc) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        statuses = [
            stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5).status
            for service in ("", "tollhouse.v1.GenerationService", "tollhouse.admin.v1.LimitService")
        ]

    assert fetch(f"{base}/healthz") == (200, "ok\n")
    assert fetch(f"{base}/readyz") == (200, "ok\n")
    assert statuses == [health_pb2.HealthCheckResponse.SERVING] * 3


def test_reflection_is_off_unless_set(used_stack: RunningStack) -> None:
    """The list of methods is nobody's business by default."""
    with grpc.insecure_channel(used_stack.grpc) as channel:
        call: Any = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        with pytest.raises(grpc.RpcError) as raised:
            list(call(iter([b""]), timeout=5))

    assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED


def secrets_of(stack: RunningStack) -> dict[str, str]:
    """Return every secret of a running stack that lies in a file of its own, by where it lies."""
    found = {"demo key": stack.demo_api_key, "admin key": stack.admin_api_key}
    found["database password"] = str(urlsplit(str(stack.run["postgres"])).password)
    for path in stack.state_dir.rglob("*"):
        if path.is_file() and path.parent.name == "secrets" and path.suffix != ".json":
            found[path.name] = path.read_text().strip()
        if path.name == "unseal.json":
            unseal = json.loads(path.read_text())
            found |= {f"OpenBao {name}": text for name, value in unseal.items() for text in texts(value)}
        if path.name.endswith(("secret_id", "secret-id")):
            found[f"AppRole {path.parent.name}/{path.name}"] = path.read_text().strip()
    return {where: secret for where, secret in found.items() if len(secret) >= 16}


def texts(value: object) -> Iterator[str]:
    """Yield the strings in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)


def test_no_secret_shows_in_logs_metrics_or_arguments(used_stack: RunningStack) -> None:
    """Keys, passwords and tokens, looked for in everything that people and collectors read."""
    time.sleep(0.5)
    seen = {str(path): path.read_text(errors="replace") for path in (used_stack.state_dir / "logs").glob("*.log")}
    seen["metrics"] = fetch(used_stack.metrics)[1]
    for pid in (used_stack.process.pid, *used_stack.current_pids().values()):
        seen[f"arguments of {pid}"] = " ".join(psutil.Process(pid).cmdline())
    secrets = secrets_of(used_stack)

    leaks = [(where, place) for where, secret in secrets.items() for place, text in seen.items() if secret in text]

    assert len(secrets) >= 6
    assert leaks == []


def test_files_with_secrets_are_closed_to_others(used_stack: RunningStack) -> None:
    """run.json and everything in the state directory that holds a secret have mode 0600."""
    secrets = tuple(secrets_of(used_stack).values())
    files = [path for path in used_stack.state_dir.rglob("*") if path.is_file() and holds(path, secrets)]

    assert used_stack.state_dir / "run.json" in files
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o600"}


def holds(path: Path, secrets: tuple[str, ...]) -> bool:
    """Tell whether a small file has one of the secrets in it."""
    if path.stat().st_size > 1_000_000:
        return False
    text = path.read_bytes().decode(errors="replace")
    return any(secret in text for secret in secrets)
