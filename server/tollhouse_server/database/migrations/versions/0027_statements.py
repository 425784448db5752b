"""Months of tenants: previewed, closed, corrected; and what statements need of each day beside its roll-ups."""

from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

_PERIODS = (
    # A month without a row is OPEN.
    """
CREATE TABLE billing_period (
    tenant_id    text        NOT NULL REFERENCES tenant (tenant_id),
    month        text        NOT NULL,
    state        text        NOT NULL CONSTRAINT billing_period_state_check
        CHECK (state IN ('OPEN', 'PREVIEW', 'CLOSED')),
    starts_at    timestamptz NOT NULL,
    ends_at      timestamptz NOT NULL,
    time_zone    text        NOT NULL,
    is_fiscal    boolean     NOT NULL,
    previewed_at timestamptz,
    previewed_by text        NOT NULL DEFAULT '',
    closed_at    timestamptz,
    closed_by    text        NOT NULL DEFAULT '',
    sha256       text        NOT NULL DEFAULT '',
    version      bigint      NOT NULL DEFAULT 1,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT billing_period_pkey PRIMARY KEY (tenant_id, month),
    CONSTRAINT billing_period_check CHECK (ends_at > starts_at)
)""",
    # The sealed statements; `department_id` is empty for that of the tenant. `document` is the text that was digested.
    """
CREATE TABLE sealed_statement (
    tenant_id     text    NOT NULL,
    month         text    NOT NULL,
    department_id text    NOT NULL,
    document      bytea   NOT NULL,
    sha256        text    NOT NULL,
    signature     text    NOT NULL,
    key_version   integer NOT NULL,
    tree_size     bigint  NOT NULL,
    leaf_index    bigint  NOT NULL,
    path          text[]  NOT NULL,
    CONSTRAINT sealed_statement_pkey PRIMARY KEY (tenant_id, month, department_id)
)""",
    """
CREATE TABLE adjustment (
    tenant_id     text        NOT NULL REFERENCES tenant (tenant_id),
    adjustment_id text        NOT NULL,
    month         text        NOT NULL,
    department_id text        NOT NULL DEFAULT '',
    project_id    text        NOT NULL DEFAULT '',
    amount_nanos  bigint      NOT NULL CONSTRAINT adjustment_amount_check CHECK (amount_nanos <> 0),
    reason        text        NOT NULL,
    for_month     text        NOT NULL DEFAULT '',
    created_at    timestamptz NOT NULL DEFAULT now(),
    created_by    text        NOT NULL,
    CONSTRAINT adjustment_pkey PRIMARY KEY (tenant_id, adjustment_id)
)""",
    "CREATE INDEX adjustment_month ON adjustment (tenant_id, month)",
)

# Days that were rolled up before this migration have no rows here and say so: then the records are asked.
_ROLLUPS = (
    "ALTER TABLE usage_rollup_day ADD COLUMN has_details boolean NOT NULL DEFAULT false",
    """
CREATE TABLE usage_rollup_label (
    tenant_id       text        NOT NULL,
    day_start       timestamptz NOT NULL,
    department_path text[]      NOT NULL,
    label           text        NOT NULL,
    value           text        NOT NULL,
    calls           numeric     NOT NULL,
    cost_nanos      numeric     NOT NULL,
    CONSTRAINT usage_rollup_label_pkey PRIMARY KEY (tenant_id, day_start, department_path, label, value)
)""",
    """
CREATE TABLE usage_rollup_price (
    tenant_id         text        NOT NULL,
    day_start         timestamptz NOT NULL,
    department_path   text[]      NOT NULL,
    model             text        NOT NULL,
    service_tier      text        NOT NULL,
    price_version     bigint      NOT NULL,
    sku               text        NOT NULL,
    nanos_per_million bigint      NOT NULL,
    quantity          numeric     NOT NULL,
    cost_nanos        numeric     NOT NULL,
    CONSTRAINT usage_rollup_price_pkey PRIMARY KEY (
        tenant_id, day_start, department_path, model, service_tier, price_version, sku, nanos_per_million
    )
)""",
)

