"""Versions of other names of models, so that nobody overwrites what he has not seen."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Count the changes of an alias as those of a model are counted."""
    op.execute(
        "ALTER TABLE model_alias ADD COLUMN version bigint NOT NULL DEFAULT 1, "
        "ADD COLUMN updated_at timestamptz NOT NULL DEFAULT now()"
    )


def downgrade() -> None:
    """Drop them."""
    op.execute("ALTER TABLE model_alias DROP COLUMN version, DROP COLUMN updated_at")
