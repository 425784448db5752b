"""`tollhouse-server run` from its first line to its last: start, stop, kill, start again."""

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import psutil
import pytest
from tollhouse.v1 import generation_pb2 as g
from tollhouse_server.embedded.postgres import EmbeddedPostgres, PostgresConfig
from tollhouse_server.simulator.client import SimulatorClient

from tests.drivers.callers import bearer, generation_stub, prompt, text_of
from tests.drivers.forks import Forks
from tests.drivers.load import Caller, callers
from tests.drivers.places import servers_place
from tests.drivers.postgres import complete
from tests.drivers.stack import RunningStack, stack_environment, start_stack

PORTS = {
    "TOLLHOUSE_GRPC_PORT": "gRPC",
    "TOLLHOUSE_METRICS_PORT": "the metrics",
    "TOLLHOUSE_SIMULATOR_PORT": "Gemini simulator",
    "TOLLHOUSE_POSTGRES_PORT": "PostgreSQL",
    "TOLLHOUSE_VAULT_PORT": "OpenBao",
}
WRONG_SETTINGS = {
    "TOLLHOUSE_WORKER": "4",
    "TOLLHOUSE_WORKERS": "0",
    "TOLLHOUSE_LOG_LEVEL": "loud",
}
CALLS_UNDER_WAY = 24


class Installation:
    """One state directory on fixed ports, and the server that runs on it, if one does."""

    def __init__(self, directory: Path) -> None:
        self.environment = stack_environment(directory / "state", transport="auto")
        self._stack: RunningStack | None = None

    def running(self) -> RunningStack:
        """Return the running server, started now if there is none."""
        if self._stack is None or self._stack.process.poll() is not None:
            self._stack = start_stack(self.environment)
            self._stack.wait_until_ready()
        return self._stack

    def end(self) -> None:
        """End it if it runs."""
        if self._stack is not None:
            self._stack.end()


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    """An installation that the tests of this module stop, kill and start; each starts it if it is down."""
    with servers_place("stack") as directory:
        installation = Installation(directory)
        try:
            yield installation
        finally:
            installation.end()


def test_ctrl_c_stops_everything_and_the_next_run_has_the_data(installation: Installation) -> None:
    """Exit status 0, no process left; the same keys and the records of before in the next run."""
    before = installation.running()
    answer_call(before, "before Ctrl-C")
    processes = processes_of(before)

    stopped_at = before.query("SELECT now() AS now")[0]["now"]
    status = before.stop(signal.SIGINT)
    left = [process for process in processes if lives(process)]
    after = installation.running()

    assert status == 0
    assert left == []
    assert {process.pid for process in processes} > set(before.pids.values())
    assert keys_of(after) == keys_of(before)
    assert after.records_labelled("case", "before Ctrl-C") == ["SETTLED"]
    # Each worker said in its last report that others may have its share of accounts' limits.
    last = "SELECT count(*) AS count FROM process_report WHERE reported_at > $1 AND sections ? 'leaves'"
    assert after.query(last, stopped_at)[0]["count"] == 2


def test_a_run_after_kill_9_has_the_data(installation: Installation) -> None:
    """All processes at once, as a power cut does; test_kill_workers.py kills the supervisor alone."""
    before = installation.running()
    answer_call(before, "before the kill")
    processes = processes_of(before)

    for process in processes:
        kill(process)
    before.process.wait()
    after = installation.running()
    answer_call(after, "after the kill")

    assert not [process for process in processes if lives(process)]
    assert keys_of(after) == keys_of(before)
    assert after.records_labelled("case", "before the kill") == ["SETTLED"]
    assert after.records_labelled("case", "after the kill") == ["SETTLED"]


def test_a_server_is_ready_as_long_as_one_of_its_workers_is(installation: Installation) -> None:
    """What is missing is said either way."""
    stack = installation.running()
    first, second = (psutil.Process(stack.current_pids()[name]) for name in ("worker-1", "worker-2"))

    kill(first)
    with_one = readiness(stack, lambda _, text: "worker" in text)
    kill(second)
    with_none = readiness(stack, lambda status, _: status != 200)
    again = readiness(stack, lambda _, text: text == "ok\n")

    assert with_one == (200, "ok\nworker-1 is not running\n")
    assert with_none == (503, "no worker is running\n")
    assert again == (200, "ok\n")


def test_it_says_where_everything_is_and_writes_the_same_for_programs(installation: Installation) -> None:
    """The banner for people; run.json, closed to others, for programs."""
    stack = installation.running()
    banner = stack.output.read_text()
    file = stack.state_dir / "run.json"

    written = json.loads(file.read_text())

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert set(written) == {
        *("grpc", "metrics", "simulator", "postgres", "vault", "demo_api_key", "admin_api_key", "pids")
    }
    assert set(written["pids"]) == {"postgres", "openbao", "simulator", "worker-1", "worker-2", "housekeeper"}
    assert all(psutil.pid_exists(pid) for pid in written["pids"].values())
    shown = ("grpc", "metrics", "simulator", "vault", "demo_api_key", "admin_api_key")
    assert [name for name in shown if written[name] not in banner] == []
    assert "tollhouse generate" in banner
    assert "tollhouse limits list" in banner
    assert "tollhouse report month" in banner


