"""A month is closed after its end, also for whoever writes its row by hand."""

from alembic import op

revision = "0046"
down_revision = "0045"
branch_labels = None
depends_on = None

_STEP = """
    IF NEW.state = 'CLOSED' AND NEW.ends_at > clock_timestamp() THEN
        RAISE EXCEPTION 'is not over' USING ERRCODE = 'TH001';
    END IF;"""

_KEEP = """
CREATE OR REPLACE FUNCTION keep_closed_period() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
    IF TG_OP <> 'INSERT' AND OLD.state = 'CLOSED' THEN
        PERFORM refuse_closed(OLD.tenant_id, OLD.month);
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;{step}
    IF NEW.state = 'CLOSED' THEN
        INSERT INTO closed_month (tenant, month, starts_at, ends_at)
            VALUES (NEW.tenant_id, NEW.month, NEW.starts_at, NEW.ends_at);
    END IF;
    RETURN NEW;
END
$$"""


def upgrade() -> None:
    """Refuse it otherwise; months that are closed stay so."""
    op.execute(_KEEP.replace("{step}", _STEP))


def downgrade() -> None:
    """Let any row be closed."""
    op.execute(_KEEP.replace("{step}", ""))
