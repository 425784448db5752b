"""Mark-ups and discounts, wallets, currencies."""

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

_SETTING = "(SELECT NULLIF(current_setting('tollhouse.tenant', true), ''))"
_OWN = f"CASE {_SETTING} WHEN '*' THEN true WHEN 'platform' THEN true ELSE tenant_id = {_SETTING} END"

# What is begun or ended touches the days, or for shared costs the months, between the old and the new end, or from its
# beginning on. FOR SHARE waits for a close that is under way, and makes one that comes wait.
_REFUSE = """
CREATE FUNCTION refuse_charge_in_closed_month() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
DECLARE
    touched daterange := daterange(NEW.starts_on, NEW.ends_on);
    scope text := to_jsonb(NEW) ->> 'scope';
    closed record;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        touched := daterange(least(OLD.ends_on, NEW.ends_on),
            CASE WHEN OLD.ends_on IS NOT NULL THEN greatest(OLD.ends_on, NEW.ends_on) END);
    END IF;
    PERFORM FROM billing_period p WHERE p.tenant_id = NEW.tenant_id OR NEW.tenant_id = 'platform'
        ORDER BY p.tenant_id, p.month FOR SHARE;
    SELECT c.tenant, c.month INTO closed FROM closed_month c
    LEFT JOIN billing_period p ON p.tenant_id = c.tenant AND p.month = c.month
    WHERE (c.tenant = NEW.tenant_id
            OR (NEW.tenant_id = 'platform' AND scope IN ('platform', 'tenants/' || c.tenant)))
        AND CASE TG_ARGV[0] WHEN 'months' THEN to_date(c.month, 'YYYY-MM') <@ touched
            ELSE touched && daterange((c.starts_at AT TIME ZONE coalesce(p.time_zone, 'UTC'))::date,
                (c.ends_at AT TIME ZONE coalesce(p.time_zone, 'UTC'))::date) END
    ORDER BY c.tenant, c.month LIMIT 1;
    IF FOUND THEN
        PERFORM refuse_closed(closed.tenant, closed.month);
    END IF;
    RETURN NEW;
END
$$"""

