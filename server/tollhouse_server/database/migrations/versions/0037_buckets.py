"""Deliveries into a bucket of an object store."""

from alembic import op

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None

_DROP = "-- squawk-ignore ban-drop-constraint\nALTER TABLE {table} DROP CONSTRAINT {table}_{what}_check"
_ADD = "ALTER TABLE {table} ADD CONSTRAINT {table}_{what}_check CHECK ({check}) NOT VALID"

_STATEMENTS = (
    "ALTER TABLE delivery_schedule ADD COLUMN to_bucket boolean NOT NULL DEFAULT false",
    # Both only admit more.
    _DROP.format(table="delivery_schedule", what="ways"),
    _ADD.format(table="delivery_schedule", what="ways", check="to_folder OR to_bucket OR cardinality(recipients) > 0"),
    _DROP.format(table="delivery", what="way"),
    _ADD.format(table="delivery", what="way", check="way IN ('FOLDER', 'MAIL', 'BUCKET')"),
)


def upgrade() -> None:
    """Admit the way."""
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Admit it no more; schedules that have no other way must be deleted first."""
    op.execute(_DROP.format(table="delivery", what="way"))
    op.execute(_ADD.format(table="delivery", what="way", check="way IN ('FOLDER', 'MAIL')"))
    op.execute("ALTER TABLE delivery_schedule DROP COLUMN to_bucket")
    op.execute(_ADD.format(table="delivery_schedule", what="ways", check="to_folder OR cardinality(recipients) > 0"))
