"""Deliveries of statements: when they are made, and what has become of each."""

from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

_STATEMENTS = (
    # `department_id` is empty for the tenant. `day` is that of the following month, 0 for the close of a month.
    """
CREATE TABLE delivery_schedule (
    tenant_id     text        NOT NULL CONSTRAINT delivery_schedule_tenant_fkey REFERENCES tenant (tenant_id),
    schedule_id   text        NOT NULL,
    department_id text        NOT NULL DEFAULT '',
    formats       text[]      NOT NULL CONSTRAINT delivery_schedule_formats_check CHECK (cardinality(formats) > 0),
    language      text        NOT NULL,
    day           integer     NOT NULL CONSTRAINT delivery_schedule_day_check CHECK (day BETWEEN 0 AND 28),
    to_folder     boolean     NOT NULL,
    recipients    text[]      NOT NULL,
    creator       text        NOT NULL,
    ended_at      timestamptz,
    version       bigint      NOT NULL DEFAULT 1,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT delivery_schedule_pkey PRIMARY KEY (tenant_id, schedule_id),
    CONSTRAINT delivery_schedule_ways_check CHECK (to_folder OR cardinality(recipients) > 0)
)""",
    # One row for each way that a statement goes. `sha256` is that of the sealed statement; empty for one of a month
    # that goes out by its date, of which there is one a month.
    """
CREATE TABLE delivery (
    tenant_id       text        NOT NULL,
    delivery_id     text        NOT NULL,
    schedule_id     text        NOT NULL,
    month           text        NOT NULL,
    sha256          text        NOT NULL,
    way             text        NOT NULL CONSTRAINT delivery_way_check CHECK (way IN ('FOLDER', 'MAIL')),
    state           text        NOT NULL DEFAULT 'PENDING'
        CONSTRAINT delivery_state_check CHECK (state IN ('PENDING', 'DELIVERED', 'FAILED')),
    attempts        integer     NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    delivered_at    timestamptz,
    fault           text        NOT NULL DEFAULT '',
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT delivery_pkey PRIMARY KEY (tenant_id, delivery_id),
    CONSTRAINT delivery_once UNIQUE (tenant_id, schedule_id, month, sha256, way),
    CONSTRAINT delivery_schedule_fkey FOREIGN KEY (tenant_id, schedule_id)
        REFERENCES delivery_schedule (tenant_id, schedule_id)
)""",
    "CREATE INDEX delivery_pending ON delivery (next_attempt_at) WHERE state = 'PENDING'",
    "GRANT SELECT, INSERT, UPDATE (ended_at, version, updated_at) ON delivery_schedule TO tollhouse_app",
    """
GRANT SELECT, INSERT, UPDATE (state, attempts, next_attempt_at, delivered_at, fault, version, updated_at)
    ON delivery TO tollhouse_app""",
)


def upgrade() -> None:
    """Add schedules of deliveries, and the deliveries."""
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    op.execute("DROP TABLE delivery")
    op.execute("DROP TABLE delivery_schedule")
