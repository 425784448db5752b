"""Whether PostgreSQL is there, has room, is the schema that this server wants, and keeps tenants apart."""

import time
from functools import cache
from typing import Final

from tollhouse_server.database.roles import CONTROL
from tollhouse_server.errors import StoreUnavailable
from tollhouse_server.operations.checks import store
from tollhouse_server.operations.checks.terms import (
    Finding,
    Surroundings,
    duration_text,
    failure,
    fine,
    size_text,
    skipped,
    warning,
)

_OLDEST_MAJOR: Final = 15
_SLOW_SECONDS: Final = 0.1
_CONNECTIONS_LEFT: Final = 10
_LONG_SECONDS: Final = 60.0
_LAG_BYTES: Final = 2**30

_MIGRATE: Final = "tollhouse-server migrate"


async def reachable(surroundings: Surroundings) -> Finding:
    """Say which PostgreSQL answers, and how fast."""
    try:
        async with surroundings.database.single_query() as session:
            version = await store.version_of(session)
            started_at = time.perf_counter()
            await store.now(session)
            seconds = time.perf_counter() - started_at
    except StoreUnavailable as error:
        return failure(
            f"PostgreSQL does not answer ({error.detail})",
            "See that it runs and that TOLLHOUSE_POSTGRES_DSN names it: pg_isready -h HOST -p PORT",
        )
    seen = f"PostgreSQL {version.split()[0]}, {duration_text(seconds)} a question"
    if int(version.split(".")[0]) < _OLDEST_MAJOR:
        return warning(seen, f"Upgrade to PostgreSQL {_OLDEST_MAJOR} or later")
    if seconds > _SLOW_SECONDS:
        return warning(seen, "Every call waits for PostgreSQL: put it nearer, or see what keeps it busy")
    return fine(seen)


async def writable(surroundings: Surroundings) -> Finding:
    """See that PostgreSQL takes writes: without them no call is admitted, and everything else looks well."""
    async with surroundings.database.single_query() as session:
        found = await store.writes(session)
    if found.is_replica:
        return failure(
            "PostgreSQL is a replica, which takes no writes: no call is admitted",
            "Name the primary in TOLLHOUSE_POSTGRES_DSN, or make this one it: SELECT pg_promote()",
        )
    if found.is_read_only:
        return failure(
            "PostgreSQL is set to be read only: no call is admitted",
            "See who set it, and whether its disk is full: SELECT * FROM pg_db_role_setting; df -h",
        )
    return fine("takes writes")


async def connections(surroundings: Surroundings) -> Finding:
    """See whether PostgreSQL has connections to give."""
    async with surroundings.database.single_query() as session:
        used, most = await store.connections(session)
    seen = f"{used} of {most} connections used"
    if most - used < _CONNECTIONS_LEFT:
        return failure(seen, "Raise max_connections, or start fewer workers (TOLLHOUSE_WORKERS)")
    return fine(seen) if used < most * 0.8 else warning(seen, "Raise max_connections before more workers are started")


async def role(surroundings: Surroundings) -> Finding:
    """See that the server works under the role that row security binds."""
    async with surroundings.database.single_query() as session:
        found = await store.role(session)
    seen = f"works as {found.name}, logged in as {found.login}"
    if found.is_above:
        return failure(f"{seen}: row security does not bind it", "Log in as tollhouse_app: deploy/postgres/roles.sh")
    if found.name != CONTROL:
        return failure(seen, f"It must work as {CONTROL}; a pooler in between must hand on settings of a session")
    return fine(seen)


async def row_security(surroundings: Surroundings) -> Finding:
    """See that every table of tenants shows a tenant his own rows only."""
    async with surroundings.database.single_query() as session:
        unforced = await store.unforced_tables(session)
    if unforced:
        return failure(f"not in force on {', '.join(unforced[:5])}", f"Put it in force again: {_MIGRATE}")
    return fine("in force on every table of tenants")


async def transactions(surroundings: Surroundings) -> Finding:
    """See whether a transaction is open for so long that it holds others up."""
    async with surroundings.database.transaction() as session:
        oldest = await store.longest_transaction(session)
    if oldest is None or oldest.seconds < _LONG_SECONDS:
        return fine(f"none is open for longer than {duration_text(_LONG_SECONDS)}")
    seen = f"process {oldest.pid} has had one open for {duration_text(oldest.seconds)}"
    return warning(seen, f"See what it does, end it if need be: SELECT pg_terminate_backend({oldest.pid})")


async def replication(surroundings: Surroundings) -> Finding:
    """See whether a replica has fallen behind, and PostgreSQL keeps what it has not had."""
    async with surroundings.database.single_query() as session:
        slots = await store.replication_slots(session)
    if not slots:
        return skipped("there are no replication slots")
    behind = [one for one in slots if not one.active or (one.lag_bytes or 0) > _LAG_BYTES]
    if not behind:
        return fine(f"{len(slots)} slots, none behind")
    worst = max(behind, key=lambda one: one.lag_bytes or 0)
    state = "active" if worst.active else "inactive"
    seen = f"slot {worst.slot_name} is {state} and {size_text(worst.lag_bytes or 0)} behind"
    return warning(seen, f"See its replica, or drop it: SELECT pg_drop_replication_slot('{worst.slot_name}')")


async def migrations(surroundings: Surroundings) -> Finding:
    """See that the schema is what this version of the server wants."""
    async with surroundings.database.single_query() as session:
        noted = await store.revisions(session)
    wanted = _newest_migration()
    if noted is None:
        return warning("this server may not read which migration the schema is at", f"Run once: {_MIGRATE}")
    if len(noted) != 1:
        seen = f"at {' and '.join(noted)} at once" if noted else "at no migration: an empty database, or half of one"
        return failure(seen, f"See that it is the right database, restored whole; then run: {_MIGRATE}")
    found = noted[0]
    if found == wanted:
        return fine(f"at {found}, the newest")
    if found > wanted:
        return warning(f"at {found}, this server knows up to {wanted}", "Upgrade this server: another is newer")
    return failure(f"at {found}, this server wants {wanted}", f"Run: {_MIGRATE}")


@cache
def _newest_migration() -> str:
    # No worker needs alembic before somebody asks for this.
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    from tollhouse_server.database.migrate import config_for  # noqa: PLC0415

    return str(ScriptDirectory.from_config(config_for("postgresql://nowhere/none")).get_current_head())


async def partitions(surroundings: Surroundings) -> Finding:
    """See that records of the next days have a place to go."""
    async with surroundings.database.single_query() as session:
        missing = await store.missing_partitions(session)
    if missing:
        advice = "The housekeeper makes them every hour: see partitions_not_made and chore_failed in the server's log"
        return failure(f"missing: {', '.join(missing)}", advice)
    return fine("there through tomorrow and next month")
