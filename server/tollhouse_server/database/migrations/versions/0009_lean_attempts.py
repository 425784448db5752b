"""A lean attempt, request keys by day, and no partition where its rows stand elsewhere.

Stop every server before this one: both tables get another shape; what they hold is carried over.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_ATTEMPTS = (
    "-- squawk-ignore renaming-table\nALTER TABLE attempt RENAME TO attempt_before",
    "-- squawk-ignore renaming-object\nALTER INDEX attempt_pkey RENAME TO attempt_before_pkey",
    # As small as the number of calls in flight. `terms` has what a usage record needs besides the keys; `holds` is a
    # list of [limit_id, window start, metric, amount, expected amount].
    """
CREATE TABLE attempt (
    tenant_id     text        NOT NULL,
    attempt_id    uuid        NOT NULL,
    request_id    uuid        NOT NULL,
    worker_epoch  bigint      NOT NULL,
    dispatched_at timestamptz NOT NULL,
    top_ups       integer     NOT NULL DEFAULT 0,
    terms         json        NOT NULL,
    holds         json        NOT NULL,
    CONSTRAINT attempt_pkey PRIMARY KEY (tenant_id, attempt_id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05)""",
    """
INSERT INTO attempt (tenant_id, attempt_id, request_id, worker_epoch, dispatched_at, terms, holds)
SELECT tenant_id, attempt_id, request_id, worker_epoch, dispatched_at,
    json_build_object(
        'department_path', department_path, 'project_id', project_id, 'credential_id', credential_id,
        'principal_id', principal_id, 'method', method, 'tier', tier, 'model', model, 'account_id', account_id,
        'labels', labels, 'price_version', price_version,
        'ceiling', json_build_array(1, input_tokens, output_tokens, images, ceiling_nanos)
    ),
    (SELECT coalesce(json_agg(json_build_array(h -> 0, h -> 1, h -> 2, h -> 3, 0)), '[]')
     FROM jsonb_array_elements(holds) AS h)
FROM attempt_before""",
    "-- squawk-ignore ban-drop-table\nDROP TABLE attempt_before",
)

_REQUEST_KEYS = (
    "-- squawk-ignore renaming-table\nALTER TABLE request_key RENAME TO request_key_before",
    "-- squawk-ignore renaming-object\nALTER INDEX request_key_pkey RENAME TO request_key_before_pkey",
    # By day (UTC), so that old ids go by dropping a partition: deleting millions of rows a day would bloat the table.
    """
CREATE TABLE request_key (
    tenant_id   text        NOT NULL,
    request_id  uuid        NOT NULL,
    day         date        NOT NULL,
    fingerprint bytea       NOT NULL,
    attempt_id  uuid        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT request_key_pkey PRIMARY KEY (tenant_id, request_id, day)
) PARTITION BY RANGE (day)""",
    "CREATE TABLE request_key_default PARTITION OF request_key DEFAULT",
    """
CREATE FUNCTION create_request_partition(wanted date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
DECLARE
    partition text := 'request_key_' || to_char(wanted, 'YYYY_MM_DD');
BEGIN
    -- Keys of a day that stand in the default partition go with it when they are old; until then the day stays there.
    IF to_regclass(partition) IS NULL AND NOT EXISTS (SELECT FROM request_key_default WHERE day = wanted) THEN
        EXECUTE format(
            'CREATE TABLE %I PARTITION OF request_key FOR VALUES FROM (%L) TO (%L)', partition, wanted, wanted + 1
        );
    END IF;
END
$$""",
    """
CREATE FUNCTION drop_request_partitions(before date) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
DECLARE
    partition text;
    dropped integer := 0;
BEGIN
    FOR partition IN
        SELECT child.relname FROM pg_inherits
        JOIN pg_class child ON child.oid = inhrelid JOIN pg_class parent ON parent.oid = inhparent
        WHERE parent.relname = 'request_key' AND child.relname ~ '^request_key_[0-9]{4}_[0-9]{2}_[0-9]{2}$'
            AND to_date(right(child.relname, 10), 'YYYY_MM_DD') < before
    LOOP
        EXECUTE format('DROP TABLE %I', partition);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$$""",
    "SELECT create_request_partition((now() AT TIME ZONE 'UTC')::date + ahead) FROM generate_series(-1, 2) AS ahead",
    """
INSERT INTO request_key (tenant_id, request_id, day, fingerprint, attempt_id, created_at)
SELECT tenant_id, request_id, (created_at AT TIME ZONE 'UTC')::date, fingerprint, attempt_id, created_at
FROM request_key_before WHERE created_at > now() - interval '24 hours'""",
    "-- squawk-ignore ban-drop-table\nDROP TABLE request_key_before",
)

# A month some of whose records stand in the default partition already stays there: it is read as any other, only not
# dropped after its export. Three months are made ahead, so it takes months without a housekeeper to get there.
_USAGE_PARTITIONS = (
    """
CREATE OR REPLACE FUNCTION create_usage_partition(month date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
DECLARE
    first date := date_trunc('month', month)::date;
    starts timestamptz := first::timestamp AT TIME ZONE 'UTC';
    ends timestamptz := (first + interval '1 month') AT TIME ZONE 'UTC';
    partition text := 'usage_record_' || to_char(first, 'YYYY_MM');
BEGIN
    IF to_regclass(partition) IS NULL
        AND NOT EXISTS (SELECT FROM usage_record_default WHERE settled_at >= starts AND settled_at < ends)
    THEN
        EXECUTE format(
            'CREATE TABLE %I PARTITION OF usage_record FOR VALUES FROM (%L) TO (%L)', partition, starts, ends
        );
    END IF;
END
$$""",
)

_GRANTS = (
    "GRANT SELECT, INSERT, UPDATE, DELETE ON attempt TO tollhouse_app",
    "GRANT SELECT, INSERT, DELETE, UPDATE (attempt_id) ON request_key TO tollhouse_app",
    "REVOKE ALL ON FUNCTION create_request_partition(date), drop_request_partitions(date) FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION create_request_partition(date), drop_request_partitions(date) TO tollhouse_app",
)


def upgrade() -> None:
    """Slim attempts down and part request keys by day."""
    for statement in (*_ATTEMPTS, *_REQUEST_KEYS, *_USAGE_PARTITIONS, *_GRANTS):
        op.execute(statement)


def downgrade() -> None:
    """There is no way back: an attempt no longer has columns for the old shape."""
    raise NotImplementedError("restore the backup that was made before the upgrade")
