"""The embedded PostgreSQL: it starts, keeps its data over every kind of end, and says what is wrong when it cannot."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import asyncpg
import psutil
import pytest
from tollhouse_server.embedded.child import Child, Command
from tollhouse_server.embedded.errors import EmbeddedStartFailed, StateDirectoryUnusable
from tollhouse_server.embedded.postgres import EmbeddedPostgres, PostgresConfig, PostgresEndpoint
from tollhouse_server.embedded.postgres_roles import OWNER, ROOT
from tollhouse_server.embedded.system_user import user_for_postgres
from tollhouse_server.ports import PortInUse

from tests.drivers.places import servers_place
from tests.drivers.postgres import TestDatabase

as_root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who runs PostgreSQL as another user")


def config_in(directory: Path) -> PostgresConfig:
    return PostgresConfig(
        directory=directory / "postgres",
        secrets_directory=directory / "secrets",
        log_path=directory / "postgres.log",
    )


@pytest.fixture
def config() -> Iterator[PostgresConfig]:
    with servers_place("postgres") as directory:
        yield config_in(directory)


@asynccontextmanager
async def running(config: PostgresConfig) -> AsyncIterator[PostgresEndpoint]:
    server = EmbeddedPostgres(config)
    try:
        yield await server.start()
    finally:
        await server.stop()


async def remember(endpoint: PostgresEndpoint, text: str) -> None:
    connection = await asyncpg.connect(endpoint.dsn(OWNER))
    await connection.execute("CREATE TABLE IF NOT EXISTS note (text text)")
    await connection.execute("INSERT INTO note VALUES ($1)", text)
    await connection.close()


async def remembered(endpoint: PostgresEndpoint) -> list[str]:
    connection = await asyncpg.connect(endpoint.dsn(OWNER))
    rows = await connection.fetch("SELECT text FROM note ORDER BY text")
    await connection.close()
    return [row["text"] for row in rows]


async def test_data_and_passwords_survive_a_stop_and_a_start(config: PostgresConfig) -> None:
    """A second start finds what the first one stored, under the same passwords."""
    async with running(config) as first:
        await remember(first, "kept")
        passwords = [path.read_text() for path in (first.owner_password_file, first.app_password_file)]

    async with running(config) as second:
        found = await remembered(second)

    assert found == ["kept"]
    assert [path.read_text() for path in (second.owner_password_file, second.app_password_file)] == passwords


async def test_committed_data_survives_kill_9_of_the_postmaster(config: PostgresConfig) -> None:
    """The next start waits for the children that the postmaster left, recovers, and has every committed row."""
    async with running(config) as first:
        await remember(first, "committed")
        idle = await asyncpg.connect(first.dsn(OWNER))
        os.kill(first.pid, signal.SIGKILL)

        async with running(config) as second:
            found = await remembered(second)

        idle.terminate()
    assert found == ["committed"]


async def test_a_server_that_outlived_its_parent_is_stopped_before_a_new_one_starts(config: PostgresConfig) -> None:
    """Two postmasters never work on one directory."""
    orphan = EmbeddedPostgres(config)
    left_over = await orphan.start()
    await remember(left_over, "from the orphan")

    async with running(replace(config, port=left_over.port)) as second:
        found = await remembered(second)
        orphan_ended = orphan.child is not None and orphan.child.exit_code() is not None

    assert found == ["from the orphan"]
    assert orphan_ended


async def test_a_stale_pid_file_that_names_a_living_program_does_not_block_the_start(config: PostgresConfig) -> None:
    """After a crash the number in postmaster.pid may belong to any program, here one of the same user."""
    async with running(config) as first:
        data = config.directory / "data"
        pid_file = (data / "postmaster.pid").read_text().splitlines()
        os.kill(first.pid, signal.SIGKILL)
    user = user_for_postgres(data)
    other = Child(Command(argv=["/bin/sleep", "60"], log_path=config.log_path, death_signal=signal.SIGKILL, user=user))
    (data / "postmaster.pid").write_text("\n".join([str(other.pid), *pid_file[1:]]) + "\n")

    async with running(config) as second:
        alive = psutil.pid_exists(second.pid)

    other_was_left_alone = other.exit_code() is None
    await other.stop(())
    assert alive
    assert other_was_left_alone


async def test_a_start_that_was_cut_short_leaves_nothing_that_blocks_the_next(config: PostgresConfig) -> None:
    """A cluster is either whole or made again."""
    starting = asyncio.create_task(EmbeddedPostgres(config).start())
    while not (config.directory / "data.unfinished").exists():  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(0.01)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)

    async with running(config) as endpoint:
        await remember(endpoint, "whole")
        found = await remembered(endpoint)

    assert found == ["whole"]


async def test_a_port_in_use_is_named_with_the_setting_to_change(config: PostgresConfig) -> None:
    """The message tells what to do."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        with pytest.raises(PortInUse) as raised:
            await EmbeddedPostgres(replace(config, port=port)).start()

    assert raised.value.port == port
    assert f"Port {port}" in str(raised.value)
    assert "TOLLHOUSE_POSTGRES_PORT" in str(raised.value)