def test_a_second_run_on_the_same_state_directory_is_refused(installation: Installation, server_forks: Forks) -> None:
    """It names the process that holds the directory, even though its ports are taken too."""
    stack = installation.running()

    (refused,) = outcomes(server_forks, installation.environment)

    assert refused.returncode == 1
    assert refused.stderr == (
        f"tollhouse-server: Process {stack.process.pid} already runs Tollhouse on {stack.state_dir}; "
        f"stop it (kill {stack.process.pid}) or choose another state directory.\n"
    )
    answer_call(stack, "the first one goes on")


@pytest.mark.parametrize("role", ["worker-1", "housekeeper", "simulator"])
def test_a_killed_process_is_replaced_and_the_service_goes_on(installation: Installation, role: str) -> None:
    """A new process does its work, and run.json names it."""
    stack = installation.running()
    run_file = stack.state_dir / "run.json"
    old = json.loads(run_file.read_text())["pids"]

    os.kill(old[role], signal.SIGKILL)
    eventually(lambda: json.loads(run_file.read_text())["pids"][role] != old[role])
    # Retried, as any client does whose connection broke: the server that took its place may still be starting.
    eventually(lambda: is_answered(stack, f"{role} was killed"))

    new = json.loads(run_file.read_text())["pids"]
    assert {name for name in old if old[name] != new[name]} == {role}
    assert stack.process.poll() is None
    assert "SETTLED" in stack.records_labelled("case", f"{role} was killed")


def test_a_server_whose_fork_server_was_killed_goes_on_with_new_processes(installation: Installation) -> None:
    """Those that it had forked drain and end, and others are forked from another one."""
    stack = installation.running()
    (fork_server,) = stack.processes("fork-server")
    old = [stack.current_pids()[role] for role in ("worker-1", "worker-2", "housekeeper")]

    kill(fork_server)
    eventually(lambda: not {*old} & {*stack.current_pids().values()})
    eventually(lambda: is_answered(stack, "the fork server was killed"))

    assert [psutil.pid_exists(pid) for pid in old] == [False, False, False]
    assert len(stack.processes("fork-server")) == 1
    assert stack.process.poll() is None


def test_sigterm_lets_calls_under_way_end_and_books_each_of_them(installation: Installation) -> None:
    """Every call that was accepted is answered; one that comes later is refused and not booked."""
    stack = installation.running()
    processes = processes_of(stack)

    ends = asyncio.run(calls_through_sigterm(stack))
    status = stack.process.wait(30)
    left = [process for process in processes if lives(process)]
    with books_of(stack) as after:
        assert status == 0
        assert left == []
        assert_all_under_way_were_booked(ends, after)


def assert_all_under_way_were_booked(ends: Mapping[str, list[str]], after: RunningStack) -> None:
    """Each call that was accepted is answered and settled, and nothing is held for any."""
    assert ends["under way"] == ["OK"] * CALLS_UNDER_WAY
    assert set(ends["late"]) == {"UNAVAILABLE"}
    assert after.records_labelled("case", "under way") == ["SETTLED"] * CALLS_UNDER_WAY
    assert after.records_labelled("case", "late") == []
    assert after.query("SELECT attempt_id FROM attempt") == []
    assert after.query("SELECT held FROM counter WHERE held <> 0") == []


@contextmanager
def books_of(stopped: RunningStack) -> Iterator[RunningStack]:
    """Let the books of a server that has ended be read: its PostgreSQL alone runs."""
    state = stopped.state_dir
    server = EmbeddedPostgres(
        PostgresConfig(
            directory=state / "postgres", secrets_directory=state / "secrets", log_path=state / "logs" / "postgres.log"
        )
    )
    endpoint = complete(server.start())
    try:
        yield replace(stopped, run={**stopped.run, "postgres": endpoint.dsn()})
    finally:
        complete(server.stop())


async def calls_through_sigterm(stack: RunningStack) -> dict[str, list[str]]:
    """Send SIGTERM while slow calls are under way; return the status of each of them, and of calls made after it."""
    async with callers(stack, stack.demo_api_key, 8) as callers_, SimulatorClient(stack.simulator) as simulator:
        await simulator.set_pace(latency_ms=1000)
        served_before = await simulator.count_calls()
        sent = [
            asyncio.create_task(end_of(callers_[number % 8], "under way", streams=number % 2 == 0))
            for number in range(CALLS_UNDER_WAY)
        ]
        async with asyncio.timeout(20):
            while await simulator.count_calls() < served_before + CALLS_UNDER_WAY:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.02)
        stack.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            while b"Stopping" not in stack.output.read_bytes():  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.02)
        ends = await asyncio.gather(*(ends_of_late_calls(caller) for caller in callers_))
        return {"under way": list(await asyncio.gather(*sent)), "late": [end for both in ends for end in both]}


