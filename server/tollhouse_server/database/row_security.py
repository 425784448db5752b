"""What each role of the database may do, and with whose rows: put in force at the end of every migration.

It goes by the catalogue, so no migration can forget it. What a migration grants to tollhouse_app moves to
tollhouse_control; a function is nobody's but his; every table with a `tenant_id` gets row security, for its owner too;
and tollhouse_ledger may do what stands here and nothing else. To take a right away, revoke it from tollhouse_control.
"""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, Row, text

from tollhouse_server.database.roles import ACTOR_SETTING, ALL_TENANTS, APP, CONTROL, LEDGER, TENANT_SETTING
from tollhouse_server.errors import FieldViolation, InvalidRequest
from tollhouse_server.names import PLATFORM

LEDGER_RIGHTS: Final[Mapping[str, str]] = {
    "attempt": "SELECT, INSERT, UPDATE, DELETE",
    "counter": "SELECT, INSERT, UPDATE, DELETE",
    "department": "SELECT (tenant_id, department_id, merged_into)",
    "epoch": "SELECT",
    "limit_alert": "SELECT, INSERT, DELETE",
    "limit_increase": "SELECT",
    "request_key": "SELECT, INSERT, DELETE, UPDATE (attempt_id)",
    "suspense": "SELECT, INSERT, UPDATE",
    "tenant": "SELECT (tenant_id, time_zone, fiscal_month_start_day)",
    # A row can be locked against a change only by who may change something of it.
    "usage_limit": "SELECT, UPDATE (updated_at)",
    "usage_record": "SELECT, INSERT",
    "worker": "SELECT, INSERT, UPDATE, DELETE",
}
"""What the ledger's own connections do, by table."""

_LEDGER_FUNCTIONS = (
    "create_request_partition(date)",
    "create_usage_partition(date)",
    "drop_request_partitions(date)",
    "ledger_epoch()",
    "ledger_now()",
    "ledger_unfit()",
)

_MISSING_ROLES = """
SELECT wanted FROM unnest(CAST(:roles AS text[])) AS wanted WHERE to_regrole(wanted) IS NULL ORDER BY 1
"""

_RIGHTS_OF_APP = """
SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || c.oid::regclass AS place,
    string_agg(a.privilege_type, ', ') AS rights
FROM pg_class c CROSS JOIN aclexplode(c.relacl) a
WHERE c.relnamespace = 'public'::regnamespace AND a.grantee = to_regrole(:app)
GROUP BY c.relkind, c.oid
UNION ALL
SELECT 'TABLE ' || c.oid::regclass, string_agg(format('%s (%I)', a.privilege_type, t.attname), ', ')
FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid CROSS JOIN aclexplode(t.attacl) a
WHERE c.relnamespace = 'public'::regnamespace AND a.grantee = to_regrole(:app)
GROUP BY c.oid
"""

# A new function is everybody's until it is taken away; those of extensions stay as they are.
_FUNCTIONS_OF_APP = """
SELECT p.oid::regprocedure::text AS name FROM pg_proc p
WHERE p.pronamespace = 'public'::regnamespace
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
    AND (p.proacl IS NULL
        OR EXISTS (SELECT FROM aclexplode(p.proacl) a WHERE a.grantee IN (0, to_regrole(:app))))
"""

# Partitions are reached through their parents, whose row security holds then; nobody may ask them themselves.
TABLES_OF_TENANTS = """
SELECT c.oid::regclass::text AS name, c.relrowsecurity AND c.relforcerowsecurity AS is_forced,
    ARRAY(SELECT p.polname::text FROM pg_policy p WHERE p.polrelid = c.oid) AS policies
FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND t.attname = 'tenant_id' AND NOT t.attisdropped
ORDER BY c.relname
"""
"""Every table with rows of tenants: whether row security is forced on it, and its policies."""

_SETTING = "(SELECT NULLIF(current_setting('{setting}', true), ''))"
"""Read once for a statement, not for each row. A setting that is not there is null, or empty once it has been."""

