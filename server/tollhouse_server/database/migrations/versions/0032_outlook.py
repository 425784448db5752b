"""Refused spend, and what units of work cost otherwise."""

from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None

_STATEMENTS = (
    # A day is one of the tenant's time zone. What a flood would have held may be more than a bigint.
    """
CREATE TABLE refused_spend (
    tenant_id       text    NOT NULL CONSTRAINT refused_spend_tenant_fkey REFERENCES tenant (tenant_id),
    day             date    NOT NULL,
    department_path text[]  NOT NULL,
    calls           bigint  NOT NULL,
    ceiling_nanos   numeric NOT NULL,
    CONSTRAINT refused_spend_pkey PRIMARY KEY (tenant_id, day, department_path)
)""",
    "GRANT SELECT, INSERT, UPDATE ON refused_spend TO tollhouse_app",
    # `subject` is `projects/{project}` or `labels/{key}={value}`. Another price is another row, from its own day on.
    """
CREATE TABLE alternative_cost (
    tenant_id           text        NOT NULL CONSTRAINT alternative_cost_tenant_fkey REFERENCES tenant (tenant_id),
    alternative_cost_id text        NOT NULL,
    starts_on           date        NOT NULL,
    subject             text        NOT NULL,
    unit                text        NOT NULL,
    unit_nanos          bigint      NOT NULL CONSTRAINT alternative_cost_nanos_check CHECK (unit_nanos >= 0),
    counted_by          text        NOT NULL
        CONSTRAINT alternative_cost_counted_by_check CHECK (counted_by IN ('CALLS', 'GIVEN')),
    creator             text        NOT NULL,
    created_at          timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT alternative_cost_pkey PRIMARY KEY (tenant_id, alternative_cost_id, starts_on)
)""",
    "GRANT SELECT, INSERT, UPDATE ON alternative_cost TO tollhouse_app",
    """
CREATE TABLE unit_count (
    tenant_id           text        NOT NULL CONSTRAINT unit_count_tenant_fkey REFERENCES tenant (tenant_id),
    alternative_cost_id text        NOT NULL,
    month               text        NOT NULL,
    units               bigint      NOT NULL CONSTRAINT unit_count_units_check CHECK (units >= 0),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT unit_count_pkey PRIMARY KEY (tenant_id, alternative_cost_id, month)
)""",
    "GRANT SELECT, INSERT, UPDATE ON unit_count TO tollhouse_app",
)


def upgrade() -> None:
    """Add what limits have kept from being spent, and what units of work cost otherwise."""
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    for table in ("unit_count", "alternative_cost", "refused_spend"):
        op.execute(f"DROP TABLE {table}")