async def ends_of_late_calls(caller: Caller) -> list[str]:
    """Return the status of the first call that this connection's worker refuses because it stops, and of one more.

    It hears of the end a moment after "Stopping" was said; until then it finds fault with an empty request.
    """
    first = "INVALID_ARGUMENT"
    async with asyncio.timeout(20):
        while first == "INVALID_ARGUMENT":
            first = await end_of(caller, "", streams=False)
    return [first, await end_of(caller, "late", streams=False)]


async def end_of(caller: Caller, label: str, *, streams: bool) -> str:
    """Make a call, an empty one if it has no label, and return its status."""
    request = prompt("Hello", labels={"case": label}) if label else g.GenerateContentRequest()
    try:
        await (caller.streamed(request) if streams else caller.unary(request))
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


def test_a_port_in_use_is_one_line_that_names_port_and_setting(stack_directory: Path, server_forks: Forks) -> None:
    """Each of the five ports."""
    with ExitStack() as listeners:
        taken = {setting: listeners.enter_context(socket.create_server(("127.0.0.1", 0))) for setting in PORTS}
        ports = {setting: listener.getsockname()[1] for setting, listener in taken.items()}
        environments = [
            stack_environment(stack_directory / setting.lower()) | {setting: str(port)}
            for setting, port in ports.items()
        ]

        ended = outcomes(server_forks, *environments)

    assert [one.returncode for one in ended] == [1] * len(PORTS)
    assert {setting: one.stderr for setting, one in zip(PORTS, ended, strict=True)} == {
        setting: f"tollhouse-server: Port {ports[setting]}, needed for {purpose}, is in use; "
        f"set {setting} to a free port or stop that program.\n"
        for setting, purpose in PORTS.items()
    }


def test_a_wrong_setting_is_one_line_that_names_it(stack_directory: Path, server_forks: Forks) -> None:
    """An unknown variable, a number out of range, a word that is none of the choices."""
    environment = stack_environment(stack_directory / "state")

    ended = outcomes(server_forks, *({**environment, setting: value} for setting, value in WRONG_SETTINGS.items()))

    assert [one.returncode for one in ended] == [2] * len(WRONG_SETTINGS)
    assert [one.stderr.count("\n") for one in ended] == [1] * len(WRONG_SETTINGS)
    starts = [f"tollhouse-server: Invalid request: {setting}: " for setting in WRONG_SETTINGS]
    assert [one.stderr[: len(start)] for one, start in zip(ended, starts, strict=True)] == starts
    assert not (stack_directory / "state").exists()


def outcomes(forks: Forks, *environments: Mapping[str, str]) -> list["subprocess.CompletedProcess[str]"]:
    """Run the server in each environment and return how each run ended."""
    return [forks.run(["run"], environment=environment, directory=Path.cwd()) for environment in environments]


def answer_call(stack: RunningStack, label: str) -> None:
    """Make a call that must be answered."""
    with generation_stub(stack) as stub:
        request = prompt("Hello", labels={"case": label})
        answer = stub.GenerateContent(request, metadata=bearer(stack.demo_api_key), timeout=20, wait_for_ready=True)
    assert text_of(answer)


def is_answered(stack: RunningStack, label: str) -> bool:
    """Make a call and tell whether it was answered."""
    try:
        answer_call(stack, label)
    except grpc.RpcError:
        return False
    return True


def keys_of(stack: RunningStack) -> tuple[str, str]:
    """Return the two keys that the banner shows."""
    return stack.demo_api_key, stack.admin_api_key


def processes_of(stack: RunningStack) -> list[psutil.Process]:
    """Return the supervisor and every process below it."""
    supervisor = psutil.Process(stack.process.pid)
    return [supervisor, *supervisor.children(recursive=True)]


def lives(process: psutil.Process) -> bool:
    """Tell whether it still runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill(process: psutil.Process) -> None:
    """Send SIGKILL, unless another one's death has ended it already."""
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def eventually(condition: Callable[[], bool], *, seconds: float = 30.0) -> None:
    """Wait until something has come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def readiness(stack: RunningStack, is_so: Callable[[int, str], bool]) -> tuple[int, str]:
    """Return what the metrics port says of readiness as soon as something is so."""
    ends_at = time.monotonic() + 60
    while True:
        status, text = told(stack.metrics.rsplit("/", 1)[0] + "/readyz")
        if is_so(status, text):
            return status, text
        assert time.monotonic() < ends_at, f"still {status} {text}"
        time.sleep(0.01)


def told(url: str) -> tuple[int, str]:
    """Return the status and the text of a page, whichever status it is."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own loopback port
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
