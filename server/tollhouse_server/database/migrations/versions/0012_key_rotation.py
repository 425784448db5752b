"""Rotation of upstream keys: policies, steps under way, use per key and what was unusual about it."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_KEY = (
    # The wider one below takes its place.
    """-- squawk-ignore ban-drop-constraint
ALTER TABLE upstream_key DROP CONSTRAINT upstream_key_state_check""",
    """ALTER TABLE upstream_key ADD CONSTRAINT upstream_key_state_check CHECK (state IN
    ('STAGED', 'ACTIVE', 'DRAINING', 'DISABLED', 'QUARANTINED', 'REVOKED', 'RETIRED')) NOT VALID""",
    # What the provider calls the key; empty for one that came by hand.
    "ALTER TABLE upstream_key ADD COLUMN provider_key text NOT NULL DEFAULT ''",
)

_TABLES = (
    """
CREATE TABLE key_policy (
    account_id           text        NOT NULL CONSTRAINT key_policy_pkey PRIMARY KEY
                         CONSTRAINT key_policy_account_fkey REFERENCES account (account_id) ON DELETE CASCADE,
    provider             text        NOT NULL CHECK (provider IN ('MANUAL', 'GOOGLE', 'SIMULATOR')),
    rotation_period_days integer     NOT NULL CHECK (rotation_period_days BETWEEN 30 AND 90),
    drain_seconds        integer     NOT NULL CHECK (drain_seconds BETWEEN 0 AND 86400),
    version              bigint      NOT NULL DEFAULT 1,
    created_at           timestamptz NOT NULL DEFAULT now(),
    updated_at           timestamptz NOT NULL DEFAULT now()
)""",
    # Keys go, the history of their rotations stays as long as their account.
    """
CREATE TABLE key_rotation (
    rotation_id   text        NOT NULL CONSTRAINT key_rotation_pkey PRIMARY KEY,
    account_id    text        NOT NULL
                  CONSTRAINT key_rotation_account_fkey REFERENCES account (account_id) ON DELETE CASCADE,
    kind          text        NOT NULL CHECK (kind IN ('ROTATION', 'REVOCATION')),
    cause         text        NOT NULL CHECK (cause IN ('POLICY', 'REQUEST')),
    provider      text        NOT NULL CHECK (provider IN ('MANUAL', 'GOOGLE', 'SIMULATOR')),
    old_key_id    text        NOT NULL,
    new_key_id    text        NOT NULL DEFAULT '',
    step          text        NOT NULL CHECK (step IN
                  ('STAGE', 'PROBE', 'PROMOTE', 'OVERLAP', 'DRAIN', 'RETIRE', 'DESTROY', 'ROLL_BACK')),
    outcome       text        NOT NULL DEFAULT '' CHECK (outcome IN ('', 'SUCCEEDED', 'FAILED', 'CANCELLED')),
    error         text        NOT NULL DEFAULT '',
    remark        text        NOT NULL DEFAULT '',
    tries         integer     NOT NULL DEFAULT 0,
    fence         bigint      NOT NULL DEFAULT 0,
    leased_until  timestamptz NOT NULL DEFAULT now(),
    next_at       timestamptz NOT NULL DEFAULT now(),
    drain_seconds integer     NOT NULL,
    actor         text        NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    step_at       timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    ended_at      timestamptz,
    CHECK ((ended_at IS NULL) OR outcome <> '')
)""",
    """CREATE UNIQUE INDEX key_rotation_one_open ON key_rotation (account_id, old_key_id, kind)
    WHERE ended_at IS NULL""",
    "CREATE INDEX key_rotation_of_account ON key_rotation (account_id, rotation_id)",
    """
CREATE TABLE key_use (
    account_id text        NOT NULL,
    key_id     text        NOT NULL,
    hour       timestamptz NOT NULL,
    calls      bigint      NOT NULL,
    cost_nanos bigint      NOT NULL,
    CONSTRAINT key_use_pkey PRIMARY KEY (account_id, key_id, hour)
)""",
    """
CREATE TABLE key_anomaly (
    account_id text             NOT NULL,
    key_id     text             NOT NULL,
    hour       timestamptz      NOT NULL,
    metric     text             NOT NULL CHECK (metric IN ('CALLS', 'COST')),
    amount     bigint           NOT NULL,
    usual      bigint           NOT NULL,
    deviation  bigint           NOT NULL,
    raised_at  timestamptz      NOT NULL DEFAULT now(),
    CONSTRAINT key_anomaly_pkey PRIMARY KEY (account_id, key_id, hour, metric)
)""",
)

_GRANTS = (
    "GRANT SELECT, INSERT, UPDATE, DELETE ON key_policy, key_use, key_anomaly TO tollhouse_app",
    # What was done to keys is never taken back.
    "GRANT SELECT, INSERT, UPDATE ON key_rotation TO tollhouse_app",
)


def upgrade() -> None:
    """Create the tables and what the application role may do with them."""
    for statement in (*_KEY, *_TABLES, *_GRANTS):
        op.execute(statement)


def downgrade() -> None:
    """Drop the tables; keys in states that were not known before are disabled."""
    op.execute("DROP TABLE key_anomaly, key_use, key_rotation, key_policy")
    op.execute("ALTER TABLE upstream_key DROP COLUMN provider_key")
    op.execute("UPDATE upstream_key SET state = 'DISABLED' WHERE state NOT IN ('ACTIVE', 'DISABLED', 'QUARANTINED')")
    op.execute("ALTER TABLE upstream_key DROP CONSTRAINT upstream_key_state_check")
    op.execute(
        "ALTER TABLE upstream_key ADD CONSTRAINT upstream_key_state_check "
        "CHECK (state IN ('ACTIVE', 'DISABLED', 'QUARANTINED'))"
    )
