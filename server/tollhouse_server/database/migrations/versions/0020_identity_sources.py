"""How callers prove who they are: narrower API keys, identity providers, and the certificates of clients."""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_ENVIRONMENTS = "'LIVE', 'TEST', 'DEVELOPMENT', 'STAGING'"

_CHANGES = (
    # The new ones only admit more.
    "-- squawk-ignore ban-drop-constraint\nALTER TABLE api_key DROP CONSTRAINT api_key_environment_check",
    "-- squawk-ignore ban-drop-constraint\nALTER TABLE account DROP CONSTRAINT account_environment_check",
    f"""
ALTER TABLE api_key
    ADD CONSTRAINT api_key_environment_check CHECK (environment IN ({_ENVIRONMENTS})) NOT VALID,
    ADD COLUMN scopes           text[] NOT NULL DEFAULT '{{}}',
    ADD COLUMN allowed_networks text[] NOT NULL DEFAULT '{{}}',
    ADD COLUMN last_used_at     timestamptz,
    ADD COLUMN predecessor_id   text,
    ADD COLUMN successor_id     text""",
    f"""
ALTER TABLE account
    ADD CONSTRAINT account_environment_check CHECK (environment IN ('', {_ENVIRONMENTS.lower()})) NOT VALID""",
    f"""
CREATE TABLE identity_provider (
    tenant_id          text        NOT NULL,
    provider_id        text        NOT NULL CHECK (provider_id ~ '^[a-z][a-z0-9-]{{1,62}}$'),
    display_name       text        NOT NULL DEFAULT '',
    issuer             text        NOT NULL,
    audiences          text[]      NOT NULL CHECK (cardinality(audiences) > 0),
    subject_claim      text        NOT NULL,
    groups_claim       text        NOT NULL DEFAULT '',
    groups             jsonb       NOT NULL DEFAULT '{{}}',
    project_claim      text        NOT NULL DEFAULT '',
    admits_groups      boolean     NOT NULL DEFAULT false,
    clock_skew_seconds integer     NOT NULL CHECK (clock_skew_seconds BETWEEN 0 AND 60),
    environment        text        NOT NULL CHECK (environment IN ({_ENVIRONMENTS})),
    state              text        NOT NULL DEFAULT 'ACTIVE' CHECK (state IN ('ACTIVE', 'DISABLED')),
    version            bigint      NOT NULL DEFAULT 1,
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT identity_provider_pkey PRIMARY KEY (tenant_id, provider_id),
    CONSTRAINT identity_provider_tenant_fkey FOREIGN KEY (tenant_id) REFERENCES tenant (tenant_id)
)""",
    # A token leads to one tenant and to no other: an issuer and an audience belong to one provider everywhere.
    """
CREATE TABLE identity_provider_audience (
    tenant_id   text NOT NULL,
    provider_id text NOT NULL,
    issuer      text NOT NULL,
    audience    text NOT NULL,
    CONSTRAINT identity_provider_audience_pkey PRIMARY KEY (tenant_id, provider_id, audience),
    CONSTRAINT identity_provider_audience_once UNIQUE (issuer, audience),
    CONSTRAINT identity_provider_audience_fkey FOREIGN KEY (tenant_id, provider_id)
        REFERENCES identity_provider (tenant_id, provider_id) ON DELETE CASCADE
)""",
    f"""
CREATE TABLE client_identity (
    tenant_id          text        NOT NULL,
    client_identity_id text        NOT NULL CHECK (client_identity_id ~ '^[a-z][a-z0-9-]{{1,62}}$'),
    display_name       text        NOT NULL DEFAULT '',
    identity           text        NOT NULL CHECK (identity ~ '^(spiffe://|subject:)'),
    principal_id       text        NOT NULL,
    project_id         text,
    environment        text        NOT NULL CHECK (environment IN ({_ENVIRONMENTS})),
    version            bigint      NOT NULL DEFAULT 1,
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT client_identity_pkey PRIMARY KEY (tenant_id, client_identity_id),
    CONSTRAINT client_identity_once UNIQUE (identity),
    CONSTRAINT client_identity_principal_fkey FOREIGN KEY (tenant_id, principal_id)
        REFERENCES principal (tenant_id, principal_id),
    CONSTRAINT client_identity_project_fkey FOREIGN KEY (tenant_id, project_id)
        REFERENCES project (tenant_id, project_id)
)""",
    "CREATE INDEX client_identity_principal ON client_identity (tenant_id, principal_id)",
    "CREATE INDEX client_identity_project ON client_identity (tenant_id, project_id)",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON identity_provider TO tollhouse_app",
    "GRANT SELECT, INSERT, DELETE ON identity_provider_audience TO tollhouse_app",
    # Nothing of it is ever changed; a row that is locked needs the right to.
    "GRANT SELECT, INSERT, UPDATE, DELETE ON client_identity TO tollhouse_app",
)


def upgrade() -> None:
    """Widen API keys, and create what the other credentials are known by."""
    for statement in _CHANGES:
        op.execute(statement)


def downgrade() -> None:
    """Drop it all; keys of the new environments must be gone."""
    for table in ("client_identity", "identity_provider_audience", "identity_provider"):
        op.execute(f"DROP TABLE {table}")
    op.execute("""
ALTER TABLE account
    DROP CONSTRAINT account_environment_check,
    ADD CONSTRAINT account_environment_check CHECK (environment IN ('', 'live', 'test'))""")
    op.execute("""
ALTER TABLE api_key
    DROP CONSTRAINT api_key_environment_check,
    ADD CONSTRAINT api_key_environment_check CHECK (environment IN ('LIVE', 'TEST')),
    DROP COLUMN scopes, DROP COLUMN allowed_networks, DROP COLUMN last_used_at,
    DROP COLUMN predecessor_id, DROP COLUMN successor_id""")
