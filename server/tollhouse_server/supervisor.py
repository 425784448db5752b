"""One supervisor, N workers, one housekeeper: starts them, starts them again, stops them without losing a call."""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from tollhouse_server.errors import TollhouseError
from tollhouse_server.fork_server import ForkedProcess, ForkServer
from tollhouse_server.parent import KILL_AFTER_DRAIN_SECONDS
from tollhouse_server.telemetry.declarations.processes import PART_UP
from tollhouse_server.telemetry.exposition import Exposition
from tollhouse_server.telemetry.server import Condition
from tollhouse_server.telemetry.supervision import ProcessReadings

_log = structlog.get_logger(__name__)

_READY_SECONDS = 60.0
_LAST_WORDS_SECONDS = 1.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 10.0
_STEADY_SECONDS = 30.0


@dataclass(eq=False, kw_only=True)
class ProcessStartFailed(TollhouseError):
    """A process of the server did not become ready. `how` says what it did instead."""

    role: str
    how: str
    log_hint: str
    advice: str = ""

    def message(self) -> str:
        said = f"The {self.role} process {self.how}; if it could say why, {self.log_hint} has it. {self.advice}"
        return said.rstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessPlan:
    """How the server's processes are started."""

    workers: int
    environment: Mapping[str, str] = field(repr=False)
    metrics_directory: Path
    drain_seconds: float
    worker_advice: str = ""
    """What to try where no worker becomes ready."""

    def roles(self) -> Sequence[str]:
        """Return the role of each process."""
        return [*(["worker"] * self.workers), "housekeeper"]


