"""The id by which logs and traces know a call, in its usage records."""

from alembic import op

revision = "0040"
down_revision = "0039"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; records from before have none. With a constant default no row is written anew."""
    op.execute("ALTER TABLE usage_record ADD COLUMN correlation_id text NOT NULL DEFAULT ''")


def downgrade() -> None:
    """Drop it."""
    op.execute("ALTER TABLE usage_record DROP COLUMN correlation_id")
