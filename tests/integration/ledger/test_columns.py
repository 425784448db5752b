"""Rows as PostgreSQL's own array texts: whatever goes in comes out."""

from datetime import UTC, datetime

import asyncpg
import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tollhouse_server.ledger.columns import Columns, array_text

from tests.drivers.postgres import TestDatabase

# PostgreSQL stores no NUL, and UTF-8 has no lone surrogates.
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
COLUMNS = Columns("words text, many text[], number bigint, id uuid, at timestamptz, document jsonb")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.tuples(
            TEXTS,
            st.lists(TEXTS, max_size=3),
            st.integers(-(2**63), 2**63 - 1),
            st.uuids(),
            st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),
            st.dictionaries(TEXTS, TEXTS, max_size=2),
        ),
        max_size=5,
    )
)
async def test_rows_arrive_as_they_were_sent(
    fresh_database: TestDatabase, rows: list[tuple[str, list[str], int, object, datetime, dict[str, str]]]
) -> None:
    """Quotes, braces, backslashes, ends of lines, separators, words such as NULL, and nothing at all."""
    sent = [
        (words, array_text(many), number, one, at, orjson.dumps(document).decode())
        for words, many, number, one, at, document in rows
    ]
    connection = await asyncpg.connect(fresh_database.app_dsn)

    try:
        found = await connection.fetch(
            f"SELECT {COLUMNS.selected} FROM {COLUMNS.unnest('sent', first=1)}",  # noqa: S608 - columns of this test
            *COLUMNS.texts(sent),
        )
    finally:
        await connection.close()

    assert [(*row.values(),)[:5] for row in found] == [row[:5] for row in rows]
    assert [orjson.loads(row["document"]) for row in found] == [row[5] for row in rows]
