"""Everything that a laptop needs beside the server, as one context: PostgreSQL, OpenBao and the Gemini simulator."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from tollhouse_server.embedded.openbao import EmbeddedOpenBao, OpenBaoConfig, OpenBaoEndpoint
from tollhouse_server.embedded.postgres import EmbeddedPostgres, PostgresConfig, PostgresEndpoint
from tollhouse_server.embedded.postgres_roles import APP, OWNER
from tollhouse_server.embedded.simulator import EmbeddedSimulator, SimulatorConfig, SimulatorEndpoint
from tollhouse_server.embedded.state_directory import StateDirectory, claimed
from tollhouse_server.embedded.watch import Part, RestartPolicy, keep_running

# Without its database the server can do nothing; without the others it serves on or refuses call by call.
POSTGRES_POLICY = RestartPolicy(give_up_after=5)
OTHERS_POLICY = RestartPolicy()

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StackConfig:
    """Where to keep state and which ports to take (0: a free one). `simulator=False` when a real Gemini key is set."""

    state_directory: Path = Path(".tollhouse")
    postgres_port: int = 0
    vault_port: int = 0
    simulator_port: int = 0
    simulator: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningStack:
    """What runs, as it was at the start (a restarted part keeps its port). The DSNs hold passwords."""

    directory: StateDirectory
    postgres: PostgresEndpoint
    openbao: OpenBaoEndpoint
    simulator: SimulatorEndpoint | None
    owner_dsn: str = field(repr=False)
    app_dsn: str = field(repr=False)
    parts: "_Parts" = field(repr=False)

    @property
    def pids(self) -> dict[str, int]:
        """Return the process id of each part as it is now: a restarted part has a new one."""
        return self.parts.pids()


@dataclass(frozen=True, slots=True)
class _Parts:
    postgres: EmbeddedPostgres
    openbao: EmbeddedOpenBao
    simulator: EmbeddedSimulator | None

    def pids(self) -> dict[str, int]:
        parts: dict[str, Part | None] = {
            "postgres": self.postgres,
            "openbao": self.openbao,
            "simulator": self.simulator,
        }
        return {name: part.child.pid for name, part in parts.items() if part is not None and part.child is not None}

    def in_stop_order(self) -> list[Part]:
        """PostgreSQL last: the others matter only while calls run, and the ledger outlives them."""
        return [*([self.simulator] if self.simulator else []), self.openbao, self.postgres]


@asynccontextmanager
async def embedded_stack(config: StackConfig) -> AsyncIterator[RunningStack]:
    """Claim the state directory and run all parts in it, as `running_parts` does.

    Raises:
        StateDirectoryLocked, StateDirectoryUnusable: see `claimed`.
        PortInUse, EmbeddedPartMissing, EmbeddedStartFailed: see `running_parts`.
    """
    with claimed(config.state_directory) as directory:
        async with running_parts(config, directory) as running:
            yield running


@asynccontextmanager
async def running_parts(config: StackConfig, directory: StateDirectory) -> AsyncIterator[RunningStack]:
    """Start all parts in a claimed directory, keep them running while the body runs, stop them in order after it.

    Enter it in the main thread: the kernel ends the children when the thread that started them ends.

    Raises:
        PortInUse, StateDirectoryUnusable, EmbeddedPartMissing: a part cannot start.
        EmbeddedStartFailed: a part did not start; or PostgreSQL ended for good, and the body was cancelled.
    """
    parts = _parts(config, directory)
    try:
        running = await _start(parts, directory)
        _log.info("embedded_stack_started", directory=str(directory.root), **running.pids)
        async with _kept_running(parts):
            yield running
    finally:
        for part in parts.in_stop_order():
            await part.stop()


def _parts(config: StackConfig, directory: StateDirectory) -> _Parts:
    postgres = PostgresConfig(
        directory=directory.postgres,
        secrets_directory=directory.secrets,
        log_path=directory.logs / "postgres.log",
        port=config.postgres_port,
    )
    openbao = OpenBaoConfig(
        directory=directory.openbao, log_path=directory.logs / "openbao.log", port=config.vault_port
    )
    simulator = SimulatorConfig(
        call_log_path=directory.simulator_calls,
        log_path=directory.logs / "simulator.log",
        port=config.simulator_port,
    )
    return _Parts(
        EmbeddedPostgres(postgres),
        EmbeddedOpenBao(openbao),
        EmbeddedSimulator(simulator) if config.simulator else None,
    )


async def _start(parts: _Parts, directory: StateDirectory) -> RunningStack:
    with _first_error():
        async with asyncio.TaskGroup() as starts:
            postgres = starts.create_task(parts.postgres.start())
            openbao = starts.create_task(parts.openbao.start())
            simulator = starts.create_task(parts.simulator.start()) if parts.simulator else None
    endpoint = postgres.result()
    return RunningStack(
        directory=directory,
        postgres=endpoint,
        openbao=openbao.result(),
        simulator=simulator.result() if simulator else None,
        owner_dsn=endpoint.dsn(OWNER),
        app_dsn=endpoint.dsn(APP),
        parts=parts,
    )


@asynccontextmanager
async def _kept_running(parts: _Parts) -> AsyncIterator[None]:
    with _first_error():
        async with asyncio.TaskGroup() as group:
            watches = [
                group.create_task(keep_running("PostgreSQL", parts.postgres, POSTGRES_POLICY)),
                group.create_task(keep_running("OpenBao", parts.openbao, OTHERS_POLICY)),
            ]
            if parts.simulator:
                watches.append(group.create_task(keep_running("simulator", parts.simulator, OTHERS_POLICY)))
            try:
                yield
            finally:
                _cancel(watches)


def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()


@contextmanager
def _first_error() -> Iterator[None]:
    """Raise what went wrong itself, not the group around it: callers tell people what to do by its class."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise _leaf(group) from group


def _leaf(error: BaseException) -> BaseException:
    return _leaf(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
