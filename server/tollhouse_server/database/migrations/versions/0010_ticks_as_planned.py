"""Ticks that have not looked, and a watermark for which nobody waits long.

`ledger_unfit` fails the statement of a tick that has to look first, so that nothing of it is written.
`ledger_watermark` takes the ledger's clock alone (see `ledger_now`) and gives it back before it returns: no client that
stands still can keep it.
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_UNFIT = """
CREATE FUNCTION ledger_unfit() RETURNS timestamptz LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RAISE EXCEPTION 'the tick has to look first' USING ERRCODE = 'TH002';
END
$$"""

_WATERMARK = """
CREATE FUNCTION ledger_watermark() RETURNS timestamptz
LANGUAGE plpgsql VOLATILE SET lock_timeout = '1s' AS $$
DECLARE
    moment timestamptz;
BEGIN
    BEGIN
        PERFORM pg_advisory_xact_lock(1953063787);
        moment := clock_timestamp();
        -- A block that fails gives back the locks that it has taken.
        RAISE EXCEPTION 'done' USING ERRCODE = 'TH003';
    EXCEPTION WHEN SQLSTATE 'TH003' THEN
        RETURN moment;
    END;
END
$$"""


def upgrade() -> None:
    """Add the two functions."""
    op.execute(_UNFIT)
    op.execute(_WATERMARK)


def downgrade() -> None:
    """Take them away again."""
    op.execute("DROP FUNCTION ledger_unfit()")
    op.execute("DROP FUNCTION ledger_watermark()")