@as_root_only
async def test_data_of_another_user_is_refused_with_a_clear_error(config: PostgresConfig) -> None:
    """PostgreSQL's own complaint would be deep in a log."""
    data = config.directory / "data"
    data.mkdir(parents=True)

    with pytest.raises(StateDirectoryUnusable, match="belongs to user id 0"):
        await EmbeddedPostgres(config).start()


@as_root_only
def test_programs_below_a_closed_directory_are_found_too(config: PostgresConfig) -> None:
    """A whole checkout in root's home: initdb looks for its programs by access(2), which asks for the real user."""
    home = config.log_path.parent
    program = home / "program"
    program.touch(mode=0o755)
    home.chmod(0o700)
    asking = "import os, sys; sys.exit(0 if os.access(sys.argv[1], os.R_OK | os.X_OK) else 1)"

    child = Child(
        Command(
            argv=[sys.executable, "-I", "-S", "-c", asking, str(program)],
            log_path=config.log_path,
            death_signal=signal.SIGKILL,
            user=user_for_postgres(program),
        )
    )

    assert psutil.Process(child.pid).wait(10) == 0


@as_root_only
async def test_it_runs_below_a_directory_that_only_root_may_enter(config: PostgresConfig) -> None:
    """A checkout in root's home works, and no permission above it is changed."""
    home = config.log_path.parent
    home.chmod(0o700)

    async with running(config) as endpoint:
        await remember(endpoint, "below a closed directory")
        found = await remembered(endpoint)
        user_ids = psutil.Process(endpoint.pid).uids()

    assert found == ["below a closed directory"]
    assert 0 not in user_ids
    assert home.stat().st_mode & 0o777 == 0o700


async def test_lost_password_of_the_superuser_is_a_clear_error(config: PostgresConfig) -> None:
    """Nothing is reset behind the owner's back."""
    async with running(config) as endpoint:
        pass
    endpoint.root_password_file.unlink()

    with pytest.raises(EmbeddedStartFailed, match=r"tollhouse_root\.password is not"):
        await EmbeddedPostgres(config).start()


async def test_a_wrong_password_is_refused(fresh_database: TestDatabase) -> None:
    """Loopback is no reason to trust."""
    wrong = fresh_database.app_dsn.replace(":", ":not-", 2).replace("postgresql:not-", "postgresql:", 1)

    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(wrong)


async def test_the_app_role_makes_nothing(fresh_database: TestDatabase) -> None:
    """The role that the server runs as owns nothing and cannot begin to."""
    connection = await asyncpg.connect(fresh_database.app_dsn)

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("CREATE TABLE mine (id int)")

    await connection.close()


async def test_the_owner_role_has_ltree_without_being_superuser(fresh_database: TestDatabase) -> None:
    """Extensions are the bootstrap's work; migrations only use them."""
    connection = await asyncpg.connect(fresh_database.owner_dsn)

    await connection.execute("CREATE TABLE probe (path ltree)")
    superuser = await connection.fetchval("SHOW is_superuser")

    await connection.close()
    assert superuser == "off"


@pytest.mark.parametrize("turn", [1, 2])
async def test_a_fresh_database_has_nothing_of_another_test(fresh_database: TestDatabase, turn: int) -> None:
    """Each test writes the same table into a database of its own."""
    connection = await asyncpg.connect(fresh_database.owner_dsn)

    found = await connection.fetchval("SELECT to_regclass('left_by_a_test')")
    await connection.execute("CREATE TABLE left_by_a_test (id int)")

    await connection.close()
    assert found is None


async def test_no_password_reaches_a_log_an_argument_or_the_statistics(config: PostgresConfig) -> None:
    """Only the files with mode 0600 have them."""
    async with running(config) as endpoint:
        files = [endpoint.root_password_file, endpoint.owner_password_file, endpoint.app_password_file]
        connection = await asyncpg.connect(endpoint.dsn(ROOT))
        statements = await connection.fetch("SELECT query FROM pg_stat_statements")
        await connection.close()
        arguments = " ".join(psutil.Process(endpoint.pid).cmdline())
        shown = [repr(endpoint), arguments, config.log_path.read_text(), *(row["query"] for row in statements)]

    passwords = [path.read_text() for path in files]
    assert not [text for text in shown for password in passwords if password in text]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert any("CREATE DATABASE" in row["query"] or "ROLE" in row["query"] for row in statements)