_STATEMENTS = (
    _REFUSE,
    # Rules of the platform have the tenant 'platform', and the scope 'platform' or that of the one tenant they are for.
    """
CREATE TABLE charge_rule (
    tenant_id       text        NOT NULL CONSTRAINT charge_rule_tenant_fkey REFERENCES tenant (tenant_id),
    rule_id         text        NOT NULL,
    scope           text        NOT NULL,
    selector        text        NOT NULL DEFAULT '',
    kind            text        NOT NULL
        CONSTRAINT charge_rule_kind_check CHECK (kind IN ('PERCENT', 'FIXED', 'STEPS')),
    rate_millionths bigint      NOT NULL DEFAULT 0,
    amount_nanos    bigint      NOT NULL DEFAULT 0,
    steps           jsonb       NOT NULL DEFAULT '[]',
    reason          text        NOT NULL,
    starts_on       date        NOT NULL,
    ends_on         date        CONSTRAINT charge_rule_dates_check CHECK (ends_on >= starts_on),
    creator         text        NOT NULL,
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT charge_rule_pkey PRIMARY KEY (tenant_id, rule_id)
)""",
    # A tenant reads the platform's rules that are about him, and writes his own only.
    f"""
CREATE POLICY charge_rule_rows ON charge_rule
    USING ({_OWN} OR (tenant_id = 'platform' AND scope IN ('platform', 'tenants/' || {_SETTING})))
    WITH CHECK ({_OWN})""",
    "GRANT SELECT, INSERT, UPDATE (ends_on, version, updated_at) ON charge_rule TO tollhouse_app",
    """
CREATE TRIGGER closed_month BEFORE INSERT OR UPDATE ON charge_rule
    FOR EACH ROW EXECUTE FUNCTION refuse_charge_in_closed_month('days')""",
    # What alone may change the limit, beside its thresholds: empty for limits that administrators change.
    "ALTER TABLE usage_limit ADD COLUMN kept_by text NOT NULL DEFAULT ''",
    # What a limit raises once in a window it may raise again after a top-up, which begins another round.
    "ALTER TABLE usage_limit ADD COLUMN alert_round integer NOT NULL DEFAULT 0",
    "ALTER TABLE limit_alert ADD COLUMN alert_round integer NOT NULL DEFAULT 0",
    "-- squawk-ignore require-concurrent-index-deletion\nDROP INDEX limit_alert_once",
    "-- squawk-ignore require-concurrent-index-deletion\nDROP INDEX limit_alert_passed",
    """
CREATE UNIQUE INDEX limit_alert_once ON limit_alert (tenant_id, limit_id, window_start, threshold, alert_round)
    WHERE kind = 'THRESHOLD'""",
    """
CREATE UNIQUE INDEX limit_alert_passed ON limit_alert (tenant_id, limit_id, window_start, alert_round)
    WHERE kind = 'PASSED'""",
    # `attributed_nanos` is how much of what the limit has settled was taken from top-ups.
    """
CREATE TABLE wallet (
    tenant_id           text        NOT NULL,
    wallet_id           text        NOT NULL,
    limit_id            bigint      NOT NULL,
    display_name        text        NOT NULL DEFAULT '',
    low_balance_percent integer     NOT NULL,
    attributed_nanos    bigint      NOT NULL DEFAULT 0,
    version             bigint      NOT NULL DEFAULT 1,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT wallet_pkey PRIMARY KEY (tenant_id, wallet_id),
    CONSTRAINT wallet_limit_fkey FOREIGN KEY (tenant_id, limit_id) REFERENCES usage_limit (tenant_id, limit_id)
)""",
    "GRANT SELECT, INSERT, UPDATE ON wallet TO tollhouse_app",
    """
CREATE TABLE wallet_top_up (
    tenant_id     text        NOT NULL,
    wallet_id     text        NOT NULL,
    top_up_id     text        NOT NULL,
    amount_nanos  bigint      NOT NULL CONSTRAINT wallet_top_up_amount_check CHECK (amount_nanos > 0),
    spent_nanos   bigint      NOT NULL DEFAULT 0,
    expired_nanos bigint      NOT NULL DEFAULT 0,
    expires_at    timestamptz,
    expired_at    timestamptz,
    reference     text        NOT NULL DEFAULT '',
    creator       text        NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wallet_top_up_pkey PRIMARY KEY (tenant_id, wallet_id, top_up_id),
    CONSTRAINT wallet_top_up_wallet_fkey FOREIGN KEY (tenant_id, wallet_id) REFERENCES wallet (tenant_id, wallet_id),
    CONSTRAINT wallet_top_up_spent_check
        CHECK (spent_nanos >= 0 AND expired_nanos >= 0 AND spent_nanos + expired_nanos <= amount_nanos)
)""",
    "CREATE INDEX wallet_top_up_due ON wallet_top_up (expires_at) WHERE expired_at IS NULL",
    """
GRANT SELECT, INSERT, UPDATE (spent_nanos, expired_nanos, expired_at) ON wallet_top_up TO tollhouse_app""",
    # How many millionths of a unit one dollar is. Of two rates of one day the one that was recorded later counts.
    """
CREATE TABLE currency_rate (
    rate_id                bigint      GENERATED ALWAYS AS IDENTITY CONSTRAINT currency_rate_pkey PRIMARY KEY,
    code                   text        NOT NULL,
    dated                  date        NOT NULL,
    per_dollar_millionths  bigint      NOT NULL CONSTRAINT currency_rate_check CHECK (per_dollar_millionths > 0),
    source                 text        NOT NULL,
    creator                text        NOT NULL,
    recorded_at            timestamptz NOT NULL DEFAULT clock_timestamp()
)""",
    "CREATE INDEX currency_rate_code_idx ON currency_rate (code, dated, rate_id)",
    "GRANT SELECT, INSERT ON currency_rate TO tollhouse_app",
    """
CREATE TABLE display_currency (
    tenant_id  text        NOT NULL CONSTRAINT display_currency_tenant_fkey REFERENCES tenant (tenant_id),
    code       text        NOT NULL,
    version    bigint      NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT display_currency_pkey PRIMARY KEY (tenant_id)
)""",
    "GRANT SELECT, INSERT, UPDATE ON display_currency TO tollhouse_app",
)


def upgrade() -> None:
    """Add rules for charges, wallets with their top-ups, and currencies."""
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drop them; the limits of wallets become limits like others, and of several rounds of alerts the first stays."""
    for table in ("display_currency", "currency_rate", "wallet_top_up", "wallet", "charge_rule"):
        op.execute(f"DROP TABLE {table}")
    op.execute("DROP FUNCTION refuse_charge_in_closed_month()")
    op.execute("DELETE FROM limit_alert WHERE alert_round > 0")
    op.execute("ALTER TABLE limit_alert DROP COLUMN alert_round")
    op.execute("ALTER TABLE usage_limit DROP COLUMN kept_by, DROP COLUMN alert_round")
    op.execute("""
CREATE UNIQUE INDEX limit_alert_once ON limit_alert (tenant_id, limit_id, window_start, threshold)
    WHERE kind = 'THRESHOLD'""")
    op.execute("""
CREATE UNIQUE INDEX limit_alert_passed ON limit_alert (tenant_id, limit_id, window_start) WHERE kind = 'PASSED'""")
