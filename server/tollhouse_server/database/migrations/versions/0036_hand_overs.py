"""How often an e-mail was handed over without anybody knowing what came of it."""

from alembic import op

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the count to deliveries."""
    op.execute("ALTER TABLE delivery ADD COLUMN hand_overs integer NOT NULL DEFAULT 0")
    op.execute("GRANT UPDATE (hand_overs) ON delivery TO tollhouse_app")


def downgrade() -> None:
    """Drop it."""
    op.execute("ALTER TABLE delivery DROP COLUMN hand_overs")
