"""A trap on every commit: PostgreSQL itself notes each counter that is committed above its limit."""

from dataclasses import dataclass

import asyncpg
from tollhouse_server.database.roles import ALL_TENANTS, TENANT_SETTING

# Deferred: it runs as the transaction commits, and reads what is about to be committed, of whichever tenant. A
# transaction that is rolled back takes its note along, so what stands here was committed.
_TRAP = (
    "CREATE TABLE budget_watch (limit_id bigint PRIMARY KEY, commits bigint NOT NULL, most bigint NOT NULL)",
    "CREATE TABLE budget_passed (limit_id bigint, held bigint, settled bigint, amount bigint, at timestamptz)",
    f"""
CREATE FUNCTION budget_trap() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
DECLARE
    committed counter;
    allowed bigint;
BEGIN
    PERFORM set_config('{TENANT_SETTING}', '{ALL_TENANTS}', true);
    SELECT * INTO committed FROM counter
    WHERE tenant_id = NEW.tenant_id AND limit_id = NEW.limit_id AND window_start = NEW.window_start;
    SELECT amount INTO allowed FROM usage_limit
    WHERE tenant_id = NEW.tenant_id AND limit_id = NEW.limit_id AND mode = 'STRICT';
    IF committed.held + committed.settled > allowed THEN
        INSERT INTO budget_passed VALUES (NEW.limit_id, committed.held, committed.settled, allowed, clock_timestamp());
    END IF;
    INSERT INTO budget_watch AS w VALUES (NEW.limit_id, 1, committed.held + committed.settled)
    ON CONFLICT (limit_id) DO UPDATE SET commits = w.commits + 1, most = greatest(w.most, excluded.most);
    RETURN NULL;
END $$""",  # noqa: S608 - constants
    """
CREATE CONSTRAINT TRIGGER budget_trap AFTER INSERT OR UPDATE ON counter DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION budget_trap()""",
)


@dataclass(frozen=True, slots=True)
class Watched:
    """What the trap has seen of one limit: committed changes, the most that was counted, how often it was passed."""

    commits: int
    most: int
    passed: int


async def set_trap(dsn: str) -> None:
    """Install the trap, as the owner of the tables."""
    connection = await asyncpg.connect(dsn)
    try:
        for statement in _TRAP:
            await connection.execute(statement)
    finally:
        await connection.close()


async def watched(connection: "asyncpg.Connection[asyncpg.Record]", limit_id: int) -> Watched:
    """Return what the trap has seen of a limit."""
    row = await connection.fetchrow("SELECT commits, most FROM budget_watch WHERE limit_id = $1", limit_id)
    passed = await connection.fetchval("SELECT count(*) FROM budget_passed WHERE limit_id = $1", limit_id)
    return Watched(row["commits"] if row else 0, row["most"] if row else 0, passed)
