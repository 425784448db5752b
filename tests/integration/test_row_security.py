"""The second wall: each role of the database does its own work only, and a transaction sees the rows of its tenant.

Every table with a `tenant_id` is tried, found in the catalogue, so that one made later is tried too.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias

import asyncpg
import pytest
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse_server.database import row_security
from tollhouse_server.database.engine import Database, RollBack
from tollhouse_server.database.roles import ALL_TENANTS, APP, AS_CONTROL, AS_LEDGER, CONTROL, LEDGER, TENANT_SETTING
from tollhouse_server.errors import InvalidRequest

from tests.drivers.postgres import TestDatabase, TestPostgres, complete, migrate

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_TENANTS = ("acme", "bolt")
_VERBS = ("SELECT", "INSERT", "UPDATE", "DELETE")

_TABLES = """
SELECT c.oid::regclass::text AS name FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND c.relispartition = $1
    AND t.attname = 'tenant_id' AND NOT t.attisdropped
ORDER BY 1
"""

_UNSECURED = """
SELECT c.oid::regclass::text AS name FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND t.attname = 'tenant_id' AND NOT t.attisdropped
    AND NOT (c.relrowsecurity AND c.relforcerowsecurity
        AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polcmd = '*'))
"""

_RIGHTS = """
SELECT c.oid::regclass::text AS name, r.role, array_agg(v.verb ORDER BY v.n) AS verbs
FROM pg_class c, unnest($1::text[]) AS r (role), unnest($2::text[]) WITH ORDINALITY AS v (verb, n)
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
    AND CASE v.verb WHEN 'DELETE' THEN has_table_privilege(r.role, c.oid, v.verb)
        ELSE has_any_column_privilege(r.role, c.oid, v.verb) END
GROUP BY 1, 2
"""

# A row of nothing in particular for each tenant, in every table: what is checked and referred to does not matter here.
_WITHOUT_CHECKS = """
SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', c.conrelid::regclass, c.conname) FROM pg_constraint c
WHERE c.connamespace = 'public'::regnamespace AND c.contype = 'c' AND c.conrelid <> 0 AND c.conislocal
    AND c.coninhcount = 0
"""
_PLANT = """
SELECT format('INSERT INTO %I (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM unnest($1::text[]) AS tenant', c.relname,
    string_agg(format('%I', t.attname), ', '),
    string_agg(CASE
        WHEN t.attname = 'tenant_id' OR y.typcategory = 'S' THEN 'tenant'
        WHEN y.typname = 'uuid' THEN 'gen_random_uuid()'
        WHEN y.typname = 'ltree' THEN 'text2ltree(tenant)'
        WHEN y.typname = 'bytea' THEN 'sha256(tenant::bytea)'
        WHEN y.typname IN ('json', 'jsonb') THEN format('%L::%s', '{}', y.typname)
        WHEN y.typcategory = 'A' THEN format('%L::%s', '{}', y.oid::regtype)
        WHEN y.typcategory = 'D' THEN format('now()::%s', y.oid::regtype)
        WHEN y.typcategory = 'B' THEN 'true'
        WHEN y.typcategory = 'N' THEN format('1::%s', y.oid::regtype)
        ELSE format('NULL::%s', y.oid::regtype) END, ', '))
FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid JOIN pg_type y ON y.oid = t.atttypid
WHERE c.oid = $1::text::regclass AND t.attnum > 0 AND NOT t.attisdropped AND t.attgenerated = ''
GROUP BY c.relname
"""


@pytest.fixture(scope="module")
def tables(planted: TestDatabase) -> Sequence[str]:
    """Every table with rows of tenants."""
    return [row["name"] for row in complete(_fetch(planted.root_dsn, _TABLES, False))]  # noqa: FBT003 - a parameter


@pytest.fixture(scope="module")
def planted(postgres_server: TestPostgres) -> Iterator[TestDatabase]:
    """A database with a row of each of two tenants in every table."""
    database = postgres_server.create_database()
    complete(_plant(database.root_dsn))
    yield database
    postgres_server.drop_database(database)


@pytest.fixture
async def root(planted: TestDatabase) -> AsyncIterator[Connection]:
    """Whoever sees everything."""
    async with _connected(planted.root_dsn) as connection:
        yield connection


async def _plant(dsn: str) -> None:
    async with _connected(dsn) as connection:
        await connection.execute("SET session_replication_role = replica")
        for (drop,) in await connection.fetch(_WITHOUT_CHECKS):
            await connection.execute(drop)
        for (table,) in await connection.fetch(_TABLES, False):  # noqa: FBT003
            await connection.execute(await connection.fetchval(_PLANT, table), list(_TENANTS))


async def _fetch(dsn: str, sql: str, *arguments: object) -> list[asyncpg.Record]:
    async with _connected(dsn) as connection:
        return list(await connection.fetch(sql, *arguments))


@asynccontextmanager
async def _connected(dsn: str, **settings: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(dsn, server_settings=settings)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def _within(planted: TestDatabase, tenant: str) -> AsyncIterator[Connection]:
    """The control plane's connection, in a transaction about one tenant."""
    async with _connected(planted.app_dsn, **AS_CONTROL) as connection, connection.transaction():
        await connection.execute("SELECT set_config($1, $2, true)", TENANT_SETTING, tenant)
        yield connection


async def _tenants_seen(connection: Connection, table: str) -> set[str]:
    rows = await connection.fetch(f"SELECT DISTINCT tenant_id FROM {table}")  # noqa: S608 - from the catalogue
    return {row["tenant_id"] for row in rows} & {*_TENANTS}


async def _may(connection: Connection, role: str, table: str) -> set[str]:
    found = await connection.fetch(_RIGHTS, [role], _VERBS)
    return {verb for row in found if row["name"] == table for verb in row["verbs"]}


# --- the catalogue ----------------------------------------------------------------------------------------------------


async def test_every_table_of_tenants_has_forced_row_security_and_a_policy(fresh_database: TestDatabase) -> None:
    """Whichever migration made it: the end of `migrate` sees to it, and to a table that is new."""
    async with _connected(fresh_database.owner_dsn) as owner:
        secured = await owner.fetch(_UNSECURED)
        await owner.execute("CREATE TABLE forgotten (tenant_id text NOT NULL, word text)")
        await owner.execute("GRANT SELECT, UPDATE (word) ON forgotten TO tollhouse_app")
        forgotten = await owner.fetchval(_UNSECURED)
        await asyncio.to_thread(migrate, fresh_database.owner_dsn)
        found_later = await owner.fetch(_UNSECURED)
        rights = [await _may(owner, role, "forgotten") for role in (APP, CONTROL, LEDGER)]

    assert (secured, forgotten, found_later) == ([], "forgotten", [])
    assert rights == [set(), {"SELECT", "UPDATE"}, set()]


async def test_a_policy_that_a_migration_made_itself_stays_the_only_one(fresh_database: TestDatabase) -> None:
    """A table may be stricter than the others."""
    async with _connected(fresh_database.owner_dsn) as owner:
        await owner.execute("CREATE TABLE stricter (tenant_id text NOT NULL)")
        await owner.execute("CREATE POLICY nobody ON stricter USING (false)")

        await asyncio.to_thread(migrate, fresh_database.owner_dsn)

        policies = await owner.fetch("SELECT polname FROM pg_policy WHERE polrelid = 'stricter'::regclass")
    assert [row["polname"] for row in policies] == ["nobody"]


async def test_a_second_migration_changes_nothing(fresh_database: TestDatabase) -> None:
    """What is in force is not put in force anew: that would lock tables under traffic."""
    query = "SELECT oid, polrelid FROM pg_policy ORDER BY oid"
    before = await _fetch(fresh_database.root_dsn, query)

    await asyncio.to_thread(migrate, fresh_database.owner_dsn)

    assert await _fetch(fresh_database.root_dsn, query) == before != []


