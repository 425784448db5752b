"""Groups of principals, roles that tenants make, and by what each server sees whose rights have changed."""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_ID = "CHECK ({column} ~ '^[a-z][a-z0-9-]{{1,62}}$')"

_TABLES = (
    f"""
CREATE TABLE principal_group (
    tenant_id    text        NOT NULL CONSTRAINT principal_group_tenant_fkey REFERENCES tenant (tenant_id),
    group_id     text        NOT NULL {_ID.format(column="group_id")},
    display_name text        NOT NULL DEFAULT '',
    version      bigint      NOT NULL DEFAULT 1,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT principal_group_pkey PRIMARY KEY (tenant_id, group_id)
)""",
    """
CREATE TABLE group_member (
    tenant_id    text        NOT NULL,
    group_id     text        NOT NULL,
    principal_id text        NOT NULL,
    creator      text        NOT NULL DEFAULT '',
    created_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT group_member_pkey PRIMARY KEY (tenant_id, group_id, principal_id),
    CONSTRAINT group_member_group_fkey FOREIGN KEY (tenant_id, group_id)
        REFERENCES principal_group (tenant_id, group_id),
    CONSTRAINT group_member_principal_fkey FOREIGN KEY (tenant_id, principal_id)
        REFERENCES principal (tenant_id, principal_id)
)""",
    "CREATE INDEX group_member_principal ON group_member (tenant_id, principal_id)",
    f"""
CREATE TABLE tenant_role (
    tenant_id   text        NOT NULL CONSTRAINT tenant_role_tenant_fkey REFERENCES tenant (tenant_id),
    role_id     text        NOT NULL {_ID.format(column="role_id")},
    description text        NOT NULL DEFAULT '',
    permissions text[]      NOT NULL,
    creator     text        NOT NULL DEFAULT '',
    version     bigint      NOT NULL DEFAULT 1,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT tenant_role_pkey PRIMARY KEY (tenant_id, role_id)
)""",
    # A grant is to a principal or to a group, of a role that everyone has or of one that its tenant has made. Grants
    # are few, and no call waits for their table.
    r"""
-- squawk-ignore-file ban-drop-not-null, adding-field-with-default, ban-drop-constraint, constraint-missing-not-valid
-- squawk-ignore-file disallowed-unique-constraint, adding-foreign-key-constraint
ALTER TABLE role_grant
    ALTER COLUMN principal_id DROP NOT NULL,
    ADD COLUMN group_id text,
    ADD COLUMN tenant_role_id text GENERATED ALWAYS AS (substring(role FROM '^tenants/[^/]+/roles/(.+)$')) STORED,
    DROP CONSTRAINT role_grant_once,
    ADD CONSTRAINT role_grant_once UNIQUE NULLS NOT DISTINCT (tenant_id, principal_id, group_id, role, scope),
    ADD CONSTRAINT role_grant_to_one CHECK (num_nonnulls(principal_id, group_id) = 1),
    ADD CONSTRAINT role_grant_own_role CHECK (role !~ '/' OR role = 'tenants/' || tenant_id || '/roles/'
        || substring(role FROM '^tenants/[^/]+/roles/(.+)$')),
    ADD CONSTRAINT role_grant_group_fkey FOREIGN KEY (tenant_id, group_id)
        REFERENCES principal_group (tenant_id, group_id),
    ADD CONSTRAINT role_grant_role_fkey FOREIGN KEY (tenant_id, tenant_role_id)
        REFERENCES tenant_role (tenant_id, role_id)""",
    "CREATE INDEX role_grant_group ON role_grant (tenant_id, group_id) WHERE group_id IS NOT NULL",
    "CREATE INDEX role_grant_role ON role_grant (tenant_id, tenant_role_id) WHERE tenant_role_id IS NOT NULL",
    # Every server keeps the rights of every tenant in memory; it reads again those of tenants that have moved only.
    """
CREATE TABLE access_version (
    tenant_id text   NOT NULL CONSTRAINT access_version_pkey PRIMARY KEY,
    value     bigint NOT NULL
)""",
    # By the transaction's id: a thousand rows of one transaction are one change.
    """
CREATE FUNCTION note_access_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO access_version AS known (tenant_id, value)
    VALUES (coalesce(NEW.tenant_id, OLD.tenant_id), pg_current_xact_id()::text::bigint)
    ON CONFLICT (tenant_id) DO UPDATE SET value = EXCLUDED.value WHERE known.value <> EXCLUDED.value;
    RETURN NULL;
END $$""",
    "CREATE TRIGGER role_grant_changed AFTER INSERT OR UPDATE OR DELETE ON role_grant"
    " FOR EACH ROW EXECUTE FUNCTION note_access_change()",
    "CREATE TRIGGER group_member_changed AFTER INSERT OR DELETE ON group_member"
    " FOR EACH ROW EXECUTE FUNCTION note_access_change()",
    "CREATE TRIGGER tenant_role_changed AFTER INSERT OR UPDATE OF permissions OR DELETE ON tenant_role"
    " FOR EACH ROW EXECUTE FUNCTION note_access_change()",
    "CREATE TRIGGER principal_changed AFTER UPDATE OF state ON principal"
    " FOR EACH ROW EXECUTE FUNCTION note_access_change()",
    "CREATE TRIGGER department_changed AFTER INSERT OR UPDATE OF path ON department"
    " FOR EACH ROW EXECUTE FUNCTION note_access_change()",
    "INSERT INTO access_version SELECT tenant_id, 0 FROM tenant",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON principal_group, tenant_role TO tollhouse_app",
    "GRANT SELECT, INSERT, DELETE ON group_member TO tollhouse_app",
    "GRANT SELECT, INSERT, UPDATE ON access_version TO tollhouse_app",
)


def upgrade() -> None:
    """Create the tables and the triggers that note whose rights a transaction has changed."""
    for statement in _TABLES:
        op.execute(statement)


def downgrade() -> None:
    """Drop them; grants to groups and of tenants' roles go with them."""
    for table in ("role_grant", "principal", "department"):
        op.execute(f"DROP TRIGGER {table}_changed ON {table}")
    op.execute("DELETE FROM role_grant WHERE group_id IS NOT NULL OR tenant_role_id IS NOT NULL")
    op.execute(
        "ALTER TABLE role_grant DROP COLUMN tenant_role_id, DROP COLUMN group_id,"
        " ALTER COLUMN principal_id SET NOT NULL, DROP CONSTRAINT IF EXISTS role_grant_own_role,"
        " ADD CONSTRAINT role_grant_once UNIQUE (tenant_id, principal_id, role, scope)"
    )
    for table in ("group_member", "principal_group", "tenant_role", "access_version"):
        op.execute(f"DROP TABLE {table}")
    op.execute("DROP FUNCTION note_access_change")
