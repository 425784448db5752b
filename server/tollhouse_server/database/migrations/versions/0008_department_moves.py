"""Moves of departments that take effect at a date."""

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table of moves."""


def downgrade() -> None:
    """Drop the table of moves."""
