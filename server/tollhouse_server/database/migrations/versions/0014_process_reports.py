"""What each process says of its traffic, for the others to share by.

`process_report` has one row a process, written every second; only the last minutes of it are ever read.
`account_day` keeps the requests of a day over all processes and restarts.
"""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_REPORTS = """
CREATE TABLE process_report (
    process_key text PRIMARY KEY CHECK (length(process_key) BETWEEN 1 AND 64),
    reported_at timestamptz NOT NULL,
    sections    jsonb NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000)
"""
_DAYS = """
CREATE TABLE account_day (
    day        date NOT NULL,
    account_id text NOT NULL,
    model      text NOT NULL,
    requests   bigint NOT NULL,
    PRIMARY KEY (day, account_id, model)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000)
"""
_GRANT = "GRANT SELECT, INSERT, UPDATE, DELETE ON process_report, account_day TO tollhouse_app"


def upgrade() -> None:
    """Make the two tables."""
    for statement in (_REPORTS, _DAYS, _GRANT):
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    op.execute("DROP TABLE account_day")
    op.execute("DROP TABLE process_report")
