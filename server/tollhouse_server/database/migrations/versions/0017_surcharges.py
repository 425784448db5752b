"""What an upstream address costs on top of the list price."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_SURCHARGES = (
    # Part of a version of the price book, as complete and as unchangeable as its price lists.
    """
CREATE TABLE price_surcharge (
    version        bigint      NOT NULL REFERENCES price_book_version (version),
    endpoint       text        NOT NULL,
    effective_from timestamptz NOT NULL,
    per_million    bigint      NOT NULL CHECK (per_million >= 0),
    source         text        NOT NULL DEFAULT '',
    CONSTRAINT price_surcharge_pkey PRIMARY KEY (version, endpoint, effective_from)
)""",
    "GRANT SELECT, INSERT ON price_surcharge TO tollhouse_app",
)


def upgrade() -> None:
    """Create the table of surcharges."""
    for statement in _SURCHARGES:
        op.execute(statement)


def downgrade() -> None:
    """Drop it; charges that were booked keep their lines."""
    op.execute("DROP TABLE price_surcharge")
