"""Limits of every kind: modes, thresholds with alerts, temporary increases, and the ledger's clock."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_LIMITS = (
    "ALTER TABLE tenant ADD COLUMN fiscal_month_start_day integer NOT NULL DEFAULT 1",
    """
ALTER TABLE tenant ADD CONSTRAINT tenant_fiscal_month_start_day_check
    CHECK (fiscal_month_start_day BETWEEN 1 AND 28) NOT VALID""",
    # In the unit of the metric: how far an ELASTIC limit may be passed by calls in flight, at their worst.
    "ALTER TABLE usage_limit ADD COLUMN overshoot bigint NOT NULL DEFAULT 0",
    # Per cent of the amount, ascending; each raises one alert in a window.
    "ALTER TABLE usage_limit ADD COLUMN thresholds integer[] NOT NULL DEFAULT '{}'",
    """
ALTER TABLE usage_limit ADD CONSTRAINT usage_limit_mode_check
    CHECK (mode IN ('STRICT', 'ELASTIC', 'SOFT') AND overshoot >= 0) NOT VALID""",
    # `expected`: what the calls in flight will probably use, kept for ELASTIC limits beside the worst case in `held`.
    # `alert_at`: what `settled` must reach for the next alert; 0 means that it has to be worked out.
    """
ALTER TABLE counter
    ADD COLUMN expected bigint NOT NULL DEFAULT 0,
    ADD COLUMN alert_at bigint NOT NULL DEFAULT 0""",
    "CREATE INDEX counter_window ON counter (window_start)",
    """
CREATE TABLE limit_alert (
    tenant_id    text        NOT NULL,
    alert_id     bigint      GENERATED ALWAYS AS IDENTITY,
    limit_id     bigint      NOT NULL,
    window_start timestamptz NOT NULL,
    kind         text        NOT NULL CONSTRAINT limit_alert_kind_check
        CHECK (kind IN ('THRESHOLD', 'PASSED', 'ABOVE_HOLD')),
    threshold    integer     NOT NULL DEFAULT 0,
    settled      bigint      NOT NULL,
    amount       bigint      NOT NULL,
    attempt_id   uuid,
    raised_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT limit_alert_pkey PRIMARY KEY (tenant_id, alert_id)
)""",
    # Once each: whoever crosses a threshold a second time in the same window finds the row.
    """
CREATE UNIQUE INDEX limit_alert_once ON limit_alert (tenant_id, limit_id, window_start, threshold)
    WHERE kind = 'THRESHOLD'""",
    "CREATE UNIQUE INDEX limit_alert_passed ON limit_alert (tenant_id, limit_id, window_start) WHERE kind = 'PASSED'",
    "CREATE INDEX limit_alert_time ON limit_alert (tenant_id, raised_at)",
    """
CREATE TABLE limit_increase (
    tenant_id       text        NOT NULL,
    increase_id     text        NOT NULL,
    limit_id        bigint      NOT NULL,
    amount          bigint      NOT NULL CONSTRAINT limit_increase_amount_check CHECK (amount > 0),
    reason          text        NOT NULL,
    state           text        NOT NULL DEFAULT 'REQUESTED' CONSTRAINT limit_increase_state_check
        CHECK (state IN ('REQUESTED', 'APPROVED', 'REJECTED', 'WITHDRAWN', 'REVOKED')),
    requested_by    text        NOT NULL,
    decided_by      text,
    decided_at      timestamptz,
    decision_reason text        NOT NULL DEFAULT '',
    starts_at       timestamptz,
    expires_at      timestamptz NOT NULL,
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT limit_increase_pkey PRIMARY KEY (tenant_id, increase_id),
    CONSTRAINT limit_increase_limit_fkey FOREIGN KEY (tenant_id, limit_id) REFERENCES usage_limit (tenant_id, limit_id),
    CONSTRAINT limit_increase_second_person
        CHECK (state <> 'APPROVED' OR (decided_by IS NOT NULL AND decided_by <> requested_by))
)""",
    "CREATE INDEX limit_increase_approved ON limit_increase (tenant_id, limit_id) WHERE state = 'APPROVED'",
)

_RECORDS = (
    # Which counters a record went into, so that each counter can be checked against its records.
    "ALTER TABLE usage_record ADD COLUMN holds json NOT NULL DEFAULT '[]'",
    """
ALTER TABLE suspense
    ADD COLUMN resolved_by text NOT NULL DEFAULT '',
    ADD COLUMN reason text NOT NULL DEFAULT ''""",
)

# The ledger's clock. Its shared lock lets whoever takes the lock alone (key: "tick") know that everything stamped
# before is committed: a roll-up up to that moment is final.
_CLOCK = """
CREATE FUNCTION ledger_now() RETURNS timestamptz LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(1953063787);
    RETURN clock_timestamp();
END
$$"""

_GRANTS = (
    "GRANT SELECT, INSERT ON limit_alert TO tollhouse_app",
    "GRANT SELECT, INSERT, UPDATE ON limit_increase TO tollhouse_app",
)


def upgrade() -> None:
    """Widen limits; records say which counters they went into."""
    for statement in (*_LIMITS, *_RECORDS, _CLOCK, *_GRANTS):
        op.execute(statement)


def downgrade() -> None:
    """There is no way back: limits of the new kinds have no place in the old tables."""
    raise NotImplementedError("restore the backup that was made before the upgrade")
