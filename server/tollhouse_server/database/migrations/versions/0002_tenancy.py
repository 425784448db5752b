"""Tenancy: tenants, departments (ltree), projects, principals; the platform's own tenant."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ID = "CHECK ({column} ~ '^[a-z][a-z0-9-]{{1,62}}$')"

_COMMON = """
    display_name text        NOT NULL DEFAULT '',
    version      bigint      NOT NULL DEFAULT 1,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    deleted_at   timestamptz,
"""

_TABLES = (
    "CREATE EXTENSION IF NOT EXISTS ltree",
    f"""
CREATE TABLE tenant (
    tenant_id    text NOT NULL {_ID.format(column="tenant_id")},
    time_zone    text NOT NULL DEFAULT 'UTC',
    state        text NOT NULL DEFAULT 'ACTIVE' CHECK (state IN ('ACTIVE', 'SUSPENDED', 'DELETED')),
    {_COMMON}
    CONSTRAINT tenant_pkey PRIMARY KEY (tenant_id)
)""",
    f"""
CREATE TABLE department (
    tenant_id    text  NOT NULL CONSTRAINT department_tenant_fkey REFERENCES tenant (tenant_id),
    department_id text NOT NULL {_ID.format(column="department_id")},
    parent_id    text,
    path         ltree NOT NULL CHECK (subpath(path, -1, 1)::text = department_id),
    state        text  NOT NULL DEFAULT 'ACTIVE' CHECK (state IN ('ACTIVE', 'DELETED')),
    {_COMMON}
    CONSTRAINT department_pkey PRIMARY KEY (tenant_id, department_id),
    CONSTRAINT department_parent_fkey FOREIGN KEY (tenant_id, parent_id)
        REFERENCES department (tenant_id, department_id)
)""",
    "CREATE INDEX department_path ON department USING gist (path)",
    f"""
CREATE TABLE project (
    tenant_id     text NOT NULL,
    project_id    text NOT NULL {_ID.format(column="project_id")},
    department_id text NOT NULL,
    state         text NOT NULL DEFAULT 'ACTIVE' CHECK (state IN ('ACTIVE', 'DELETED')),
    {_COMMON}
    CONSTRAINT project_pkey PRIMARY KEY (tenant_id, project_id),
    CONSTRAINT project_department_fkey FOREIGN KEY (tenant_id, department_id)
        REFERENCES department (tenant_id, department_id)
)""",
    "CREATE INDEX project_department ON project (tenant_id, department_id)",
    f"""
CREATE TABLE principal (
    tenant_id    text NOT NULL CONSTRAINT principal_tenant_fkey REFERENCES tenant (tenant_id),
    principal_id text NOT NULL {_ID.format(column="principal_id")},
    kind         text NOT NULL CHECK (kind IN ('USER', 'SERVICE_ACCOUNT')),
    state        text NOT NULL DEFAULT 'ACTIVE' CHECK (state IN ('ACTIVE', 'DISABLED', 'DELETED')),
    {_COMMON}
    CONSTRAINT principal_pkey PRIMARY KEY (tenant_id, principal_id)
)""",
    "GRANT SELECT, INSERT, UPDATE ON tenant, department, project, principal TO tollhouse_app",
    "INSERT INTO tenant (tenant_id, display_name) VALUES ('platform', 'Platform')",
)


def upgrade() -> None:
    """Create the tables; nothing here is ever deleted by the application, only marked."""
    for statement in _TABLES:
        op.execute(statement)


def downgrade() -> None:
    """Drop the tables."""
    for table in ("principal", "project", "department", "tenant"):
        op.execute(f"DROP TABLE {table}")
    op.execute("DROP EXTENSION ltree")
