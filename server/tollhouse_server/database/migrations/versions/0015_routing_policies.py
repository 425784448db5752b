"""What a tenant allows, prefers and overrides in routing."""

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To be written with its feature."""


def downgrade() -> None:
    """To be written with its feature."""
