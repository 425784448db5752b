"""What a tenant allows, prefers and overrides in routing."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_CATALOGUE = (
    # From when on callers are told that the model will be shut down; absent: 30 days before.
    "ALTER TABLE model ADD COLUMN notice_at timestamptz",
    # Choices of one rank share the traffic by weight; absent: the position, so that each is asked after the other.
    "ALTER TABLE tier_target ADD COLUMN rank integer, ADD COLUMN weight integer NOT NULL DEFAULT 1",
    """
ALTER TABLE tier_target ADD CONSTRAINT tier_target_share_check
    CHECK (rank >= 0 AND weight BETWEEN 1 AND 1000) NOT VALID""",
)

_POLICIES = (
    # `scope` is the name of the tenant, department or project; `policy` what routing/policies.py makes of it.
    """
CREATE TABLE routing_policy (
    tenant_id  text        NOT NULL CONSTRAINT routing_policy_tenant_fkey REFERENCES tenant (tenant_id),
    scope      text        NOT NULL,
    policy     jsonb       NOT NULL,
    version    bigint      NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT routing_policy_pkey PRIMARY KEY (tenant_id, scope)
)""",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON routing_policy TO tollhouse_app",
)


def upgrade() -> None:
    """Give tiers ranks and weights, models a day of notice, and scopes a policy."""
    for statement in (*_CATALOGUE, *_POLICIES):
        op.execute(statement)


def downgrade() -> None:
    """Drop them; tiers are asked in the order of their positions again."""
    op.execute("DROP TABLE routing_policy")
    op.execute("ALTER TABLE tier_target DROP COLUMN rank, DROP COLUMN weight")
    op.execute("ALTER TABLE model DROP COLUMN notice_at")
