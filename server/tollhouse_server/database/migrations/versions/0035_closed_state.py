"""A state of its own for what is refused because a month is closed: TH002 means to the ledger that it plans anew."""

from alembic import op

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None

_REFUSE = """
CREATE OR REPLACE FUNCTION refuse_closed(tenant text, month text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'tenants/%/periods/% is closed', tenant, month USING ERRCODE = '{state}';
END
$$"""


def upgrade() -> None:
    """Refuse with TH004."""
    op.execute(_REFUSE.replace("{state}", "TH004"))


def downgrade() -> None:
    """Refuse with TH002 again."""
    op.execute(_REFUSE.replace("{state}", "TH002"))
