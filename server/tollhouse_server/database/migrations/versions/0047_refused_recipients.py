"""What a mail server has answered of recipients who will never have an e-mail, while others are still to have it."""

from alembic import op

revision = "0047"
down_revision = "0046"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add it to deliveries."""
    op.execute("ALTER TABLE delivery ADD COLUMN refused text NOT NULL DEFAULT ''")
    op.execute("GRANT UPDATE (refused) ON delivery TO tollhouse_app")


def downgrade() -> None:
    """Drop it."""
    op.execute("ALTER TABLE delivery DROP COLUMN refused")
