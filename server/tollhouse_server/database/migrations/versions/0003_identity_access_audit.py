"""Who calls, who may, who did: API keys, role grants, the audit trail and answered administrative requests."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TABLES = (
    """
CREATE TABLE api_key (
    tenant_id    text        NOT NULL,
    key_id       text        NOT NULL CHECK (key_id ~ '^[a-z2-7]{12}$'),
    principal_id text        NOT NULL,
    project_id   text,
    environment  text        NOT NULL CHECK (environment IN ('LIVE', 'TEST')),
    digest       bytea       NOT NULL CHECK (octet_length(digest) = 32),
    display_name text        NOT NULL DEFAULT '',
    expires_at   timestamptz,
    revoked_at   timestamptz,
    version      bigint      NOT NULL DEFAULT 1,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT api_key_pkey PRIMARY KEY (tenant_id, key_id),
    CONSTRAINT api_key_principal_fkey FOREIGN KEY (tenant_id, principal_id)
        REFERENCES principal (tenant_id, principal_id),
    CONSTRAINT api_key_project_fkey FOREIGN KEY (tenant_id, project_id) REFERENCES project (tenant_id, project_id)
)""",
    # A caller presents the id before his tenant is known; this is the one look-up across tenants.
    "CREATE UNIQUE INDEX api_key_id ON api_key (key_id)",
    "CREATE INDEX api_key_project ON api_key (tenant_id, project_id)",
    """
CREATE TABLE role_grant (
    tenant_id    text        NOT NULL,
    grant_id     text        NOT NULL CHECK (grant_id ~ '^[a-z][a-z0-9-]{1,62}$'),
    principal_id text        NOT NULL,
    role         text        NOT NULL,
    scope        text        NOT NULL,
    creator      text        NOT NULL DEFAULT '',
    created_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT role_grant_pkey PRIMARY KEY (tenant_id, grant_id),
    CONSTRAINT role_grant_once UNIQUE (tenant_id, principal_id, role, scope),
    CONSTRAINT role_grant_principal_fkey FOREIGN KEY (tenant_id, principal_id)
        REFERENCES principal (tenant_id, principal_id),
    CHECK (scope = 'platform' AND tenant_id = 'platform'
        OR scope = 'tenants/' || tenant_id OR scope LIKE 'tenants/' || tenant_id || '/%')
)""",
    """
CREATE TABLE audit_event (
    tenant_id      text        NOT NULL,
    event_id       bigint      GENERATED ALWAYS AS IDENTITY,
    occurred_at    timestamptz NOT NULL DEFAULT now(),
    actor          text        NOT NULL,
    credential_id  text        NOT NULL,
    method         text        NOT NULL,
    permission     text        NOT NULL,
    resource       text        NOT NULL,
    before         jsonb,
    after          jsonb,
    request_id     text        NOT NULL,
    correlation_id text        NOT NULL,
    CONSTRAINT audit_event_pkey PRIMARY KEY (tenant_id, event_id)
)""",
    "CREATE INDEX audit_event_resource ON audit_event (tenant_id, resource, event_id)",
    """
CREATE TABLE admin_request (
    tenant_id   text        NOT NULL,
    request_id  uuid        NOT NULL,
    fingerprint bytea       NOT NULL,
    response    bytea       NOT NULL DEFAULT '',
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT admin_request_pkey PRIMARY KEY (tenant_id, request_id)
)""",
    "CREATE INDEX admin_request_age ON admin_request (created_at)",
    "GRANT SELECT, INSERT, UPDATE ON api_key TO tollhouse_app",
    "GRANT SELECT, INSERT, DELETE ON role_grant TO tollhouse_app",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON admin_request TO tollhouse_app",
    # What is written to the trail stays as it was written, whatever the application does.
    "GRANT SELECT, INSERT ON audit_event TO tollhouse_app",
)


def upgrade() -> None:
    """Create the tables, each with the grants that the application needs and no more."""
    for statement in _TABLES:
        op.execute(statement)


def downgrade() -> None:
    """Drop the tables."""
    for table in ("admin_request", "audit_event", "role_grant", "api_key"):
        op.execute(f"DROP TABLE {table}")
