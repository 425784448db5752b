"""Entries that are under way when the first row of a month is written: it waits for them."""

from alembic import op

revision = "0038"
down_revision = "0037"
branch_labels = None
depends_on = None

# An entry locks the row of its month, so that none is closed past it. A month that was never previewed has no row; its
# first one waits for all entries of the tenant, and of the platform, whose rules are for every tenant. The key spells
# "entr".
_FUNCTIONS = (
    """
CREATE FUNCTION announce_entry() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(1701737586, hashtext(NEW.tenant_id));
    RETURN NEW;
END
$$""",
    """
CREATE FUNCTION await_entries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1701737586, hashtext(NEW.tenant_id));
    PERFORM pg_advisory_xact_lock(1701737586, hashtext('platform'));
    RETURN NEW;
END
$$""",
)

_TABLES = ("adjustment", "charge_rule", "shared_cost", "bill_true_up")


def upgrade() -> None:
    """Add the triggers; by its name `announced` fires before `closed_month`, which looks for the row."""
    for function in _FUNCTIONS:
        op.execute(function)
    for table in _TABLES:
        op.execute(
            f"CREATE TRIGGER announced BEFORE INSERT OR UPDATE ON {table}"
            " FOR EACH ROW EXECUTE FUNCTION announce_entry()"
        )
    op.execute(
        "CREATE TRIGGER awaits_entries BEFORE INSERT ON billing_period FOR EACH ROW EXECUTE FUNCTION await_entries()"
    )


def downgrade() -> None:
    """Take them away."""
    op.execute("DROP FUNCTION announce_entry() CASCADE")
    op.execute("DROP FUNCTION await_entries() CASCADE")
