"""What the ledger has booked by Google project and day says nothing of suspense: nobody has ever written or read it."""

from alembic import op

revision = "0048"
down_revision = "0047"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Drop the column."""
    # No server that runs meanwhile names it.
    op.execute("-- squawk-ignore ban-drop-column\nALTER TABLE upstream_use DROP COLUMN suspense_nanos")


def downgrade() -> None:
    """Add it, as empty as it was."""
    op.execute("ALTER TABLE upstream_use ADD COLUMN suspense_nanos numeric NOT NULL DEFAULT 0")
