"""What Google bills."""

from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

# What is kept of one line of a bill. Money of lines is numeric: Google writes fractions of a nano-dollar, and only sums
# are rounded. `day` is the Pacific day that the use began on.
_LINE = """
    line_digest     bytea       NOT NULL,
    usage_digest    bytea       NOT NULL,
    billing_account text        NOT NULL,
    day             date        NOT NULL,
    usage_start     timestamptz NOT NULL,
    usage_end       timestamptz NOT NULL,
    export_time     timestamptz NOT NULL,
    invoice_month   text        NOT NULL,
    project         text        NOT NULL,
    service_id      text        NOT NULL,
    service         text        NOT NULL,
    sku_id          text        NOT NULL,
    sku             text        NOT NULL,
    cost_type       text        NOT NULL,
    currency        text        NOT NULL,
    conversion_rate numeric     NOT NULL CHECK (conversion_rate > 0),
    cost            numeric     NOT NULL,
    cost_nanos      numeric     NOT NULL,
    list_nanos      numeric,
    credits         jsonb       NOT NULL,
    credits_nanos   numeric     NOT NULL,
    free_nanos      numeric     NOT NULL,
    quantity        numeric     NOT NULL,
    unit            text        NOT NULL
"""

_STATEMENTS = (
    """
CREATE TABLE bill_import (
    import_id       uuid        NOT NULL CONSTRAINT bill_import_pkey PRIMARY KEY,
    file_name       text        NOT NULL,
    format          text        NOT NULL,
    state           text        NOT NULL DEFAULT 'RECEIVING'
        CONSTRAINT bill_import_state_check CHECK (state IN ('RECEIVING', 'COMPLETE')),
    line_count      bigint      NOT NULL DEFAULT 0,
    new_line_count  bigint      NOT NULL DEFAULT 0,
    cost_nanos      numeric     NOT NULL DEFAULT 0,
    credits_nanos   numeric     NOT NULL DEFAULT 0,
    first_day       date,
    last_day        date,
    currencies      text[]      NOT NULL DEFAULT '{}',
    created_by      text        NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    completed_at    timestamptz
)""",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON bill_import TO tollhouse_app",
    # `occurrence` tells lines apart that are the same to the letter within one file: a bill can have a line twice.
    f"""
CREATE TABLE bill_line (
    occurrence      integer     NOT NULL,
    import_id       uuid        NOT NULL CONSTRAINT bill_line_import_fkey REFERENCES bill_import (import_id),
    {_LINE},
    CONSTRAINT bill_line_pkey PRIMARY KEY (line_digest, occurrence)
)""",
    "CREATE INDEX bill_line_day ON bill_line (day)",
    "GRANT SELECT, INSERT ON bill_line TO tollhouse_app",
    # Lines of files that are still on their way; a file counts when it is whole, or not at all.
    f"""
CREATE TABLE bill_line_received (
    import_id       uuid        NOT NULL
        CONSTRAINT bill_line_received_import_fkey REFERENCES bill_import (import_id) ON DELETE CASCADE,
    line_number     bigint      NOT NULL,
    {_LINE},
    CONSTRAINT bill_line_received_pkey PRIMARY KEY (import_id, line_number)
)""",
    "GRANT SELECT, INSERT, DELETE ON bill_line_received TO tollhouse_app",
    """
CREATE TABLE sku_map (
    version     bigint      GENERATED ALWAYS AS IDENTITY CONSTRAINT sku_map_pkey PRIMARY KEY,
    content     text        NOT NULL,
    rule_count  integer     NOT NULL,
    created_by  text        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
)""",
    "GRANT SELECT, INSERT ON sku_map TO tollhouse_app",
    # One row: above what a difference that nothing explains keeps months from being closed.
    """
CREATE TABLE reconciliation_policy (
    is_only           boolean NOT NULL DEFAULT true
        CONSTRAINT reconciliation_policy_pkey PRIMARY KEY CONSTRAINT reconciliation_policy_one CHECK (is_only),
    absolute_nanos    bigint  NOT NULL DEFAULT 1000000000 CHECK (absolute_nanos >= 0),
    share_millionths  bigint  NOT NULL DEFAULT 5000 CHECK (share_millionths BETWEEN 0 AND 1000000),
    rounding_nanos    bigint  NOT NULL DEFAULT 1000 CHECK (rounding_nanos >= 0),
    version           bigint  NOT NULL DEFAULT 1,
    updated_at        timestamptz NOT NULL DEFAULT clock_timestamp()
)""",
    "INSERT INTO reconciliation_policy DEFAULT VALUES",
    "GRANT SELECT, UPDATE ON reconciliation_policy TO tollhouse_app",
    # What the ledger has booked by Google project and Pacific day of the dispatch, as the last reconciliation found it.
    """
CREATE TABLE upstream_use (
    tenant_id      text    NOT NULL,
    day            date    NOT NULL,
    project        text    NOT NULL,
    model          text    NOT NULL,
    sku            text    NOT NULL,
    calls          numeric NOT NULL,
    quantity       numeric NOT NULL,
    cost_nanos     numeric NOT NULL,
    suspense_nanos numeric NOT NULL DEFAULT 0,
    CONSTRAINT upstream_use_pkey PRIMARY KEY (tenant_id, day, project, model, sku)
)""",
    "CREATE INDEX upstream_use_day ON upstream_use (day)",
    "GRANT SELECT, INSERT, DELETE ON upstream_use TO tollhouse_app",
    """
CREATE TABLE bill_reconciliation (
    month             text        NOT NULL CONSTRAINT bill_reconciliation_pkey PRIMARY KEY,
    booked_nanos      numeric     NOT NULL,
    billed_nanos      numeric     NOT NULL,
    credits_nanos     numeric     NOT NULL,
    unexplained_nanos numeric     NOT NULL,
    compared_count    bigint      NOT NULL,
    variance_count    bigint      NOT NULL,
    blocking_count    bigint      NOT NULL,
    newest_export     timestamptz,
    sku_map_version   bigint      NOT NULL,
    run_by            text        NOT NULL,
    run_at            timestamptz NOT NULL DEFAULT clock_timestamp()
)""",
    "GRANT SELECT, INSERT, UPDATE ON bill_reconciliation TO tollhouse_app",
    # `concerns_all`: no tenant is known to have used the Google project, so that anybody may have to pay for it.
    """
CREATE TABLE bill_variance (
    variance_id       text        NOT NULL CONSTRAINT bill_variance_pkey PRIMARY KEY,
    month             text        NOT NULL
        CONSTRAINT bill_variance_month_fkey REFERENCES bill_reconciliation (month),
    day               date        NOT NULL,
    project           text        NOT NULL,
    model             text        NOT NULL,
    sku               text        NOT NULL,
    google_sku        text        NOT NULL,
    booked_nanos      numeric     NOT NULL,
    billed_nanos      numeric     NOT NULL,
    credits_nanos     numeric     NOT NULL,
    booked_quantity   numeric     NOT NULL,
    billed_quantity   numeric     NOT NULL,
    reasons           jsonb       NOT NULL,
    unexplained_nanos numeric     NOT NULL,
    accepted_nanos    numeric     NOT NULL DEFAULT 0,
    acceptance_count  integer     NOT NULL DEFAULT 0,
    concerns_all      boolean     NOT NULL,
    is_blocking       boolean     NOT NULL,
    state             text        NOT NULL CHECK (state IN ('OPEN', 'ACCEPTED', 'GONE')),
    accepted_by       text        NOT NULL DEFAULT '',
    acceptance_reason text        NOT NULL DEFAULT '',
    accepted_at       timestamptz,
    version           bigint      NOT NULL DEFAULT 1
)""",
    "CREATE INDEX bill_variance_month ON bill_variance (month, variance_id)",
    "CREATE INDEX bill_variance_blocking ON bill_variance (day) WHERE is_blocking",
    "GRANT SELECT, INSERT, UPDATE ON bill_variance TO tollhouse_app",
    # Never changed: what was charged once is corrected by a further one.
    """
CREATE TABLE bill_true_up (
    tenant_id     text        NOT NULL,
    variance_id   text        NOT NULL CONSTRAINT bill_true_up_variance_fkey REFERENCES bill_variance (variance_id),
    acceptance    integer     NOT NULL,
    effective_day date        NOT NULL,
    amount_nanos  bigint      NOT NULL,
    basis_nanos   bigint      NOT NULL,
    reason        text        NOT NULL,
    accepted_by   text        NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT bill_true_up_pkey PRIMARY KEY (tenant_id, variance_id, acceptance)
)""",
    # FOR SHARE waits for a close that is under way, and makes one that comes wait.
    """
CREATE FUNCTION refuse_true_up_in_closed_month() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
DECLARE
    began timestamptz := NEW.effective_day::timestamp AT TIME ZONE 'America/Los_Angeles';
    closed record;
BEGIN
    PERFORM FROM billing_period p
    WHERE p.tenant_id = NEW.tenant_id AND p.starts_at <= began AND began < p.ends_at FOR SHARE;
    SELECT c.tenant, c.month INTO closed FROM closed_month c
    WHERE c.tenant = NEW.tenant_id AND c.starts_at <= began AND began < c.ends_at LIMIT 1;
    IF FOUND THEN
        PERFORM refuse_closed(closed.tenant, closed.month);
    END IF;
    RETURN NEW;
END
$$""",
    """
CREATE TRIGGER closed_month BEFORE INSERT ON bill_true_up
    FOR EACH ROW EXECUTE FUNCTION refuse_true_up_in_closed_month()""",
    "CREATE INDEX bill_true_up_day ON bill_true_up (tenant_id, effective_day)",
    "GRANT SELECT, INSERT ON bill_true_up TO tollhouse_app",
)

_TABLES = (
    "bill_true_up",
    "bill_variance",
    "bill_reconciliation",
    "upstream_use",
    "reconciliation_policy",
    "sku_map",
    "bill_line_received",
    "bill_line",
    "bill_import",
)


def upgrade() -> None:
    """Add Google's bill, what was found in it, and what tenants are charged for it."""
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drop it."""
    for table in _TABLES:
        op.execute(f"DROP TABLE {table}")
    op.execute("DROP FUNCTION refuse_true_up_in_closed_month()")
