"""The epoch of the limits, as it is by the time a tick has its locks."""

from alembic import op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None

# A statement sees the tables as they were when it began, but for the rows that it has waited for: whoever has lowered a
# limit meanwhile is not seen in `epoch`. A volatile function looks anew.
_EPOCH = """
CREATE FUNCTION ledger_epoch() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN (SELECT value FROM epoch WHERE topic = 'limits');
END
$$"""


def upgrade() -> None:
    """Add the function."""
    op.execute(_EPOCH)


def downgrade() -> None:
    """Drop it."""
    op.execute("DROP FUNCTION ledger_epoch()")