class Supervisor:
    """Runs the processes of one server until it is told to stop."""

    def __init__(self, plan: ProcessPlan, fork_server: ForkServer) -> None:
        self._plan = plan
        self._fork_server = fork_server
        self._processes: dict[int, ForkedProcess] = {}
        self._ready: set[int] = set()
        self._stopping = asyncio.Event()
        self._readings = ProcessReadings(self._pids_by_role, plan.roles())
        self.exposition = Exposition(plan.metrics_directory, self._readings)
        """The metrics of the whole server."""

    def _pids_by_role(self) -> Mapping[str, Sequence[int]]:
        roles = self._plan.roles()
        pids: dict[str, list[int]] = {"supervisor": [os.getpid()]}
        # A copy: it is asked from a thread.
        for index, process in dict(self._processes).items():
            if process.returncode is None:
                pids.setdefault(roles[index], []).append(process.pid)
        return pids

    @property
    def pids(self) -> dict[str, int]:
        """Return the process ids by role and number: worker-1, worker-2, housekeeper."""
        roles = self._plan.roles()
        return {_name(roles, index): process.pid for index, process in sorted(self._processes.items())}

    async def readiness(self) -> Condition:
        """Say whether calls can be served: a worker there, PostgreSQL in reach.

        What calls are served without is a remark: to take this server out of use for it would make things worse.
        """
        roles = self._plan.roles()
        missing = [index for index in range(len(roles)) if not self._is_serving(index)]
        seen = await asyncio.to_thread(self.exposition.values_of, PART_UP)
        down = {part for (part,), is_up in seen.items() if not is_up}
        problems, remarks = [], [f"{_name(roles, index)} is not running" for index in missing]
        if sum(roles[index] == "worker" for index in missing) == self._plan.workers:
            problems.append("no worker is running")
        if "database" in down:
            problems.append("PostgreSQL cannot be reached")
        if "vault" in down:
            remarks.append("Vault cannot be reached; keys in memory keep serving")
        return Condition(problems=tuple(problems), remarks=tuple(remarks))

    def _is_serving(self, index: int) -> bool:
        process = self._processes.get(index)
        return index in self._ready and process is not None and process.returncode is None

    async def start(self) -> None:
        """Start every process and wait until all are ready.

        Raises:
            ProcessStartFailed: one of them ended or took too long.
        """
        indexes = range(len(self._plan.roles()))
        try:
            await asyncio.gather(*(self._start_one(index) for index in indexes))
        except BaseException:
            await self.stop()
            raise

    async def run(self) -> None:
        """Start again whatever ends, until `stop` is called."""
        async with asyncio.TaskGroup() as group:
            for index in range(len(self._plan.roles())):
                group.create_task(self._keep(index))

    async def stop(self) -> None:
        """Have every process drain and end; kill what does not end in time."""
        self._stopping.set()
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                process.terminate()
        waits = [asyncio.create_task(process.wait()) for process in self._processes.values()]
        if waits:
            await asyncio.wait(waits, timeout=self._plan.drain_seconds + KILL_AFTER_DRAIN_SECONDS)
        for process in self._processes.values():
            if process.returncode is None:
                _log.error("process_killed", pid=process.pid)
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    async def _keep(self, index: int) -> None:
        pause_seconds, buried = _FIRST_PAUSE_SECONDS, None
        while True:
            process = self._processes[index]
            lived = await _lifetime(process)
            if self._stopping.is_set():
                return
            if process is not buried:
                await self._bury(index, process)
                buried = process
            pause_seconds = _FIRST_PAUSE_SECONDS if lived > _STEADY_SECONDS else pause_seconds
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_seconds)
                return
            pause_seconds = min(_LONGEST_PAUSE_SECONDS, pause_seconds * 2)
            with suppress(ProcessStartFailed):
                await self._start_one(index)
            if self._stopping.is_set():
                # It was started while the others were being told to stop.
                with suppress(ProcessLookupError):
                    self._processes[index].terminate()

    async def _bury(self, index: int, process: ForkedProcess) -> None:
        role = self._plan.roles()[index]
        self._ready.discard(index)
        await asyncio.to_thread(self.exposition.end, process.pid)
        self._readings.restarted(role)
        _log.warning("process_ended", role=role, pid=process.pid, code=process.returncode)

    async def _start_one(self, index: int) -> None:
        role = self._plan.roles()[index]
        try:
            process, readable = await self._begin(role)
        except OSError as error:
            # Want of files, processes or memory passes; the processes that live go on meanwhile.
            _log.error("process_not_started", role=role, error=type(error).__name__, errno=error.errno)
            raise ProcessStartFailed(role=role, how="could not be started", log_hint="the line above") from error
        self._processes[index] = process
        if not await _is_ready(readable):
            raise ProcessStartFailed(
                role=role,
                how=await _ended(process),
                log_hint=str(self._fork_server.log_path or "the output above"),
                advice=self._plan.worker_advice if role == "worker" else "",
            )
        self._ready.add(index)

    async def _begin(self, role: str) -> tuple[ForkedProcess, int]:
        """Start a process; return it, and the pipe that it writes to when it serves."""
        readable, writable = os.pipe()
        try:
            process = await self._fork_server.fork(role, self._plan.environment, ready_fd=writable)
        except BaseException:
            os.close(readable)
            raise
        finally:
            os.close(writable)
        return process, readable


async def _lifetime(process: ForkedProcess) -> float:
    loop = asyncio.get_running_loop()
    started_at = loop.time()
    await process.wait()
    return loop.time() - started_at


async def _is_ready(readable: int) -> bool:
    """Wait for the byte that a process writes when it serves; the end of the pipe means that it has died."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    with os.fdopen(readable, "rb", buffering=0) as pipe:
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        try:
            return bool(await asyncio.wait_for(reader.read(1), _READY_SECONDS))
        except TimeoutError:
            return False
        finally:
            transport.close()


async def _ended(process: ForkedProcess) -> str:
    """End a process that is not ready, and return how it has ended by itself, if it has."""
    try:
        code = await asyncio.wait_for(process.wait(), _LAST_WORDS_SECONDS)
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        return "did not become ready"
    return f"ended with status {code}" if code >= 0 else f"was ended by signal {-code}"


def _name(roles: Sequence[str], index: int) -> str:
    return roles[index] if roles[index] == "housekeeper" else f"{roles[index]}-{index + 1}"


def stop_on_signals(stop: asyncio.Event, *, at_most_seconds: float = 0) -> None:
    """Set `stop` on SIGTERM and SIGINT. The kernel ends the process if it has not ended by itself in time; 0: never.

    A supervisor kills what hangs, but it may have been killed itself.
    """

    def begin() -> None:
        signal.setitimer(signal.ITIMER_REAL, at_most_seconds)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, begin)
