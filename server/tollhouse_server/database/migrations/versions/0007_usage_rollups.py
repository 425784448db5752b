"""Roll-ups of usage records by day, and what is known of exported months."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_KEY = """
    tenant_id       text        NOT NULL,
    day_start       timestamptz NOT NULL,
    department_path text[]      NOT NULL,
    project_id      text        NOT NULL,
    credential_id   text        NOT NULL,
    tier            text        NOT NULL,
    model           text        NOT NULL,
"""

# Sums are numeric: a sum of bigints may pass what a bigint holds.
_ROLLUPS = (
    # The days of a tenant that are rolled up: a chain without gaps, each beginning where the one before ended. Its row
    # here is what makes a day count, days without any record included.
    """
CREATE TABLE usage_rollup_day (
    tenant_id    text        NOT NULL,
    day_start    timestamptz NOT NULL,
    day_end      timestamptz NOT NULL,
    time_zone    text        NOT NULL,
    record_count bigint      NOT NULL,
    cost_nanos   numeric     NOT NULL,
    built_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT usage_rollup_day_pkey PRIMARY KEY (tenant_id, day_start),
    CONSTRAINT usage_rollup_day_check CHECK (day_end > day_start)
)""",
    f"""
CREATE TABLE usage_rollup (
    {_KEY}
    record_count    bigint      NOT NULL,
    is_booked       boolean     NOT NULL,
    calls           numeric     NOT NULL,
    input_tokens    numeric     NOT NULL,
    output_tokens   numeric     NOT NULL,
    images          numeric     NOT NULL,
    cost_nanos      numeric     NOT NULL,
    cached_tokens   numeric     NOT NULL,
    tool_use_tokens numeric     NOT NULL,
    thoughts_tokens numeric     NOT NULL,
    CONSTRAINT usage_rollup_pkey
        PRIMARY KEY (tenant_id, day_start, department_path, project_id, credential_id, tier, model)
)""",
    f"""
CREATE TABLE usage_rollup_sku (
    {_KEY}
    sku             text        NOT NULL,
    calls           numeric     NOT NULL,
    quantity        numeric     NOT NULL,
    cost_nanos      numeric     NOT NULL,
    CONSTRAINT usage_rollup_sku_pkey
        PRIMARY KEY (tenant_id, day_start, department_path, project_id, credential_id, tier, model, sku)
)""",
    """
CREATE TABLE usage_export (
    month          date        NOT NULL,
    state          text        NOT NULL DEFAULT 'READY' CONSTRAINT usage_export_state_check
        CHECK (state IN ('READY', 'CONFIRMED', 'DROPPED')),
    record_count   bigint      NOT NULL,
    cost_nanos     numeric     NOT NULL,
    checksum       numeric     NOT NULL,
    content_sha256 text        NOT NULL DEFAULT '',
    location       text        NOT NULL DEFAULT '',
    created_at     timestamptz NOT NULL DEFAULT now(),
    created_by     text        NOT NULL,
    confirmed_at   timestamptz,
    confirmed_by   text        NOT NULL DEFAULT '',
    dropped_at     timestamptz,
    CONSTRAINT usage_export_pkey PRIMARY KEY (month),
    CONSTRAINT usage_export_month_check CHECK (extract(day FROM month) = 1)
)""",
)

# Row by row the same on both sides of an export, whatever order the rows are read in: every record is one line of JSON,
# and the checksum of many is the sum of the first 15 hexadecimal digits (60 bits) of each line's SHA-256.
_LINES = (
    """
CREATE FUNCTION usage_record_line(record usage_record) RETURNS text LANGUAGE sql STABLE AS
    'SELECT to_jsonb(record)::text'""",
    """
