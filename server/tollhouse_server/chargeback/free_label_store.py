"""SQL of free labels: which values a tenant's calls have used in a month."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final, TypeAlias

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.rows import run_sql

Pair: TypeAlias = tuple[str, str]
"""A label and a value of it."""

# Any constant that no other advisory lock of Tollhouse uses: spells "labl".
_LOCK: Final = "SELECT pg_advisory_xact_lock(1818321516, hashtext(:tenant))"
_COUNT: Final = "SELECT count(*) AS value_count FROM free_label WHERE tenant_id = :tenant AND month = :month"
_ADMIT: Final = f"""
INSERT INTO free_label (tenant_id, month, label, value)
SELECT :tenant, :month, asked.label, asked.value
FROM unnest(CAST(:labels AS text[]), CAST(:values AS text[])) WITH ORDINALITY AS asked (label, value, place)
WHERE NOT EXISTS (
    SELECT FROM free_label f WHERE f.tenant_id = :tenant AND f.month = :month
        AND f.label = asked.label AND f.value = asked.value
)
ORDER BY asked.place LIMIT greatest(0, :most - ({_COUNT}))
"""  # noqa: S608 - put together from constants alone
_KNOWN: Final = "SELECT label, value FROM free_label WHERE tenant_id = :tenant AND month = :month"
_OF_MONTH: Final = """
SELECT label, count(*) AS value_count FROM free_label WHERE tenant_id = :tenant AND month = :month AND label > :after
GROUP BY label ORDER BY label LIMIT :size
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeLabel:
    """A label of a month and how many values it has had."""

    label: str
    values: int


async def admit_values(session: AsyncSession, tenant: str, month: date, pairs: Iterable[Pair], *, most: int) -> None:
    """Keep those of the values that are new, as far as the month has fewer than `most`.

    One transaction of a tenant at a time, so that two cannot both take the last place.
    """
    labels, values = zip(*pairs, strict=True)
    await run_sql(session, _LOCK, {"tenant": tenant})
    asked = {"labels": list(labels), "values": list(values), "most": most}
    await run_sql(session, _ADMIT, {"tenant": tenant, "month": month, **asked})


async def known_values(session: AsyncSession, tenant: str, month: date) -> set[Pair]:
    """Return all values of a month."""
    rows = await run_sql(session, _KNOWN, {"tenant": tenant, "month": month})
    return {(row.label, row.value) for row in rows}


async def count_values(session: AsyncSession, tenant: str, month: date) -> int:
    """Return how many values a month has."""
    return int((await run_sql(session, _COUNT, {"tenant": tenant, "month": month})).one().value_count)


async def list_labels(session: AsyncSession, tenant: str, month: date, *, after: str, size: int) -> Sequence[FreeLabel]:
    """Return up to `size` labels of a month, by name."""
    values = {"tenant": tenant, "month": month, "after": after, "size": size}
    return [
        FreeLabel(label=row.label, values=int(row.value_count)) for row in await run_sql(session, _OF_MONTH, values)
    ]