# What triggers go by: a list that no role but the owner's may touch, and without row security, so that no session can
# look past it by naming another tenant. It is written by a trigger, when a month is closed.
_LOCKS = (
    """
CREATE TABLE closed_month (
    tenant    text        NOT NULL,
    month     text        NOT NULL,
    starts_at timestamptz NOT NULL,
    ends_at   timestamptz NOT NULL,
    CONSTRAINT closed_month_pkey PRIMARY KEY (tenant, month)
)""",
    """
CREATE FUNCTION refuse_closed(tenant text, month text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'tenants/%/periods/% is closed', tenant, month USING ERRCODE = 'TH002';
END
$$""",
    """
CREATE FUNCTION keep_closed_period() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
    IF TG_OP <> 'INSERT' AND OLD.state = 'CLOSED' THEN
        PERFORM refuse_closed(OLD.tenant_id, OLD.month);
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    IF NEW.state = 'CLOSED' THEN
        INSERT INTO closed_month (tenant, month, starts_at, ends_at)
            VALUES (NEW.tenant_id, NEW.month, NEW.starts_at, NEW.ends_at);
    END IF;
    RETURN NEW;
END
$$""",
    """
CREATE FUNCTION keep_sealed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
    PERFORM refuse_closed(OLD.tenant_id, OLD.month);
    RETURN NULL;
END
$$""",
    # FOR SHARE waits for a close that is under way, and makes one that comes wait.
    """
CREATE FUNCTION refuse_in_closed_month() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
    PERFORM FROM billing_period p WHERE p.tenant_id = NEW.tenant_id AND p.month = NEW.month FOR SHARE;
    IF EXISTS (SELECT FROM closed_month c WHERE c.tenant = NEW.tenant_id AND c.month = NEW.month) THEN
        PERFORM refuse_closed(NEW.tenant_id, NEW.month);
    END IF;
    RETURN NEW;
END
$$""",
    """
CREATE FUNCTION refuse_record_of_closed_month() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
DECLARE
    closed record;
BEGIN
    SELECT c.tenant, c.month INTO closed FROM closed_month c
    WHERE c.tenant = NEW.tenant_id AND c.starts_at <= NEW.settled_at AND NEW.settled_at < c.ends_at LIMIT 1;
    IF FOUND THEN
        PERFORM refuse_closed(closed.tenant, closed.month);
    END IF;
    RETURN NEW;
END
$$""",
)


# It looks at all rows of one INSERT together.
_REFUSE_ROWS = """
CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
DECLARE
    closed record;
BEGIN
    SELECT c.tenant, c.month INTO closed FROM fresh f JOIN closed_month c
        ON c.tenant = f.tenant_id AND c.starts_at <= f.{moment} AND f.{moment} < c.ends_at LIMIT 1;
    IF FOUND THEN
        PERFORM refuse_closed(closed.tenant, closed.month);
    END IF;
    RETURN NULL;
END
$$"""


# Puts the guard on the partitions that a month touches, once the month is over: partitions of months that run have none
# but for tenants whose month ends within them, and there the condition says `no` without a call. The short lock_timeout
# is for the ticks, which queue behind whoever waits for the table.
_GUARD = """
CREATE FUNCTION guard_usage_partitions(starts timestamptz, ends timestamptz) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public SET lock_timeout = '500ms' AS $$
DECLARE
    partition record;
    guarded timestamptz;
BEGIN
    IF ends > clock_timestamp() THEN
        RAISE EXCEPTION 'is not over' USING ERRCODE = 'TH001';
    END IF;
    FOR partition IN
        SELECT c.oid, c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'usage_record'::regclass AND (
            CASE WHEN c.relname = 'usage_record_default' THEN true ELSE
                to_date(right(c.relname, 7), 'YYYY_MM')::timestamp AT TIME ZONE 'UTC' < ends
                AND (to_date(right(c.relname, 7), 'YYYY_MM') + interval '1 month') AT TIME ZONE 'UTC' > starts END
        )
        ORDER BY c.relname
    LOOP
        SELECT g.guarded_until INTO guarded FROM usage_partition_guard g WHERE g.partition = partition.relname;
        CONTINUE WHEN guarded >= ends;
        EXECUTE format(
            'CREATE OR REPLACE TRIGGER closed_month BEFORE INSERT ON %I FOR EACH ROW
                WHEN (NEW.settled_at < %L::timestamptz)
                EXECUTE FUNCTION refuse_record_of_closed_month()', partition.relname, ends);
        INSERT INTO usage_partition_guard AS g (partition, guarded_until) VALUES (partition.relname, ends)
            ON CONFLICT ON CONSTRAINT usage_partition_guard_pkey DO UPDATE SET guarded_until = excluded.guarded_until;
    END LOOP;
END
$$"""

