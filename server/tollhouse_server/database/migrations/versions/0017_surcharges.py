"""What an upstream address costs on top of the list price."""

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To be written with its feature."""


def downgrade() -> None:
    """To be written with its feature."""
