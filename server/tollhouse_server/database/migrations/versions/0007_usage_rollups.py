"""Roll-ups of usage records by day, and what is known of exported months."""

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the roll-ups."""


def downgrade() -> None:
    """Drop the roll-ups."""
