"""Roles of the database, and row security as the second wall. Stop every server before this one.

Nothing to do here: both are put in force at the end of every migration, for tables that come later too (see
`database/row_security.py`). A server from before would go on as tollhouse_app, which may do nothing any more.
"""

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Leave it to the end of the migration."""


def downgrade() -> None:
    """Nothing: a server from before needs the rights of its role, which the owner gives back by hand."""
