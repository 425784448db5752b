"""Free labels that a tenant's calls have used in a month, so that their number has a bound."""

from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None

_STATEMENTS = (
    # `month` is the first day of a calendar month of UTC.
    """
CREATE TABLE free_label (
    tenant_id  text        NOT NULL CONSTRAINT free_label_tenant_fkey REFERENCES tenant (tenant_id),
    month      date        NOT NULL,
    label      text        NOT NULL,
    value      text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT free_label_pkey PRIMARY KEY (tenant_id, month, label, value)
)""",
    "GRANT SELECT, INSERT ON free_label TO tollhouse_app",
)


def upgrade() -> None:
    """Add the values of free labels by month."""
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    op.execute("DROP TABLE free_label")
