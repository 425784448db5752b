"""What the faults happen to: PostgreSQL, OpenBao, simulator, and workers that a test drives boundary by boundary."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
from tollhouse.admin.v1 import limits_pb2 as limits
from tollhouse_server.embedded.postgres_roles import ROOT
from tollhouse_server.simulator.client import SimulatorClient

from tests.drivers.administration import administration, dollars
from tests.drivers.deployment import Parts, as_run_file, prepared, running_parts, set_up
from tests.drivers.forks import Forks
from tests.drivers.places import servers_place
from tests.drivers.referee import Finding, Referee
from tests.drivers.stack import RunningStack
from tests.faults import neighbour

DEAD_AFTER_SECONDS = 1.0
SETTINGS = {
    "TOLLHOUSE_WORKER_DEAD_AFTER_SECONDS": str(DEAD_AFTER_SECONDS),
    "TOLLHOUSE_DRAIN_SECONDS": "1",
    "TOLLHOUSE_WORKERS": "1",
    "TOLLHOUSE_STREAM_STEP_TOKENS": "256",
}
_READY_SECONDS = 60.0
_QUIET_SECONDS = 30.0
TENANT = "tenants/demo"


@dataclass(slots=True)
class Driven:
    """A worker or housekeeper with gates in it. `struck` is set when its trap has sprung, `ended` when it is gone."""

    role: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    pid: int = 0
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    struck: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    last_passed: Mapping[str, int] = field(default_factory=dict)
    """What it had passed when it ended by itself."""

    _replies: asyncio.Queue[Mapping[str, Any]] = field(default_factory=asyncio.Queue)

    async def listen(self) -> None:
        """Take in what the process says, until it ends."""
        with suppress(ConnectionError):
            async for line in self.reader:
                message = json.loads(line)
                match message["event"]:
                    case "ready":
                        self.pid = message["pid"]
                        self.ready.set()
                    case "struck":
                        self.struck.set()
                    case "bye":
                        self.last_passed = message["passed"]
                    case _:
                        self._replies.put_nowait(message)
        self.writer.close()
        self.ended.set()

    async def arm(self, *, name: str, side: str, hit: int, fault: str) -> None:
        """Set the trap: the fault strikes at the `hit`-th passing of that side of the boundary, counted from now."""
        self.struck.clear()
        await self._command(do="arm", trap={"name": name, "side": side, "hit": hit, "fault": fault})

    async def disarm(self) -> None:
        """Take the trap away."""
        if not self.ended.is_set():
            await self._command(do="disarm")

    async def passed(self) -> Mapping[str, int]:
        """Return how often each side of each boundary was passed since this was last asked."""
        if self.ended.is_set():
            return self.last_passed
        passed: Mapping[str, int] = (await self._command(do="report"))["passed"]
        return passed

    async def _command(self, **command: Any) -> Mapping[str, Any]:
        with suppress(ConnectionError):
            self.writer.write(json.dumps(command).encode() + b"\n")
        reply, ended = asyncio.ensure_future(self._replies.get()), asyncio.ensure_future(self.ended.wait())
        _, late = await asyncio.wait((reply, ended), timeout=10, return_when=asyncio.FIRST_COMPLETED)
        for waiting in late:
            waiting.cancel()
        return reply.result() if reply.done() else {"passed": {}}

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


@dataclass(slots=True)
class Rig:
    """A deployment whose server processes are started one by one.

    `poor_key` is of a department whose budget is used up, `tight_key` of one with as much as a test leaves,
    `neighbour_key` of another company (`neighbour.py`).
    """

    parts: Parts
    stack: RunningStack
    environment: Mapping[str, str]
    root: "asyncpg.Connection[asyncpg.Record]"
    simulator: SimulatorClient
    referee: Referee
    group: asyncio.TaskGroup
    poor_key: str = ""
    tight_key: str = ""
    neighbour_key: str = ""
    driven: list[Driven] = field(default_factory=list)
    noted: list[Finding] = field(default_factory=list)
    """What somebody has noticed on the way; goes into the next verdict."""

    _sockets: int = 0

    @property
    def key(self) -> str:
        """A caller's key."""
        return self.stack.demo_api_key

    async def start(self, role: str = "worker", port: int | None = None) -> Driven:
        """Start a process and wait until it serves; `port` is another one than the rig's own."""
        driven = await self.begin(role, port)
        await self.until_ready(driven)
        return driven

    async def until_ready(self, driven: Driven) -> None:
        """Wait until a process that was begun serves."""
        ready, ended = (asyncio.ensure_future(event.wait()) for event in (driven.ready, driven.ended))
        _, late = await asyncio.wait((ready, ended), timeout=_READY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for waiting in late:
            waiting.cancel()
        assert driven.ready.is_set(), f"the {driven.role} did not start:\n{self.log()[-3000:]}"

    async def begin(self, role: str, port: int | None = None) -> Driven:
        """Start a process."""
        self._sockets += 1
        path = str(self.parts.directory / f"control-{self._sockets}")
        opened: asyncio.Future[Driven] = asyncio.get_running_loop().create_future()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            opened.set_result(Driven(role, reader, writer))

        server = await asyncio.start_unix_server(accept, path, limit=2**22)
        ports = {"postgres": self.parts.endpoints[0].port, "upstream": urlsplit(self.stack.simulator).port}
        environment = dict(self.environment) | ({"TOLLHOUSE_GRPC_PORT": str(port)} if port else {})
        order = {"role": role, "control": path, "ports": ports, "environment": environment}
        assert self.stack.process.stdin is not None
        self.stack.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.stack.process.stdin.flush()
        driven = await asyncio.wait_for(opened, _READY_SECONDS)
        server.close()
        # Python 3.13 takes the file away with the server.
        await asyncio.to_thread(lambda: Path(path).unlink(missing_ok=True))
        self.driven.append(driven)
        self.group.create_task(driven.listen())
        return driven

    async def end(self, driven: Driven) -> None:
        """Kill a process and wait until it is gone."""
        driven.send(signal.SIGKILL)
        await asyncio.wait_for(driven.ended.wait(), 10)

    async def raise_errors(self, sqlstate: str | None) -> None:
        """Have every third row written to the ledger fail with an SQLSTATE, at most five times; None: no more."""
        await self.root.execute("SELECT setval('fault_rows', 1), setval('fault_raised', 1)")
        await self.root.execute("UPDATE fault_plan SET sqlstate = $1", sqlstate)

    async def leave_room(self, limit: str, units: int) -> None:
        """Set a limit to what is settled, and so much more."""
        await self.root.execute(_LEAVE_ROOM, limit, units)
        await self.root.execute("UPDATE epoch SET value = value + 1 WHERE topic = 'limits'")

    async def forget_alerts(self) -> None:
        """Have the next settlements raise again the alerts that were raised before."""
        await self.root.execute("DELETE FROM limit_alert")
        await self.root.execute("UPDATE counter SET alert_at = 0")

    async def quiet(self) -> bool:
        """Wait until no attempt is in flight; False when some remain for too long."""
        ends_at = time.monotonic() + _QUIET_SECONDS
        while await self.referee.in_flight():
            if time.monotonic() > ends_at:
                return False
            await asyncio.sleep(0.05)
        return True

    async def verdict(self) -> list[Finding]:
        """Wait until all is booked and return what the referee finds wrong."""
        findings, self.noted = self.noted, []
        if not await self.quiet():
            findings.append(Finding("still in flight", f"after {_QUIET_SECONDS:.0f} s"))
        return findings + await self.referee.check()

    async def reconnect(self) -> None:
        """Open the test's own connection again after PostgreSQL has ended it."""
        self.root.terminate()
        ends_at = time.monotonic() + _QUIET_SECONDS
        while True:
            try:
                self.root = await asyncpg.connect(self.parts.endpoints[0].dsn(ROOT), timeout=5)
                break
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                if time.monotonic() > ends_at:
                    raise
                await asyncio.sleep(0.1)
        self.referee.connection = self.root

    @asynccontextmanager
    async def another_session(self) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
        """Open a session of a superuser besides the test's own."""
        connection = await asyncpg.connect(self.parts.endpoints[0].dsn(ROOT))
        try:
            yield connection
        finally:
            await connection.close()

    def log(self) -> str:
        """Return what the processes wrote."""
        return self.stack.output.read_text()


@contextmanager
def running_forks(parts: Parts, *places: str) -> Iterator[RunningStack]:
    """Run the process that forks workers, its environment the deployment's; `places` get gates instead of the usual."""
    metrics = parts.directory / "metrics"
    metrics.mkdir()
    output = parts.directory / "driven.out"
    addresses = neighbour.addresses(parts.endpoints[2].base_url)
    environment = {**parts.environment, **SETTINGS, **addresses, "PROMETHEUS_MULTIPROC_DIR": str(metrics)}
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.worker", *places],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
        )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"forks\n", output.read_text()
        yield RunningStack(process=process, state_dir=parts.directory, output=output, run={})
    finally:
        process.kill()
        process.wait()


