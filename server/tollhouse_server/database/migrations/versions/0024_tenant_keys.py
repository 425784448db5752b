"""Each tenant's data key, and kept prompts and answers."""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

_KEYS = (
    # Wrapped by a key in Vault. No foreign key to the tenant: the mark of a destroyed key outlives it, and versions
    # must never count anew.
    """
CREATE TABLE tenant_key (
    tenant_id    text        NOT NULL,
    version      integer     NOT NULL CONSTRAINT tenant_key_version_check CHECK (version > 0),
    transit_key  text        NOT NULL,
    wrapped      bytea       NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    destroyed_at timestamptz,
    CONSTRAINT tenant_key_pkey PRIMARY KEY (tenant_id, version)
)""",
    "GRANT SELECT, INSERT, UPDATE ON tenant_key TO tollhouse_app",
    "INSERT INTO epoch (topic) VALUES ('tenant_keys')",
)


def upgrade() -> None:
    """Create the tables."""
    for statement in _KEYS:
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    op.execute("DELETE FROM epoch WHERE topic = 'tenant_keys'")
    op.execute("DROP TABLE tenant_key")
