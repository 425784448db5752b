"""The ledger: limits with counters, attempts in flight, append-only usage records, suspense, worker epochs."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TABLES = """
CREATE TABLE usage_limit (
    tenant_id   text        NOT NULL REFERENCES tenant (tenant_id),
    limit_id    bigint      GENERATED ALWAYS AS IDENTITY,
    name        text        NOT NULL,
    scope       text        NOT NULL,
    metric      text        NOT NULL,
    "window"    text        NOT NULL,
    selector    text        NOT NULL DEFAULT '',
    mode        text        NOT NULL DEFAULT 'STRICT',
    amount      bigint      NOT NULL CHECK (amount >= 0),
    state       text        NOT NULL DEFAULT 'ACTIVE' CHECK (state IN ('ACTIVE', 'DELETED')),
    version     bigint      NOT NULL DEFAULT 1,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, limit_id)
);
CREATE UNIQUE INDEX usage_limit_name ON usage_limit (tenant_id, name) WHERE state = 'ACTIVE';
CREATE INDEX usage_limit_scope ON usage_limit (tenant_id, scope) WHERE state = 'ACTIVE';

-- fillfactor: both columns that change are in no index, so with room on the page each update is a HOT update.
CREATE TABLE counter (
    tenant_id    text        NOT NULL,
    limit_id     bigint      NOT NULL,
    window_start timestamptz NOT NULL,
    held         bigint      NOT NULL DEFAULT 0 CHECK (held >= 0),
    settled      bigint      NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, limit_id, window_start)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

CREATE TABLE worker (
    epoch        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    host         text        NOT NULL,
    pid          integer     NOT NULL,
    state        text        NOT NULL DEFAULT 'ALIVE' CHECK (state IN ('ALIVE', 'DEAD')),
    started_at   timestamptz NOT NULL DEFAULT now(),
    heartbeat_at timestamptz NOT NULL DEFAULT now()
);

-- As small as the number of calls in flight: settling deletes the row.
CREATE TABLE attempt (
    tenant_id           text        NOT NULL,
    attempt_id          uuid        NOT NULL,
    request_id          uuid        NOT NULL,
    worker_epoch        bigint      NOT NULL,
    department_path     text[]      NOT NULL,
    project_id          text        NOT NULL,
    credential_id       text        NOT NULL,
    principal_id        text        NOT NULL,
    method              text        NOT NULL,
    tier                text        NOT NULL,
    model               text        NOT NULL,
    account_id          text        NOT NULL,
    labels              jsonb       NOT NULL,
    price_version       bigint      NOT NULL,
    input_tokens        bigint      NOT NULL,
    output_tokens       bigint      NOT NULL,
    images              bigint      NOT NULL,
    ceiling_nanos       bigint      NOT NULL,
    holds               jsonb       NOT NULL,
    dispatched_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, attempt_id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX attempt_worker ON attempt (worker_epoch);

CREATE TABLE request_key (
    tenant_id   text        NOT NULL,
    request_id  uuid        NOT NULL,
    fingerprint bytea       NOT NULL,
    attempt_id  uuid        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, request_id)
);
CREATE INDEX request_key_age ON request_key USING brin (created_at);

CREATE TABLE suspense (
    tenant_id     text        NOT NULL,
    attempt_id    uuid        NOT NULL,
    suspended_at  timestamptz NOT NULL DEFAULT now(),
    worker_epoch  bigint      NOT NULL,
    cause         text        NOT NULL,
    requests      bigint      NOT NULL,
    input_tokens  bigint      NOT NULL,
    output_tokens bigint      NOT NULL,
    images        bigint      NOT NULL,
    cost_nanos    bigint      NOT NULL,
    resolved_at   timestamptz,
    resolution    text,
    PRIMARY KEY (tenant_id, attempt_id)
);
CREATE INDEX suspense_open ON suspense (suspended_at) WHERE resolved_at IS NULL;

