"""Recipients of a purged tenant's statements can be forgotten: a schedule that has ended needs no way any more."""

from alembic import op

revision = "0039"
down_revision = "0038"
branch_labels = None
depends_on = None

_HAS_WAY = "to_folder OR to_bucket OR cardinality(recipients) > 0"

_DROP = (
    "-- squawk-ignore ban-drop-constraint\nALTER TABLE delivery_schedule DROP CONSTRAINT delivery_schedule_ways_check"
)
_ADD = "ALTER TABLE delivery_schedule ADD CONSTRAINT delivery_schedule_ways_check CHECK ({check}) NOT VALID"


def upgrade() -> None:
    """Admit it."""
    op.execute(_DROP)
    op.execute(_ADD.replace("{check}", f"{_HAS_WAY} OR ended_at IS NOT NULL"))
    op.execute("GRANT UPDATE (recipients) ON delivery_schedule TO tollhouse_app")


def downgrade() -> None:
    """Admit it no more, for schedules that are written from then on."""
    op.execute("REVOKE UPDATE (recipients) ON delivery_schedule FROM tollhouse_app")
    op.execute(_DROP)
    op.execute(_ADD.replace("{check}", _HAS_WAY))
