"""Moves of departments that take effect at a date."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_MOVES = (
    # Every move is kept, those made at once too: the history of the tree by which the records' paths are explained.
    # While a move is SCHEDULED its paths and counts are as they were foreseen.
    """
CREATE TABLE department_move (
    tenant_id        text        NOT NULL,
    move_id          text        NOT NULL CONSTRAINT department_move_id_check
        CHECK (move_id ~ '^[a-z][a-z0-9-]{1,62}$'),
    department_id    text        NOT NULL,
    parent_id        text,
    effective_at     timestamptz NOT NULL,
    state            text        NOT NULL CONSTRAINT department_move_state_check
        CHECK (state IN ('SCHEDULED', 'APPLIED', 'CANCELLED', 'FAILED')),
    failure          text        NOT NULL DEFAULT '',
    path_before      text        NOT NULL,
    path_after       text        NOT NULL,
    department_count bigint      NOT NULL,
    project_count    bigint      NOT NULL,
    limits_left      bigint      NOT NULL,
    limits_joined    bigint      NOT NULL,
    creator          text        NOT NULL,
    credential_id    text        NOT NULL,
    ended_at         timestamptz,
    version          bigint      NOT NULL DEFAULT 1,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT department_move_pkey PRIMARY KEY (tenant_id, move_id),
    CONSTRAINT department_move_department_fkey FOREIGN KEY (tenant_id, department_id)
        REFERENCES department (tenant_id, department_id),
    CONSTRAINT department_move_parent_fkey FOREIGN KEY (tenant_id, parent_id)
        REFERENCES department (tenant_id, department_id),
    CONSTRAINT department_move_ended_check CHECK ((state = 'SCHEDULED') = (ended_at IS NULL))
)""",
    # Every server asks twice a second what is due.
    "CREATE INDEX department_move_due ON department_move (effective_at) WHERE state = 'SCHEDULED'",
    # Two for one department at one moment would leave it to chance where it ends.
    """
CREATE UNIQUE INDEX department_move_once ON department_move (tenant_id, department_id, effective_at)
    WHERE state = 'SCHEDULED'""",
    "CREATE INDEX department_move_time ON department_move (tenant_id, effective_at, move_id)",
    "GRANT SELECT, INSERT, UPDATE ON department_move TO tollhouse_app",
)


def upgrade() -> None:
    """Create the table of moves."""
    for statement in _MOVES:
        op.execute(statement)


def downgrade() -> None:
    """Drop the table of moves."""
    op.execute("DROP TABLE department_move")