@contextmanager
def parts_directory() -> Iterator[Path]:
    """A directory that PostgreSQL's account may enter, removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix="tollhouse-faults-"))
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def rig_parts(forks: Forks | None = None) -> Iterator[tuple[Parts, RunningStack]]:
    """Start what a rig stands on. Synchronous: the kernel ends our servers with the thread that started them.

    Commands that only prepare it come from `forks`; without, Python is started for each.
    """
    with servers_place("faults") as directory, running_parts(directory, forks) as parts, running_forks(parts) as stack:
        stack.run = as_run_file(parts, prepared(parts))
        yield parts, stack


@asynccontextmanager
async def open_rig(parts: Parts, stack: RunningStack) -> AsyncIterator[Rig]:
    """Run a rig on parts that are ready; no server process runs at first except the housekeeper."""
    async with AsyncExitStack() as exits:
        root = await asyncpg.connect(parts.endpoints[0].dsn(ROOT))
        simulator = await exits.enter_async_context(SimulatorClient(stack.simulator))
        group = await exits.enter_async_context(asyncio.TaskGroup())
        rig = Rig(parts, stack, SETTINGS, root, simulator, Referee(root, simulator), group)
        exits.push_async_callback(_end_all, rig)
        await _found(rig)
        yield rig


_SOFTEN = "UPDATE usage_limit SET mode = 'SOFT', thresholds = '{50,100}' WHERE name = 'soft-calls'"

_LEAVE_ROOM = """
UPDATE usage_limit l SET amount = $2 + coalesce((
    SELECT sum(c.settled) FROM counter c WHERE c.tenant_id = l.tenant_id AND c.limit_id = l.limit_id), 0)
