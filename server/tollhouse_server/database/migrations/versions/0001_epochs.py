"""Epochs: one counter per topic, bumped in the transaction of each change."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table and its topics; the application role may read and bump, never add or remove."""
    op.execute("CREATE TABLE epoch (topic text PRIMARY KEY, value bigint NOT NULL DEFAULT 1)")
    op.execute(
        "INSERT INTO epoch (topic) VALUES ('identity'), ('access'), ('catalogue'), ('prices'), ('accounts'), ('limits')"
    )
    op.execute("GRANT SELECT, UPDATE ON epoch TO tollhouse_app")


def downgrade() -> None:
    """Drop the table."""
    op.execute("DROP TABLE epoch")
