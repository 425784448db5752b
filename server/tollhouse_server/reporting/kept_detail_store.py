"""What each day keeps beside its roll-ups: cost by label, and quantities by the price that they had."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.rows import run_sql
from tollhouse_server.reporting.periods import Period

_LABELS: Final = """
SELECT r.department_path, l.key AS label, l.value, r.cost_nanos, (r.kind IN ('SETTLED', 'SUSPENSE'))::int AS calls
FROM usage_record r CROSS JOIN LATERAL jsonb_each_text(r.labels) l
WHERE r.tenant_id = :tenant AND r.kind <> 'REFUSED' AND r.settled_at >= :start AND r.settled_at < :end
"""

# A record without priced lines still has been priced by a version.
_PRICES: Final = """
SELECT r.department_path, r.model, coalesce(r.usage ->> 'service_tier', '') AS service_tier, r.price_version,
    coalesce(l.sku, '') AS sku, coalesce(l.nanos_per_million, 0) AS nanos_per_million,
    coalesce(l.quantity, 0) AS quantity, coalesce(l.cost_nanos, 0) AS cost_nanos
FROM usage_record r LEFT JOIN LATERAL jsonb_to_recordset(r.lines)
    AS l (sku text, quantity bigint, nanos_per_million bigint, cost_nanos bigint) ON true
WHERE r.tenant_id = :tenant AND r.kind <> 'REFUSED' AND r.settled_at >= :start AND r.settled_at < :end
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """A table of details: what records tell of it, by what that is added up, and the sums."""

    table: str
    rows: str
    key: str
    sums: tuple[str, ...]

    @property
    def key_columns(self) -> Sequence[str]:
        """Return the columns of the key."""
        return self.key.split(", ")

    @property
    def columns(self) -> str:
        """Return all columns but those of tenant and day."""
        return f"{self.key}, {', '.join(self.sums)}"

    def added_up(self, source: str) -> str:
        """Return a query that adds up the rows of another."""
        sums = ", ".join(f"sum({name}) AS {name}" for name in self.sums)
        return f"SELECT {self.key}, {sums} FROM ({source}) AS part GROUP BY {self.key}"  # noqa: S608 - names of here


LABEL_DETAIL: Final = Detail(
    table="usage_rollup_label", rows=_LABELS, key="department_path, label, value", sums=("calls", "cost_nanos")
)
PRICE_DETAIL: Final = Detail(
    table="usage_rollup_price",
    rows=_PRICES,
    key="department_path, model, service_tier, price_version, sku, nanos_per_million",
    sums=("quantity", "cost_nanos"),
)


async def build_details(session: AsyncSession, tenant: str, day: Period) -> None:
    """Keep the details of a day that is over, before its row in usage_rollup_day says that they are there."""
    values = {"tenant": tenant, "start": day.start, "end": day.end}
    for detail in (LABEL_DETAIL, PRICE_DETAIL):
        of_day = "SELECT CAST(:tenant AS text), CAST(:start AS timestamptz)"
        made = f"{of_day}, made.* FROM ({detail.added_up(detail.rows)}) made"
        await run_sql(session, f"INSERT INTO {detail.table} {made}", values)