# A partition that is made for a month which is closed already, or was dropped after it, is guarded from its beginning.
_PARTITION = """
CREATE OR REPLACE FUNCTION create_usage_partition(month date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
DECLARE
    first date := date_trunc('month', month)::date;
    starts timestamptz := first::timestamp AT TIME ZONE 'UTC';
    ends timestamptz := (first + interval '1 month') AT TIME ZONE 'UTC';
    partition text := 'usage_record_' || to_char(first, 'YYYY_MM');
    closed_until timestamptz;
BEGIN
    IF to_regclass(partition) IS NULL
        AND NOT EXISTS (SELECT FROM usage_record_default WHERE settled_at >= starts AND settled_at < ends)
    THEN
        EXECUTE format(
            'CREATE TABLE %I PARTITION OF usage_record FOR VALUES FROM (%L) TO (%L)', partition, starts, ends
        );
        DELETE FROM usage_partition_guard g WHERE g.partition = 'usage_record_' || to_char(first, 'YYYY_MM');
        SELECT max(c.ends_at) INTO closed_until FROM closed_month c WHERE c.starts_at < ends AND c.ends_at > starts;
        IF closed_until IS NOT NULL THEN
            PERFORM guard_usage_partitions(starts, closed_until);
        END IF;
    END IF;
END
$$"""

_PARTITION_BEFORE = """
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
$$"""

_TRIGGERS = (
    "CREATE TRIGGER closed_stays BEFORE INSERT OR UPDATE OR DELETE ON billing_period"
    " FOR EACH ROW EXECUTE FUNCTION keep_closed_period()",
    "CREATE TRIGGER sealed_stays BEFORE UPDATE OR DELETE ON sealed_statement"
    " FOR EACH ROW EXECUTE FUNCTION keep_sealed()",
    "CREATE TRIGGER closed_month BEFORE INSERT ON sealed_statement"
    " FOR EACH ROW EXECUTE FUNCTION refuse_in_closed_month()",
    "CREATE TRIGGER entered_stays BEFORE UPDATE OR DELETE ON adjustment FOR EACH ROW EXECUTE FUNCTION keep_sealed()",
    "CREATE TRIGGER closed_month BEFORE INSERT ON adjustment FOR EACH ROW EXECUTE FUNCTION refuse_in_closed_month()",
    *(
        f"CREATE TRIGGER closed_month AFTER INSERT ON {table} REFERENCING NEW TABLE AS fresh"
        f" FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
        for table, function in (
            ("usage_rollup_day", "refuse_days_of_closed_month"),
            ("usage_rollup", "refuse_days_of_closed_month"),
            ("usage_rollup_sku", "refuse_days_of_closed_month"),
            ("usage_rollup_label", "refuse_days_of_closed_month"),
            ("usage_rollup_price", "refuse_days_of_closed_month"),
            ("on_device_usage", "refuse_use_of_closed_month"),
        )
    ),
)

_GRANTS = (
    "GRANT SELECT, INSERT, UPDATE ON billing_period TO tollhouse_app",
    "GRANT SELECT, INSERT ON sealed_statement, adjustment, usage_rollup_label, usage_rollup_price TO tollhouse_app",
    "REVOKE ALL ON FUNCTION guard_usage_partitions(timestamptz, timestamptz) FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION guard_usage_partitions(timestamptz, timestamptz) TO tollhouse_app",
)

_FUNCTIONS = (
    *_LOCKS,
    "CREATE TABLE usage_partition_guard (partition text NOT NULL CONSTRAINT usage_partition_guard_pkey PRIMARY KEY,"
    " guarded_until timestamptz NOT NULL)",
    _REFUSE_ROWS.format(name="refuse_days_of_closed_month", moment="day_start"),
    _REFUSE_ROWS.format(name="refuse_use_of_closed_month", moment="booked_at"),
    _GUARD,
    _PARTITION,
)


def upgrade() -> None:
    """Create the months, what is sealed and entered, the details of days, and what keeps closed months as they are."""
    for statement in (*_PERIODS, *_ROLLUPS, *_FUNCTIONS, *_TRIGGERS, *_GRANTS):
        op.execute(statement)


def downgrade() -> None:
    """Drop them; closed months are open again, and what was sealed is gone."""
    op.execute(_PARTITION_BEFORE)
    op.execute("DROP TABLE sealed_statement, adjustment, billing_period, usage_partition_guard, closed_month")
    op.execute("DROP FUNCTION guard_usage_partitions(timestamptz, timestamptz)")
    refusals = ("refuse_record_of_closed_month", "refuse_days_of_closed_month", "refuse_use_of_closed_month")
    for name in (*refusals, "refuse_in_closed_month", "keep_sealed", "keep_closed_period"):
        op.execute(f"DROP FUNCTION {name}() CASCADE")
    op.execute("DROP FUNCTION refuse_closed(text, text)")
    op.execute("DROP TABLE usage_rollup_label, usage_rollup_price")
    op.execute("ALTER TABLE usage_rollup_day DROP COLUMN has_details")
