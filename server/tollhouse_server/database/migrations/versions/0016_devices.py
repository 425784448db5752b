"""Devices that run models themselves, and what they have reported."""

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To be written with its feature."""


def downgrade() -> None:
    """To be written with its feature."""