WHERE l.name = $1
"""

_RAISES = """
CREATE SEQUENCE fault_rows;
CREATE SEQUENCE fault_raised;
CREATE SEQUENCE fault_total;
CREATE TABLE fault_plan (sqlstate text);
INSERT INTO fault_plan VALUES (NULL);
CREATE FUNCTION fault_raise() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
DECLARE planned text := (SELECT sqlstate FROM fault_plan);
BEGIN
    -- 22P05 stands for a text that cannot be stored: only a record that carries one fails. 22023: a call that cannot.
    IF planned IS NULL OR (planned = '22P05' AND coalesce(to_jsonb(NEW) ->> 'usage', '{}') = '{}')
        OR (planned = '22023' AND TG_TABLE_NAME <> 'attempt') THEN
        RETURN NEW;
    END IF;
    -- Sequences count through roll-backs.
    IF nextval('fault_rows') % 3 = 0 AND nextval('fault_raised') <= 6 THEN
        PERFORM nextval('fault_total');
        RAISE EXCEPTION 'a planned fault' USING ERRCODE = planned;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER fault_raise BEFORE INSERT ON attempt FOR EACH ROW EXECUTE FUNCTION fault_raise();
CREATE TRIGGER fault_raise BEFORE INSERT ON usage_record FOR EACH ROW EXECUTE FUNCTION fault_raise();
"""


async def _end_all(rig: Rig) -> None:
    rig.root.terminate()
    await asyncio.gather(*(rig.end(driven) for driven in rig.driven))


async def _found(rig: Rig) -> None:
    """Make the company and its limits by RPC, on a first worker, if that was not done before on these parts."""
    if "demo_api_key" not in rig.stack.run:
        first = await rig.start("worker")
        demo_key = await asyncio.to_thread(set_up, rig.stack)
        poor_key, tight_key = await asyncio.to_thread(_add_limits, rig.stack)
        account_key = await neighbour.service_account(rig.simulator)
        neighbour_key = await asyncio.to_thread(neighbour.add_company, rig.stack, account_key)
        await rig.root.execute(_RAISES)
        # At the end of its scale from the first call on: it refuses nobody, and alerts.
        await rig.root.execute(_SOFTEN)
        keys = {"poor_api_key": poor_key, "tight_api_key": tight_key, "neighbour_api_key": neighbour_key}
        rig.stack.run = {**rig.stack.run, "demo_api_key": demo_key, **keys}
        await rig.end(first)
    rig.poor_key, rig.tight_key, rig.neighbour_key = (
        str(rig.stack.run[f"{name}_api_key"]) for name in ("poor", "tight", "neighbour")
    )


def _add_limits(stack: RunningStack) -> tuple[str, str]:
    metrics, windows = limits.LimitMetric, limits.LimitWindow
    plenty, one = limits.LimitAmount(units=10**12), limits.LimitAmount(units=1)
    requests, output, total = (
        metrics.LIMIT_METRIC_REQUESTS,
        metrics.LIMIT_METRIC_OUTPUT_TOKENS,
        windows.LIMIT_WINDOW_TOTAL,
    )
    with administration(stack) as admin:
        keys = admin.add_department("poor"), admin.add_department("tight")
        for name, scope, metric, window, amount in (
            ("spend", TENANT, metrics.LIMIT_METRIC_COST, windows.LIMIT_WINDOW_MONTH, dollars(10**15)),
            ("calls", TENANT, requests, total, plenty),
            ("output", TENANT, output, windows.LIMIT_WINDOW_DAY, plenty),
            ("soft-calls", TENANT, requests, total, one),
            ("at-once", TENANT, metrics.LIMIT_METRIC_CONCURRENCY, total, limits.LimitAmount(units=10**6)),
            ("one-call", f"{TENANT}/departments/poor", requests, total, one),
            ("tight", f"{TENANT}/departments/tight", output, total, limits.LimitAmount(units=10_000)),
        ):
            admin.add_limit(name, scope, metric, window, amount)
    return keys
