"""A real Prometheus that scrapes what a test serves, and `promtool`: Debian's, as `make prometheus` fetches it."""

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.drivers.sources import ROOT
from tests.drivers.stack import free_ports

_FETCHED = ROOT / ".prometheus" / "usr" / "bin"
_READY_SECONDS = 30.0
_STOP_SECONDS = 20.0


def program(name: str) -> Path:
    """Return where `prometheus` or `promtool` lies; skip the test where it is missing."""
    found = shutil.which(name) or shutil.which(name, path=_FETCHED)
    if found is None:
        pytest.skip(f"there is no {name} here: `make prometheus` fetches Debian's")
    return Path(found)


def promtool(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run promtool to its end."""
    command = [program("promtool"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@dataclass(frozen=True, slots=True)
class Sample:
    """One element of the answer to an instant query."""

    labels: Mapping[str, str]
    value: float


@dataclass(slots=True)
class RunningPrometheus:
    """A Prometheus that scrapes; its API is at `url`."""

    process: "subprocess.Popen[bytes]"
    url: str
    output: Path

    def query(self, expression: str) -> list[Sample]:
        """Return what an expression gives now, NaN included; raise ValueError where Prometheus refuses it."""
        result = self._get("query", query=expression)
        if result["resultType"] in {"scalar", "string"}:
            return [Sample({}, float(result["result"][1]))]
        return [Sample(one["metric"], float(one["value"][1])) for one in result["result"]]

    def alerts(self) -> set[str]:
        """Return the names of the alerts that fire now."""
        found = self._get("alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in found if alert["state"] == "firing"}

    def rules(self) -> list[Mapping[str, Any]]:
        """Return every rule that is loaded, with its health and last error."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def targets(self) -> list[Mapping[str, Any]]:
        """Return the targets with their health and last error."""
        found: list[Mapping[str, Any]] = self._get("targets")["activeTargets"]
        return found

    def wait_until(self, expression: str, *, seconds: float) -> list[Sample]:
        """Repeat a query until it gives something, and return that; fail when it does not in time."""
        deadline = time.monotonic() + seconds
        while not (found := self.query(expression)):
            assert time.monotonic() < deadline, f"after {seconds} s there is still nothing: {expression}"
            time.sleep(0.25)
        return found

    def _get(self, what: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters).encode() or None
        request = urllib.request.Request(f"{self.url}/api/v1/{what}", data=query)  # noqa: S310 - our own loopback port
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - the same
                return json.loads(answer.read())["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(error.read().decode()) from error


@contextmanager
def running_prometheus(
    directory: Path,
    addresses: Sequence[str],
    *,
    rule_files: Sequence[Path] = (),
    interval_seconds: int = 1,
    environment: str = "test",
) -> Iterator[RunningPrometheus]:
    """Scrape the addresses (host:port) as job `tollhouse` until the block is left; what it stores is in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    interval = f"{interval_seconds}s"
    targets = {"targets": list(addresses), "labels": {"environment": environment}}
    config = {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "rule_files": [str(path) for path in rule_files],
        "scrape_configs": [{"job_name": "tollhouse", "static_configs": [targets]}],
    }
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (port,) = free_ports(1)
    running = _started(directory, port)
    try:
        _wait_until_ready(running)
        yield running
    finally:
        running.process.terminate()
        try:
            running.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            running.process.kill()
            running.process.wait()


def _started(directory: Path, port: int) -> RunningPrometheus:
    output = directory / "prometheus.out"
    command = [
        str(program("prometheus")),
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'series'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with output.open("wb") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
    return RunningPrometheus(process=process, url=f"http://127.0.0.1:{port}", output=output)


def _wait_until_ready(running: RunningPrometheus) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline and running.process.poll() is None:
        try:
            with urllib.request.urlopen(f"{running.url}/-/ready", timeout=5):  # noqa: S310 - our own loopback port
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"Prometheus did not start:\n{running.output.read_text()}")
