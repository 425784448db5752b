"""What a tenant, a department and a person have besides a name."""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_OWNED = """
ALTER TABLE {table}
    ADD COLUMN cost_centre text NOT NULL DEFAULT '',
    ADD COLUMN owner_id    text,
    ADD CONSTRAINT {table}_owner_fkey FOREIGN KEY (tenant_id, owner_id)
        REFERENCES principal (tenant_id, principal_id) NOT VALID
"""

_TENANTS = (
    # `state_before` is what an undeletion goes back to.
    "ALTER TABLE tenant ADD COLUMN purge_at timestamptz, ADD COLUMN state_before text",
    # It only admits more.
    "-- squawk-ignore ban-drop-constraint\nALTER TABLE tenant DROP CONSTRAINT tenant_state_check",
    """
ALTER TABLE tenant ADD CONSTRAINT tenant_state_check
    CHECK (state IN ('ACTIVE', 'SUSPENDED', 'DELETED', 'PURGED')) NOT VALID""",
    # Tenants deleted before there was a purge keep their thirty days from now.
    "UPDATE tenant SET purge_at = now() + interval '30 days', state_before = 'ACTIVE' WHERE state = 'DELETED'",
    """
ALTER TABLE tenant ADD CONSTRAINT tenant_purge_check
    CHECK ((state = 'DELETED') = (purge_at IS NOT NULL AND state_before IS NOT NULL)) NOT VALID""",
    "CREATE INDEX tenant_purge ON tenant (purge_at) WHERE state = 'DELETED'",
    # A purge leaves no credential's record behind.
    "GRANT DELETE ON api_key TO tollhouse_app",
)

_TREE = (
    _OWNED.format(table="department"),
    _OWNED.format(table="project"),
    "ALTER TABLE department ADD COLUMN merged_into text",
    """
ALTER TABLE department ADD CONSTRAINT department_merged_fkey FOREIGN KEY (tenant_id, merged_into)
    REFERENCES department (tenant_id, department_id) NOT VALID""",
    "-- squawk-ignore ban-drop-constraint\nALTER TABLE department DROP CONSTRAINT department_state_check",
    """
ALTER TABLE department ADD CONSTRAINT department_state_check
    CHECK (state IN ('ACTIVE', 'DELETED', 'MERGED') AND (state = 'MERGED') = (merged_into IS NOT NULL)) NOT VALID""",
    "CREATE INDEX department_merged ON department (tenant_id, merged_into) WHERE merged_into IS NOT NULL",
    "CREATE INDEX department_parent ON department (tenant_id, parent_id)",
    # By which its old names still find it.
    "ALTER TABLE project ADD COLUMN former_departments text[] NOT NULL DEFAULT '{}'",
    """
ALTER TABLE department_move
    ADD COLUMN kind text NOT NULL DEFAULT 'MOVE'
        CONSTRAINT department_move_kind_check CHECK (kind IN ('MOVE', 'MERGE')),
    ADD COLUMN limit_policy text NOT NULL DEFAULT ''
        CONSTRAINT department_move_limit_policy_check CHECK (limit_policy IN ('', 'TRANSFER', 'END')),
    ADD COLUMN own_limits bigint NOT NULL DEFAULT 0,
    ADD COLUMN own_grants bigint NOT NULL DEFAULT 0""",
    # A merge renames the projects that it moves, and with them the scopes of their grants.
    "GRANT UPDATE (scope) ON role_grant TO tollhouse_app",
)

_PEOPLE = (
    """
ALTER TABLE principal
    ADD COLUMN email   text NOT NULL DEFAULT '',
    ADD COLUMN issuer  text NOT NULL DEFAULT '',
    ADD COLUMN subject text NOT NULL DEFAULT '',
    ADD CONSTRAINT principal_subject_check CHECK ((issuer = '') = (subject = '')) NOT VALID""",
    # Who was deleted may be made anew.
    """
CREATE UNIQUE INDEX principal_subject ON principal (tenant_id, issuer, subject)
    WHERE subject <> '' AND deleted_at IS NULL""",
    """
CREATE UNIQUE INDEX principal_email ON principal (tenant_id, lower(email))
    WHERE email <> '' AND deleted_at IS NULL""",
)


def upgrade() -> None:
    """Add what is new to the tables of tenancy."""
    for statement in (*_TENANTS, *_TREE, *_PEOPLE):
        op.execute(statement)


def downgrade() -> None:
    """Take it away again; purged tenants and merged departments stay as deleted ones."""
    for statement in (
        "REVOKE DELETE ON api_key FROM tollhouse_app",
        "REVOKE UPDATE (scope) ON role_grant FROM tollhouse_app",
        "ALTER TABLE principal DROP COLUMN email, DROP COLUMN issuer, DROP COLUMN subject",
        "ALTER TABLE department_move DROP COLUMN kind, DROP COLUMN limit_policy, DROP COLUMN own_limits,"
        " DROP COLUMN own_grants",
        "ALTER TABLE project DROP COLUMN former_departments, DROP COLUMN cost_centre, DROP COLUMN owner_id",
        "ALTER TABLE department DROP CONSTRAINT department_state_check",
        "UPDATE department SET state = 'DELETED' WHERE state = 'MERGED'",
        "ALTER TABLE department DROP COLUMN merged_into, DROP COLUMN cost_centre, DROP COLUMN owner_id",
        "ALTER TABLE department ADD CONSTRAINT department_state_check CHECK (state IN ('ACTIVE', 'DELETED'))",
        "DROP INDEX department_parent",
        "ALTER TABLE tenant DROP CONSTRAINT tenant_purge_check, DROP CONSTRAINT tenant_state_check",
        "UPDATE tenant SET state = 'DELETED' WHERE state = 'PURGED'",
        "ALTER TABLE tenant DROP COLUMN purge_at, DROP COLUMN state_before",
        """
ALTER TABLE tenant ADD CONSTRAINT tenant_state_check CHECK (state IN ('ACTIVE', 'SUSPENDED', 'DELETED'))""",
    ):
        op.execute(statement)
