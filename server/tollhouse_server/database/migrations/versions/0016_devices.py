"""Devices that run models themselves, and what they have reported."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_DEVICE = (
    # Rows stay when a device is deleted: its key and the numbers of its receipts must never count anew. The report_*
    # columns are of the last day (UTC) on which it reported, and are no part of the resource's version.
    """
CREATE TABLE device (
    tenant_id          text        NOT NULL,
    device_id          text        NOT NULL,
    project_id         text        NOT NULL,
    display_name       text        NOT NULL DEFAULT '',
    public_key         bytea       NOT NULL CONSTRAINT device_public_key_check CHECK (length(public_key) = 32),
    max_daily_receipts bigint      NOT NULL CONSTRAINT device_max_daily_receipts_check CHECK (max_daily_receipts > 0),
    max_daily_tokens   bigint      NOT NULL CONSTRAINT device_max_daily_tokens_check CHECK (max_daily_tokens > 0),
    report_day         date,
    report_receipts    bigint      NOT NULL DEFAULT 0,
    report_tokens      bigint      NOT NULL DEFAULT 0,
    last_report_at     timestamptz,
    version            bigint      NOT NULL DEFAULT 1,
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now(),
    revoked_at         timestamptz,
    deleted_at         timestamptz,
    CONSTRAINT device_pkey PRIMARY KEY (tenant_id, device_id),
    CONSTRAINT device_public_key_unique UNIQUE (tenant_id, public_key),
    CONSTRAINT device_project_fkey FOREIGN KEY (tenant_id, project_id) REFERENCES project (tenant_id, project_id)
) WITH (fillfactor = 70)""",
    "CREATE INDEX device_of_project ON device (tenant_id, project_id, device_id)",
)

_USAGE = (
    # Append-only. No usage_record: nothing was dispatched, so no attempt, counter or upstream bill stands against it.
    # avoided_nanos is null where there was no price.
    """
CREATE TABLE on_device_usage (
    tenant_id       text        NOT NULL,
    device_id       text        NOT NULL,
    sequence        bigint      NOT NULL CONSTRAINT on_device_usage_sequence_check CHECK (sequence > 0),
    receipt_id      uuid        NOT NULL,
    digest          bytea       NOT NULL,
    booked_at       timestamptz NOT NULL,
    started_at      timestamptz NOT NULL,
    department_path text[]      NOT NULL,
    project_id      text        NOT NULL,
    model           text        NOT NULL,
    task            text        NOT NULL,
    labels          jsonb       NOT NULL,
    requests        bigint      NOT NULL CONSTRAINT on_device_usage_requests_check CHECK (requests > 0),
    input_tokens    bigint      NOT NULL CONSTRAINT on_device_usage_input_check CHECK (input_tokens >= 0),
    output_tokens   bigint      NOT NULL CONSTRAINT on_device_usage_output_check CHECK (output_tokens >= 0),
    avoided_nanos   bigint      CONSTRAINT on_device_usage_avoided_check CHECK (avoided_nanos >= 0),
    avoided_model   text        NOT NULL,
    price_version   bigint      NOT NULL,
    CONSTRAINT on_device_usage_pkey PRIMARY KEY (tenant_id, device_id, sequence),
    CONSTRAINT on_device_usage_receipt_unique UNIQUE (tenant_id, device_id, receipt_id),
    CONSTRAINT on_device_usage_device_fkey FOREIGN KEY (tenant_id, device_id) REFERENCES device (tenant_id, device_id)
)""",
    "CREATE INDEX on_device_usage_time ON on_device_usage (tenant_id, booked_at)",
)

_GRANTS = (
    "GRANT SELECT, INSERT, UPDATE ON device TO tollhouse_app",
    "GRANT SELECT, INSERT ON on_device_usage TO tollhouse_app",
)


def upgrade() -> None:
    """Create both tables and what the application role may do with them."""
    for statement in (*_DEVICE, *_USAGE, *_GRANTS):
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    op.execute("DROP TABLE on_device_usage")
    op.execute("DROP TABLE device")