# CASE, because PostgreSQL takes it to let half of all rows through: with OR it took '*' for one row in a hundred, and
# chose plans for few rows.
_OF_TENANT = f"""CASE {_SETTING.format(setting=TENANT_SETTING)}
    WHEN '{ALL_TENANTS}' THEN true WHEN '{PLATFORM}' THEN true
    ELSE tenant_id = {_SETTING.format(setting=TENANT_SETTING)} END"""

_ROWS: Mapping[str, str] = {
    # An administrator of the platform acts within a tenant, and what is kept of his request is his own tenant's.
    "admin_request": f"tenant_id = {_SETTING.format(setting=ACTOR_SETTING)} OR {_OF_TENANT}",
}
"""Tables whose rows are not only those of the tenant that a transaction is about."""

# Another number with every change: by its name a policy is known to be the current one.
_POLICY, _LEDGER_POLICY = "tenant_rows_1", "ledger_rows_1"
_FAMILIES = ("tenant_rows_", "ledger_rows_")


def check_roles(connection: Connection) -> None:
    """See that the roles are there before anything is migrated.

    Raises:
        InvalidRequest: they are not; the role that migrates may not make any.
    """
    missing = [row.wanted for row in connection.execute(text(_MISSING_ROLES), {"roles": [APP, CONTROL, LEDGER]})]
    if missing:
        description = f"has no role {', '.join(missing)}; deploy/postgres/roles.sh makes what is missing"
        raise InvalidRequest(violations=(FieldViolation(path="PostgreSQL", description=description),))


def secure(connection: Connection) -> None:
    """Put rights and row security in force. What is as it should be is not touched, so that no lock is taken."""
    for place in connection.execute(text(_RIGHTS_OF_APP), {"app": APP}).all():
        connection.execute(text(f"GRANT {place.rights} ON {place.place} TO {CONTROL}"))
        connection.execute(text(f"REVOKE ALL ON {place.place} FROM {APP}"))
    for function in connection.execute(text(_FUNCTIONS_OF_APP), {"app": APP}).all():
        connection.execute(text(f"GRANT EXECUTE ON ROUTINE {function.name} TO {CONTROL}"))
        connection.execute(text(f"REVOKE ALL ON ROUTINE {function.name} FROM PUBLIC, {APP}"))
    # Whoever looks after the server asks it whether the schema is current.
    connection.execute(text(f"GRANT SELECT ON alembic_version TO {CONTROL}"))
    _secure_ledger(connection)
    for table in connection.execute(text(TABLES_OF_TENANTS)).all():
        _secure_rows(connection, table)


def _secure_ledger(connection: Connection) -> None:
    connection.execute(text(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {LEDGER}"))
    for table, rights in LEDGER_RIGHTS.items():
        connection.execute(text(f"GRANT {rights} ON {table} TO {LEDGER}"))
    for function in _LEDGER_FUNCTIONS:
        connection.execute(text(f"GRANT EXECUTE ON FUNCTION {function} TO {LEDGER}"))


def _secure_rows(connection: Connection, table: Row[Any]) -> None:
    """Add what is missing. A table that has a policy of its own, made by its migration, keeps it instead of ours."""
    wanted = {_POLICY: f"USING ({_ROWS.get(table.name, _OF_TENANT)})"}
    if any(not policy.startswith(_FAMILIES) for policy in table.policies):
        wanted = {}
    if table.name in LEDGER_RIGHTS:
        # It serves all tenants in one statement. Said like this it costs nothing; a look at the setting would keep
        # `window_start = to_timestamp(...)` out of the index.
        wanted[_LEDGER_POLICY] = f"TO {LEDGER} USING (true)"
    for policy in table.policies:
        if policy.startswith(_FAMILIES) and policy not in wanted:
            connection.execute(text(f"DROP POLICY {policy} ON {table.name}"))
    for policy, rows in wanted.items():
        if policy not in table.policies:
            connection.execute(text(f"CREATE POLICY {policy} ON {table.name} {rows}"))
    if not table.is_forced:
        connection.execute(text(f"ALTER TABLE {table.name} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"))