CREATE FUNCTION usage_line_checksum(line text) RETURNS bigint LANGUAGE sql IMMUTABLE AS
    $$SELECT ('x' || left(encode(sha256(convert_to(line, 'UTF8')), 'hex'), 15))::bit(60)::bigint$$""",
)

# The application role owns nothing: this is the one door through which records leave, and it looks for itself. The
# short lock_timeout is for the ticks, which queue behind whoever waits for the table alone.
_DROP = """
CREATE FUNCTION drop_usage_partition(month date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public SET lock_timeout = '500ms' AS $$
DECLARE
    first date := month - (extract(day FROM month)::integer - 1);
    starts timestamptz := first::timestamp AT TIME ZONE 'UTC';
    ends timestamptz := (first + interval '1 month') AT TIME ZONE 'UTC';
    partition text := 'usage_record_' || to_char(first, 'YYYY_MM');
    export usage_export;
    found_count bigint;
    found_nanos numeric;
BEGIN
    SELECT * INTO export FROM usage_export e WHERE e.month = first FOR UPDATE;
    IF export.state IS DISTINCT FROM 'CONFIRMED' THEN
        RAISE EXCEPTION 'no confirmed export' USING ERRCODE = 'TH001';
    END IF;
    IF ends + interval '1 month' > clock_timestamp() THEN
        RAISE EXCEPTION 'ended less than a month ago' USING ERRCODE = 'TH001';
    END IF;
    IF to_regclass(partition) IS NULL THEN
        RAISE EXCEPTION 'has no partition of its own' USING ERRCODE = 'TH001';
    END IF;
    IF EXISTS (
        SELECT FROM suspense s JOIN usage_record r USING (tenant_id, attempt_id)
        WHERE s.resolved_at IS NULL AND r.settled_at >= starts AND r.settled_at < ends
    ) THEN
        RAISE EXCEPTION 'has attempts in suspense' USING ERRCODE = 'TH001';
    END IF;
    IF EXISTS (
        SELECT FROM tenant t
        WHERE EXISTS (
            SELECT FROM usage_record r
            WHERE r.tenant_id = t.tenant_id AND r.settled_at >= starts AND r.settled_at < ends
        ) AND NOT EXISTS (
            SELECT FROM usage_rollup_day d WHERE d.tenant_id = t.tenant_id AND d.day_end >= ends
        )
    ) THEN
        RAISE EXCEPTION 'is not rolled up' USING ERRCODE = 'TH001';
    END IF;
    SELECT count(*), coalesce(sum(r.cost_nanos), 0) INTO found_count, found_nanos
    FROM usage_record r WHERE r.settled_at >= starts AND r.settled_at < ends;
    IF found_count <> export.record_count OR found_nanos <> export.cost_nanos THEN
        RAISE EXCEPTION 'is not what was exported' USING ERRCODE = 'TH001';
    END IF;
    UPDATE usage_export e SET state = 'DROPPED', dropped_at = clock_timestamp() WHERE e.month = first;
    EXECUTE format('DROP TABLE %I', partition);
END
$$"""

_GRANTS = (
    # A day that is built is never built again: what is corrected later is a record of a later day.
    "GRANT SELECT, INSERT ON usage_rollup_day, usage_rollup, usage_rollup_sku TO tollhouse_app",
    "GRANT SELECT, INSERT, UPDATE ON usage_export TO tollhouse_app",
    "REVOKE ALL ON FUNCTION drop_usage_partition(date) FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION drop_usage_partition(date) TO tollhouse_app",
    "GRANT DELETE ON limit_alert TO tollhouse_app",
)


def upgrade() -> None:
    """Create the roll-ups, the exports and the door through which exported months leave."""
    for statement in (*_ROLLUPS, *_LINES, _DROP, *_GRANTS):
        op.execute(statement)


def downgrade() -> None:
    """Drop them; records that were dropped after an export stay where the export is."""
    op.execute("DROP FUNCTION drop_usage_partition(date)")
    op.execute("DROP FUNCTION usage_line_checksum(text)")
    op.execute("DROP FUNCTION usage_record_line(usage_record)")
    op.execute("DROP TABLE usage_export, usage_rollup_sku, usage_rollup, usage_rollup_day")
