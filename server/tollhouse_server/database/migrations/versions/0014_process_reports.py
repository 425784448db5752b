"""What each process says of its traffic, for the others to share by."""

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To be written with its feature."""


def downgrade() -> None:
    """To be written with its feature."""
