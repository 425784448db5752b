"""What is looked for in prompts and answers."""

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

_STATEMENTS = (
    "INSERT INTO epoch (topic) VALUES ('data_policies')",
    # `scope` is the name of the tenant or department; `policy` what dlp/policy.py makes of it.
    """
CREATE TABLE data_policy (
    tenant_id  text        NOT NULL CONSTRAINT data_policy_tenant_fkey REFERENCES tenant (tenant_id),
    scope      text        NOT NULL,
    policy     jsonb       NOT NULL,
    version    bigint      NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT data_policy_pkey PRIMARY KEY (tenant_id, scope)
)""",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON data_policy TO tollhouse_app",
    # How often a detector found something in a call, never what. `detector` "custom:x" is a pattern of the tenant's.
    """
CREATE TABLE data_finding (
    tenant_id     text        NOT NULL,
    found_at      timestamptz NOT NULL,
    request_id    uuid        NOT NULL,
    direction     text        NOT NULL
        CONSTRAINT data_finding_direction_check CHECK (direction IN ('PROMPT', 'ANSWER')),
    detector      text        NOT NULL,
    action        text        NOT NULL
        CONSTRAINT data_finding_action_check CHECK (action IN ('ALLOW', 'MASK', 'BLOCK')),
    department_id text        NOT NULL DEFAULT '',
    value_count   integer     NOT NULL CONSTRAINT data_finding_count_check CHECK (value_count > 0),
    CONSTRAINT data_finding_pkey PRIMARY KEY (tenant_id, found_at, request_id, direction, detector, action)
)""",
    "CREATE INDEX data_finding_found_at_idx ON data_finding (found_at)",
    "GRANT SELECT, INSERT, DELETE ON data_finding TO tollhouse_app",
)


def upgrade() -> None:
    """Add data policies and what was found by them."""
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    op.execute("DROP TABLE data_finding")
    op.execute("DROP TABLE data_policy")
    op.execute("DELETE FROM epoch WHERE topic = 'data_policies'")