-- Append-only. Every attempt ends as exactly one record of kind SETTLED, REFUSED or SUSPENSE; what becomes known
-- of a suspended one later is an ADJUSTMENT that carries the difference.
CREATE TABLE usage_record (
    tenant_id       text        NOT NULL,
    attempt_id      uuid        NOT NULL,
    settled_at      timestamptz NOT NULL DEFAULT now(),
    kind            text        NOT NULL CHECK (kind IN ('SETTLED', 'REFUSED', 'SUSPENSE', 'ADJUSTMENT')),
    request_id      uuid        NOT NULL,
    dispatched_at   timestamptz NOT NULL,
    worker_epoch    bigint      NOT NULL,
    department_path text[]      NOT NULL,
    project_id      text        NOT NULL,
    credential_id   text        NOT NULL,
    principal_id    text        NOT NULL,
    method          text        NOT NULL,
    tier            text        NOT NULL,
    model           text        NOT NULL,
    account_id      text        NOT NULL,
    labels          jsonb       NOT NULL,
    price_version   bigint      NOT NULL,
    requests        bigint      NOT NULL,
    input_tokens    bigint      NOT NULL,
    output_tokens   bigint      NOT NULL,
    images          bigint      NOT NULL,
    cost_nanos      bigint      NOT NULL,
    ceiling_nanos   bigint      NOT NULL,
    usage           jsonb       NOT NULL,
    lines           jsonb       NOT NULL,
    outcome         text        NOT NULL,
    response_id     text        NOT NULL,
    PRIMARY KEY (tenant_id, attempt_id, settled_at)
) PARTITION BY RANGE (settled_at);
CREATE INDEX usage_record_time ON usage_record (tenant_id, settled_at);
CREATE TABLE usage_record_default PARTITION OF usage_record DEFAULT;
"""

# Partitions are made ahead by the housekeeper; the application role owns nothing, so it goes through this one door.
_PARTITIONS = """
CREATE FUNCTION create_usage_partition(month date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
DECLARE
    first date := date_trunc('month', month)::date;
    partition text := 'usage_record_' || to_char(first, 'YYYY_MM');
BEGIN
    IF to_regclass(partition) IS NULL THEN
        EXECUTE format(
            'CREATE TABLE %I PARTITION OF usage_record FOR VALUES FROM (%L) TO (%L)',
            partition,
            first::timestamp AT TIME ZONE 'UTC',
            (first + interval '1 month') AT TIME ZONE 'UTC'
        );
    END IF;
END
$$;
REVOKE ALL ON FUNCTION create_usage_partition(date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION create_usage_partition(date) TO tollhouse_app;
SELECT create_usage_partition((now() + make_interval(months => ahead))::date) FROM generate_series(0, 2) AS ahead;
"""

_GRANTS = """
GRANT SELECT, INSERT, UPDATE ON usage_limit, counter, worker, suspense TO tollhouse_app;
GRANT DELETE ON counter, worker TO tollhouse_app;
GRANT SELECT, INSERT, DELETE ON attempt, request_key TO tollhouse_app;
GRANT SELECT, INSERT ON usage_record TO tollhouse_app;
"""


def _statements(script: str) -> list[str]:
    """Split a script of plain statements: asyncpg prepares one statement at a time."""
    return [statement for statement in script.split(";\n") if statement.strip()]


def upgrade() -> None:
    """Create the ledger's tables, its partitions and its grants."""
    for statement in _statements(_TABLES):
        op.execute(statement)
    function, *rest = _PARTITIONS.split("$$;\n")
    op.execute(function + "$$")
    for statement in (*_statements(rest[0]), *_statements(_GRANTS)):
        op.execute(statement)


def downgrade() -> None:
    """Drop the ledger."""
    op.execute("DROP FUNCTION create_usage_partition(date)")
    for table in ("usage_record", "suspense", "request_key", "attempt", "worker", "counter", "usage_limit"):
        op.execute(f"DROP TABLE {table}")
