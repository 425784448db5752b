"""Price imports that wait for a second person."""

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

_STATEMENTS = (
    # A new version waits for the lock of the one before it: its time must be that of its turn, not of its wish.
    "ALTER TABLE price_book_version ALTER COLUMN recorded_at SET DEFAULT clock_timestamp()",
    "ALTER TABLE price_book_version ADD COLUMN approver text NOT NULL DEFAULT ''",
    # `content` is the file in the notation `format`; `price_version` is the version that it has become.
    """
CREATE TABLE price_proposal (
    proposal_id     text        NOT NULL CONSTRAINT price_proposal_pkey PRIMARY KEY,
    base_version    bigint      NOT NULL CONSTRAINT price_proposal_base_check CHECK (base_version >= 0),
    format          text        NOT NULL,
    content         text        NOT NULL,
    digest          text        NOT NULL,
    note            text        NOT NULL,
    max_jump_factor integer     NOT NULL,
    allows_jumps    boolean     NOT NULL,
    reason          text        NOT NULL DEFAULT '',
    requested_by    text        NOT NULL,
    state           text        NOT NULL DEFAULT 'REQUESTED' CONSTRAINT price_proposal_state_check
        CHECK (state IN ('REQUESTED', 'APPROVED', 'REJECTED', 'WITHDRAWN')),
    decided_by      text,
    decided_at      timestamptz,
    decision_reason text        NOT NULL DEFAULT '',
    price_version   bigint      CONSTRAINT price_proposal_version_fkey REFERENCES price_book_version (version),
    expires_at      timestamptz NOT NULL,
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT price_proposal_second_person CHECK (state <> 'APPROVED' OR decided_by <> requested_by),
    CONSTRAINT price_proposal_decided CHECK ((state = 'REQUESTED') = (decided_by IS NULL)),
    CONSTRAINT price_proposal_in_force CHECK ((state = 'APPROVED') = (price_version IS NOT NULL))
)""",
    # What was proposed stays as it was proposed: only how it was decided may be written.
    "GRANT SELECT, INSERT ON price_proposal TO tollhouse_app",
    "GRANT UPDATE (state, decided_by, decided_at, decision_reason, price_version, version, updated_at) "
    "ON price_proposal TO tollhouse_app",
)


def upgrade() -> None:
    """Add proposals, and who approved a version."""
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    op.execute("DROP TABLE price_proposal")
    op.execute("ALTER TABLE price_book_version DROP COLUMN approver")
    op.execute("ALTER TABLE price_book_version ALTER COLUMN recorded_at SET DEFAULT now()")
