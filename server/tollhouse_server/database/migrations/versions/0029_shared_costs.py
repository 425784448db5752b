"""Shared costs and bound labels."""

from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

_STATEMENTS = (
    "INSERT INTO epoch (topic) VALUES ('labels')",
    # Both dates are first days of months. `shares` are departments with their weights.
    """
CREATE TABLE shared_cost (
    tenant_id    text        NOT NULL CONSTRAINT shared_cost_tenant_fkey REFERENCES tenant (tenant_id),
    cost_id      text        NOT NULL,
    display_name text        NOT NULL,
    kind         text        NOT NULL CONSTRAINT shared_cost_kind_check
        CHECK (kind IN ('PLATFORM_FEE', 'CACHE_STORAGE', 'UNALLOCATED_VERTEX', 'OTHER')),
    amount_nanos bigint      NOT NULL,
    method       text        NOT NULL CONSTRAINT shared_cost_method_check
        CHECK (method IN ('FIXED', 'EVENLY', 'BY_COST', 'BY_CALLS', 'BY_TOKENS')),
    shares       jsonb       NOT NULL DEFAULT '{}',
    reason       text        NOT NULL,
    starts_on    date        NOT NULL,
    ends_on      date        CONSTRAINT shared_cost_dates_check CHECK (ends_on >= starts_on),
    creator      text        NOT NULL,
    version      bigint      NOT NULL DEFAULT 1,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT shared_cost_pkey PRIMARY KEY (tenant_id, cost_id)
)""",
    "GRANT SELECT, INSERT, UPDATE (ends_on, version, updated_at) ON shared_cost TO tollhouse_app",
    """
CREATE TRIGGER closed_month BEFORE INSERT OR UPDATE ON shared_cost
    FOR EACH ROW EXECUTE FUNCTION refuse_charge_in_closed_month('months')""",
    # `holder` is `projects/{project}` or `apiKeys/{key}`: ids that stay what they are when departments move.
    """
CREATE TABLE bound_labels (
    tenant_id  text        NOT NULL CONSTRAINT bound_labels_tenant_fkey REFERENCES tenant (tenant_id),
    holder     text        NOT NULL,
    labels     jsonb       NOT NULL,
    version    bigint      NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT bound_labels_pkey PRIMARY KEY (tenant_id, holder)
)""",
    "GRANT SELECT, INSERT, UPDATE ON bound_labels TO tollhouse_app",
)


def upgrade() -> None:
    """Add costs that departments share, and labels that are bound to projects and keys."""
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    op.execute("DROP TABLE bound_labels")
    op.execute("DROP TABLE shared_cost")
    op.execute("DELETE FROM epoch WHERE topic = 'labels'")