async def test_nobody_asks_a_partition_itself(root: Connection) -> None:
    """Their parents' row security does not hold there, so there are no rights on them, however new they are."""
    await root.execute("SELECT create_usage_partition('2031-05-01'), create_request_partition('2031-05-01')")
    partitions = {row["name"] for row in await root.fetch(_TABLES, True)}  # noqa: FBT003

    rights = await root.fetch(_RIGHTS, [APP, CONTROL, LEDGER], _VERBS)

    assert {"usage_record_2031_05", "request_key_2031_05_01", "usage_record_default"} <= partitions
    assert partitions & {row["name"] for row in rights} == set()


# --- what each role may do --------------------------------------------------------------------------------------------


async def test_the_login_role_may_do_nothing_by_itself(root: Connection) -> None:
    """A connection that has not said what it is for cannot read a table or call a function."""
    functions = await root.fetch(
        "SELECT oid::regprocedure FROM pg_proc p WHERE pronamespace = 'public'::regnamespace "
        "AND has_function_privilege($1, oid, 'EXECUTE') "
        "AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')",
        APP,
    )

    assert await root.fetch(_RIGHTS, [APP], _VERBS) == []
    assert functions == []


async def test_the_ledger_may_do_what_it_does_and_nothing_else(planted: TestDatabase, root: Connection) -> None:
    """Keys, people, roles, the trail, prices: not its business, and it is refused each of them."""
    may = {row["name"]: {*row["verbs"]} for row in await root.fetch(_RIGHTS, [LEDGER], _VERBS)}
    others = {row["name"] for row in await root.fetch(_RIGHTS, [CONTROL], _VERBS)} - {*may}

    assert may == {
        table: {verb for verb in _VERBS if verb in rights} for table, rights in row_security.LEDGER_RIGHTS.items()
    }
    assert {"api_key", "principal", "role_grant", "audit_event", "admin_request", "account"} <= others
    async with _connected(planted.app_dsn, **AS_LEDGER) as ledger:
        for table in others:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await ledger.execute(f"SELECT FROM {table}")


@pytest.mark.parametrize(
    ("table", "never"),
    [
        ("audit_event", {"UPDATE", "DELETE"}),
        ("usage_record", {"UPDATE", "DELETE"}),
        ("on_device_usage", {"UPDATE", "DELETE"}),
        ("usage_rollup", {"UPDATE", "DELETE"}),
        ("price", {"UPDATE", "DELETE"}),
        ("key_rotation", {"DELETE"}),
    ],
)
async def test_the_control_plane_takes_nothing_back_that_stays(root: Connection, table: str, never: set[str]) -> None:
    """What is written to trail, books and price lists stays as it was written, whatever the application does."""
    may = await _may(root, CONTROL, table)

    assert "SELECT" in may
    assert may & never == set()


