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

_CONTENT = (
    """
CREATE TABLE content_policy (
    tenant_id      text        NOT NULL CONSTRAINT content_policy_tenant_fkey REFERENCES tenant (tenant_id),
    keep           text        NOT NULL
        CONSTRAINT content_policy_keep_check CHECK (keep IN ('NONE', 'PROMPTS', 'PROMPTS_AND_ANSWERS')),
    retention_days integer     NOT NULL
        CONSTRAINT content_policy_retention_check CHECK (retention_days BETWEEN 1 AND 3650),
    scopes         text[]      NOT NULL,
    must_keep      boolean     NOT NULL,
    version        bigint      NOT NULL DEFAULT 1,
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT content_policy_pkey PRIMARY KEY (tenant_id)
)""",
    # Not partitioned by time: each tenant has a retention of its own, so no partition would be out of date as a whole.
    """
CREATE TABLE kept_content (
    tenant_id        text        NOT NULL,
    attempt_id       uuid        NOT NULL,
    created_at       timestamptz NOT NULL,
    expires_at       timestamptz NOT NULL,
    department_path  text[]      NOT NULL,
    project_id       text        NOT NULL,
    principal_id     text        NOT NULL,
    request_id       uuid        NOT NULL,
    method           text        NOT NULL,
    model            text        NOT NULL,
    prompt           bytea       NOT NULL,
    prompt_bytes     bigint      NOT NULL,
    answer           bytea,
    answer_bytes     bigint      NOT NULL,
    answer_truncated boolean     NOT NULL,
    CONSTRAINT kept_content_pkey PRIMARY KEY (tenant_id, attempt_id)
)""",
    # Compressed already, and sealed: nothing that PostgreSQL could make smaller.
    "ALTER TABLE kept_content ALTER COLUMN prompt SET STORAGE EXTERNAL, ALTER COLUMN answer SET STORAGE EXTERNAL",
    "CREATE INDEX kept_content_time ON kept_content (tenant_id, created_at, attempt_id)",
    "CREATE INDEX kept_content_principal ON kept_content (tenant_id, principal_id, created_at)",
    "CREATE INDEX kept_content_expiry ON kept_content (expires_at)",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON content_policy TO tollhouse_app",
    "GRANT SELECT, INSERT, DELETE ON kept_content TO tollhouse_app",
    "INSERT INTO epoch (topic) VALUES ('content')",
)


def upgrade() -> None:
    """Create the tables."""
    for statement in (*_KEYS, *_CONTENT):
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    op.execute("DELETE FROM epoch WHERE topic IN ('tenant_keys', 'content')")
    for table in ("kept_content", "content_policy", "tenant_key"):
        op.execute(f"DROP TABLE {table}")
