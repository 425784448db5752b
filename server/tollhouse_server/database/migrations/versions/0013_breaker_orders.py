"""Breakers that an operator holds open or closed."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_ORDERS = (
    """
CREATE TABLE breaker_order (
    account_id text        NOT NULL,
    region     text        NOT NULL DEFAULT '',
    model      text        NOT NULL DEFAULT '',
    forced     text        NOT NULL CONSTRAINT breaker_order_forced_check CHECK (forced IN ('OPEN', 'CLOSED')),
    reason     text        NOT NULL,
    actor      text        NOT NULL,
    expire_at  timestamptz,
    version    bigint      NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT breaker_order_pkey PRIMARY KEY (account_id, region, model),
    CONSTRAINT breaker_order_account_fkey FOREIGN KEY (account_id)
        REFERENCES account (account_id) ON DELETE CASCADE
)""",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON breaker_order TO tollhouse_app",
    # A topic of its own: an order must not wait for Vault, which a change of accounts asks for keys.
    "INSERT INTO epoch (topic) VALUES ('breakers')",
)


def upgrade() -> None:
    """Create the table of orders and their epoch."""
    for statement in _ORDERS:
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    op.execute("DELETE FROM epoch WHERE topic = 'breakers'")
    op.execute("DROP TABLE breaker_order")