async def test_roles_that_are_missing_are_said_before_anything_is_migrated(
    fresh_database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The role that migrates may not make any, so an administrator must."""
    monkeypatch.setattr(row_security, "LEDGER", "tollhouse_absent")

    with pytest.raises(InvalidRequest, match="tollhouse_absent"):
        await asyncio.to_thread(migrate, fresh_database.owner_dsn)


# --- whose rows -------------------------------------------------------------------------------------------------------


async def test_a_transaction_of_one_tenant_sees_no_row_of_another(planted: TestDatabase, tables: Sequence[str]) -> None:
    """In no table; and its own in every one."""
    async with _within(planted, "acme") as connection:
        seen = {table: await _tenants_seen(connection, table) for table in tables}

    assert len(seen) > 20
    assert seen == {table: {"acme"} for table in tables}


@pytest.mark.parametrize("setting", [ALL_TENANTS, "platform"])
async def test_the_platform_and_background_work_see_every_tenant(
    planted: TestDatabase, tables: Sequence[str], setting: str
) -> None:
    """Administrators of the platform are admitted to all of them."""
    async with _within(planted, setting) as connection:
        seen = {table: await _tenants_seen(connection, table) for table in tables}

    assert seen == {table: {*_TENANTS} for table in tables}


@pytest.mark.parametrize("role", [CONTROL, "owner"])
async def test_a_connection_that_does_not_say_whose_rows_gets_none(
    planted: TestDatabase, tables: Sequence[str], role: str
) -> None:
    """Not even the owner of the tables; and neither after a transaction that did say."""
    dsn, settings = (planted.owner_dsn, {}) if role == "owner" else (planted.app_dsn, {"role": role})
    async with _connected(dsn, **settings) as connection:
        before = [await _tenants_seen(connection, table) for table in tables]
        async with connection.transaction():
            await connection.execute("SELECT set_config($1, 'acme', true)", TENANT_SETTING)
        after = [await connection.fetchval(f"SELECT count(*) FROM {table}") for table in tables]  # noqa: S608

    assert before == [set()] * len(tables)
    assert after == [0] * len(tables)


async def test_a_transaction_of_one_tenant_writes_no_row_of_another(
    planted: TestDatabase, tables: Sequence[str], root: Connection
) -> None:
    """It cannot add one, make one of its own, change or take one, where the role may write at all."""
    tried = 0
    async with _within(planted, "acme") as connection:
        for table in tables:
            may = await _may(root, CONTROL, table) & {"INSERT", "UPDATE", "DELETE"}
            for verb in may:
                assert await _attempted(connection, verb, table) == "nothing", (verb, table)
            tried += len(may)

    assert tried > 40


async def _attempted(connection: Connection, verb: str, table: str) -> str:
    """Try to write rows of bolt; return what came of it."""
    try:
        async with connection.transaction():
            match verb:
                case "INSERT":
                    await connection.execute(f"INSERT INTO {table} (tenant_id) VALUES ('bolt')")  # noqa: S608
                case "UPDATE":
                    done = await connection.execute(f"UPDATE {table} SET tenant_id = 'acme' WHERE tenant_id = 'bolt'")  # noqa: S608
                    assert done == "UPDATE 0"
                    await connection.execute(f"UPDATE {table} SET tenant_id = 'bolt'")  # noqa: S608
                case _:
                    done = await connection.execute(f"DELETE FROM {table} WHERE tenant_id = 'bolt'")  # noqa: S608
                    return "nothing" if done == "DELETE 0" else done
    except asyncpg.InsufficientPrivilegeError:
        return "nothing"
    return "written"


async def test_the_request_of_a_platform_administrator_is_kept_as_his_own(planted: TestDatabase) -> None:
    """He acts within a tenant; the id that he has used is his tenant's, and nobody else's."""
    add = text("INSERT INTO admin_request (tenant_id, request_id, fingerprint) VALUES (:tenant, gen_random_uuid(), '')")
    database = Database(planted.app_dsn)
    try:
        async with database.within("acme", actor="platform") as session:
            await (await session.connection()).execute(add, {"tenant": "platform"})
        with pytest.raises(Exception, match="row-level security"):
            async with database.within("acme", actor="platform") as session:
                await (await session.connection()).execute(add, {"tenant": "bolt"})
    finally:
        await database.close()


# --- connections go back as they were ---------------------------------------------------------------------------------


async def test_a_pooled_connection_carries_no_tenant_to_the_next(planted: TestDatabase) -> None:
    """Whether its transaction was committed, rolled back, broken or cancelled in the middle of a statement."""
    database = Database(planted.app_dsn, pool_size=1)
    try:
        for number in range(40):
            work = asyncio.create_task(_work(database, _TENANTS[number % 2], number % 4))
            if number % 4 == 3:
                await asyncio.sleep(0.002 * (number % 7))
                work.cancel()
            await asyncio.gather(work, return_exceptions=True)

            async with database.transaction() as session:
                assert await _setting(session) == ALL_TENANTS
    finally:
        await database.close()


async def _work(database: Database, tenant: str, kind: int) -> None:
    async with database.within(tenant, actor=tenant) as session:
        assert await _setting(session) == tenant
        match kind:
            case 1:
                raise RollBack
            case 2:
                await (await session.connection()).execute(text("SELECT 1 / 0"))
            case 3:
                await (await session.connection()).execute(text("SELECT pg_sleep(5)"))


async def _setting(session: AsyncSession) -> str:
    connection = await session.connection()
    found: str = (await connection.execute(text(f"SELECT current_setting('{TENANT_SETTING}', true)"))).scalar_one()
    return found
