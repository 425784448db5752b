"""Recipients for whom a mail server wanted an e-mail later, when it had taken it for the others."""

from alembic import op

revision = "0045"
down_revision = "0040"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them to deliveries."""
    op.execute("ALTER TABLE delivery ADD COLUMN recipients_left text[] NOT NULL DEFAULT '{}'")
    op.execute("GRANT UPDATE (recipients_left) ON delivery TO tollhouse_app")


def downgrade() -> None:
    """Drop them."""
    op.execute("ALTER TABLE delivery DROP COLUMN recipients_left")
