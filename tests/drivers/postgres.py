"""One real PostgreSQL per test session (per xdist worker), and a migrated database of its own for each test.

`fresh_database` gives a test its own copy of the migrated template; `module_database` one for a whole test module.
Both carry DSNs for the owner role (migrations, set-up) and the app role (what the server runs as).

What many tests would have to bring about first is brought about once: a folder or a module overrides the fixture
`preparation`, and each of its tests has a copy of the database that was prepared so.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from tollhouse_server.database.migrate import upgrade
from tollhouse_server.embedded.postgres import EmbeddedPostgres, PostgresConfig, PostgresEndpoint
from tollhouse_server.embedded.postgres_roles import APP, OWNER, ROOT, prepare_database

from tests.drivers.places import servers_place

TEMPLATE = "tollhouse_template"


@dataclass(frozen=True, slots=True, kw_only=True)
class TestDatabase:
    """One database: its name, and DSNs (`postgresql://...`) for the three roles."""

    __test__ = False

    name: str
    owner_dsn: str = field(repr=False)
    app_dsn: str = field(repr=False)
    root_dsn: str = field(repr=False)
    kept: Any = field(default=None, repr=False)
    """What its preparation has returned: keys, and whatever else is in no database."""


Preparation = Callable[[TestDatabase], Coroutine[Any, Any, Any]]


@dataclass(frozen=True, slots=True)
class TestPostgres:
    """A running server whose template database has all migrations."""

    __test__ = False

    endpoint: PostgresEndpoint
    loop: asyncio.AbstractEventLoop
    root: "asyncpg.Connection[asyncpg.Record]"
    """The superuser's connection, on that loop: to open one for each database would cost as much as the database."""
    prepared: dict[Preparation, TestDatabase] = field(default_factory=dict)
    """Databases to copy, each with what its preparation has left in it; nobody else connects to them."""

    def database(self, name: str) -> TestDatabase:
        """The DSNs of a database of this server."""
        dsn = self.endpoint.dsn
        return TestDatabase(name=name, owner_dsn=dsn(OWNER, name), app_dsn=dsn(APP, name), root_dsn=dsn(ROOT, name))

    def create_database(self, preparation: Preparation | None = None) -> TestDatabase:
        """A new database with the content of the template, or of one that was prepared (tens of milliseconds)."""
        name = f"test_{uuid4().hex[:12]}"
        if preparation is None:
            self._create(name, f"TEMPLATE {TEMPLATE}")
            return self.database(name)
        if preparation not in self.prepared:
            original = self.create_database()
            self.prepared[preparation] = replace(original, kept=complete(preparation(original)))
        original = self.prepared[preparation]
        self._create(name, f'TEMPLATE "{original.name}"')
        return replace(self.database(name), kept=original.kept)

    def drop_database(self, database: TestDatabase) -> None:
        """Drop it, ending the connections that a failed test left."""
        self._administer(f'DROP DATABASE IF EXISTS "{database.name}" WITH (FORCE)')

    def create_template(self) -> None:
        """Run the migrations once, as the owner; every test database is a copy."""
        self._create(TEMPLATE, "")
        template = self.database(TEMPLATE)
        complete(prepare_database(template.root_dsn, TEMPLATE))
        migrate(template.owner_dsn)

    def _create(self, name: str, template: str) -> None:
        self._administer(
            f'CREATE DATABASE "{name}" OWNER {OWNER} {template} STRATEGY file_copy',
            # Rights on the database itself are not copied from a template.
            f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC; GRANT CONNECT ON DATABASE "{name}" TO {APP}',
        )

    def _administer(self, *statements: str) -> None:
        self.loop.run_until_complete(self._execute(statements))

    async def _execute(self, statements: Sequence[str]) -> None:
        for statement in statements:
            await self.root.execute(statement)


@contextmanager
def with_template(endpoint: PostgresEndpoint) -> Iterator[TestPostgres]:
    """Make the template on a server that runs, and give out databases until the block is left."""
    # Not the test runner's, which it has for itself.
    loop = asyncio.new_event_loop()
    try:
        root = loop.run_until_complete(asyncpg.connect(endpoint.dsn(ROOT, "postgres")))
        running = TestPostgres(endpoint, loop, root)
        running.create_template()
        yield running
        loop.run_until_complete(root.close())
    finally:
        loop.close()


def complete(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run `coroutine` on a loop of its own, leaving the test runner's event loop as it is.

    In this thread, not another: the kernel ends our servers when the thread that started them ends.
    """
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.close()


def migrate(owner_dsn: str) -> None:
    """Bring the database to the newest schema; in a thread, as alembic runs an event loop of its own."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        pool.submit(upgrade, owner_dsn).result()


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Path]:
    """A directory that the postgres account may enter: pytest's own lie below one that is closed to it."""
    with servers_place("test") as directory:
        yield directory


@pytest.fixture(scope="session")
def postgres_server(server_directory: Path) -> Iterator[TestPostgres]:
    """A running PostgreSQL on a free loopback port, with the migrated template."""
    directory = server_directory / f"postgres-{uuid4().hex[:8]}"
    directory.mkdir(mode=0o711)
    config = PostgresConfig(
        directory=directory / "server",
        secrets_directory=directory / "secrets",
        log_path=directory / "postgres.log",
        durable=False,
    )
    server = EmbeddedPostgres(config)
    try:
        with with_template(complete(server.start())) as running:
            yield running
    finally:
        complete(server.stop())


@pytest.fixture
def preparation() -> Preparation | None:
    """What is done to the database of a test before it is copied for it; it leaves no connection open."""
    return None


@pytest.fixture
def fresh_database(postgres_server: TestPostgres, preparation: Preparation | None) -> Iterator[TestDatabase]:
    """A migrated database for this test alone: empty, or prepared."""
    database = postgres_server.create_database(preparation)
    yield database
    postgres_server.drop_database(database)


@pytest.fixture(scope="module")
def module_database(postgres_server: TestPostgres) -> Iterator[TestDatabase]:
    """A migrated database that the tests of one module share."""
    database = postgres_server.create_database()
    yield database
    postgres_server.drop_database(database)
