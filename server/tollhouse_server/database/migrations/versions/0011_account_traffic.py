"""What an upstream account may be used for, how it is reached, and its limits."""

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To be written with its feature."""


def downgrade() -> None:
    """To be written with its feature."""
