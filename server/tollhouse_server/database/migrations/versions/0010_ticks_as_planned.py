"""How a tick that has not looked first gives up: by an error of its own, so that nothing of it is written."""

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


def upgrade() -> None:
    """Add the function that only ever raises."""
    op.execute(_UNFIT)


def downgrade() -> None:
    """Take it away again."""
    op.execute("DROP FUNCTION ledger_unfit()")
