"""What an upstream account may be used for, how it is reached, and its limits."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_ACCOUNT = (
    # Empty means: no proxy, every tenant, every environment.
    "ALTER TABLE account ADD COLUMN egress text NOT NULL DEFAULT ''",
    "ALTER TABLE account ADD COLUMN tenant_id text NOT NULL DEFAULT ''",
    """
ALTER TABLE account ADD COLUMN environment text NOT NULL DEFAULT ''
    CONSTRAINT account_environment_check CHECK (environment IN ('', 'live', 'test'))""",
)

_LIMIT = (
    # Spend is in nano-dollars; an empty model means all of them together.
    """
CREATE TABLE account_limit (
    account_id text   NOT NULL CONSTRAINT account_limit_account_fkey REFERENCES account (account_id) ON DELETE CASCADE,
    metric     text   NOT NULL CONSTRAINT account_limit_metric_check CHECK (metric IN (
        'REQUESTS_PER_MINUTE', 'INPUT_TOKENS_PER_MINUTE', 'REQUESTS_PER_DAY', 'IMAGES_PER_MINUTE',
        'SPEND_PER_10_MINUTES', 'CONCURRENT_CALLS')),
    model      text   NOT NULL DEFAULT '',
    amount     bigint NOT NULL CONSTRAINT account_limit_amount_check CHECK (amount > 0),
    CONSTRAINT account_limit_pkey PRIMARY KEY (account_id, metric, model)
)""",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON account_limit TO tollhouse_app",
)


def upgrade() -> None:
    """Add the columns and the table of limits."""
    for statement in (*_ACCOUNT, *_LIMIT):
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    op.execute("DROP TABLE account_limit")
    op.execute("ALTER TABLE account DROP COLUMN egress, DROP COLUMN tenant_id, DROP COLUMN environment")
