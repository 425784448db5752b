"""The SQL of re-rating: a month's priced lines, grouped so that all calls of a group have one price, then as now."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, String, cast, column, func, literal, literal_column, select, true
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.names import Scope
from tollhouse_server.pricing import store as price_store
from tollhouse_server.pricing.skus import RELAY_SURCHARGE
from tollhouse_server.pricing.terms import PriceBook
from tollhouse_server.reporting.facts import in_period, in_scope, instants
from tollhouse_server.reporting.periods import Period
from tollhouse_server.reporting.rerating import Rerating, Target, Used, rerate
from tollhouse_server.reporting.rollup_store import fetch_rows, require_records
from tollhouse_server.reporting.tables import RECORD

_BEFORE_ALL: Final = datetime(2000, 1, 1, tzinfo=UTC)
_KEYS: Final = (
    *("model", "price_version", "span", "size", "service_tier", "surcharge_per_million"),
    *("sku", "unit", "nanos_per_million"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerated:
    """A rerating with the whole of what was booked; `unrated_nanos` has no priced lines and is the same in both."""

    rerating: Rerating
    booked_nanos: int

    @property
    def unrated_nanos(self) -> int:
        """What was booked without lines: calls in suspense at their ceiling, and corrections."""
        return self.booked_nanos - self.rerating.booked_nanos

    @property
    def rated_nanos(self) -> int:
        """What it would have cost."""
        return self.unrated_nanos + self.rerating.rated_nanos


async def rerate_periods(session: AsyncSession, periods: Mapping[Scope, Period], target: Target) -> Rerated:
    """Reckon the usage of scopes, each in its period, at other prices.

    Raises:
        RecordsDropped: records of a period were dropped after an export.
    """
    for scope, period in periods.items():
        await require_records(session, scope.tenant, [period])
    books: dict[int, PriceBook] = {}
    for scope, period in periods.items():
        for version in await _versions(session, scope, period):
            if version not in books:
                books[version] = await price_store.load(session, version)
    splits = _Splits.of([*books.values(), *([] if target.book is None else [target.book])])
    used: list[Used] = []
    booked = 0
    for scope, period in periods.items():
        used += await _used(session, scope, period, splits)
        booked += await _booked(session, scope, period)
    return Rerated(rerating=rerate(used, books, target), booked_nanos=booked)


@dataclass(frozen=True, slots=True)
class _Splits:
    """Where prices change: moments at which a list begins, and prompt sizes from which another price holds."""

    moments: tuple[datetime, ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, books: Collection[PriceBook]) -> "_Splits":
        lists = [one for book in books for one in book.lists()]
        moments = {_BEFORE_ALL, *(one.effective_from for one in lists)}
        sizes = {0, *(one.long_above_tokens + 1 for one in lists if one.long_above_tokens is not None)}
        return cls(tuple(sorted(moments)), tuple(sorted(sizes)))


async def _versions(session: AsyncSession, scope: Scope, period: Period) -> list[int]:
    query = select(RECORD.c.price_version).where(*in_scope(RECORD, scope), *in_period(period)).distinct()
    return [row.price_version for row in await fetch_rows(session, query)]


async def _booked(session: AsyncSession, scope: Scope, period: Period) -> int:
    query = select(func.coalesce(func.sum(RECORD.c.cost_nanos), 0).label("nanos"))
    (row,) = await fetch_rows(session, query.where(*in_scope(RECORD, scope), *in_period(period)))
    return int(row.nanos)


async def _used(session: AsyncSession, scope: Scope, period: Period, splits: _Splits) -> list[Used]:
    record = RECORD.c
    line = (
        func.jsonb_to_recordset(record.lines)
        .table_valued(
            column("sku", String),
            column("unit", String),
            column("nanos_per_million", BigInteger),
            column("quantity", BigInteger),
            column("cost_nanos", BigInteger),
        )
        .render_derived("line", with_types=True)
    )
    keys = {
        "model": record.model,
        "price_version": record.price_version,
        "span": func.width_bucket(record.dispatched_at, instants(splits.moments)),
        "size": func.width_bucket(record.input_tokens, _numbers(splits.sizes)),
        "service_tier": record.usage["service_tier"].as_string(),
        "surcharge_per_million": _surcharge(),
        "sku": line.c.sku,
        "unit": line.c.unit,
        "nanos_per_million": line.c.nanos_per_million,
    }
    parts = (
        select(*(value.label(name) for name, value in keys.items()), line.c.quantity, line.c.cost_nanos)
        .select_from(RECORD.join(line, true()))
        .where(*in_scope(RECORD, scope), *in_period(period))
        .subquery("parts")
    )
    sums = (func.sum(parts.c.quantity).label("quantity"), func.sum(parts.c.cost_nanos).label("cost_nanos"))
    query = select(*(parts.c[name] for name in _KEYS), *sums).group_by(*(parts.c[name] for name in _KEYS))
    return [_group(row, splits) for row in await fetch_rows(session, query)]


def _group(row: Any, splits: _Splits) -> Used:
    return Used(
        model=row.model,
        price_version=row.price_version,
        at=splits.moments[max(row.span - 1, 0)],
        sku=row.sku,
        unit=row.unit,
        nanos_per_million=row.nanos_per_million,
        quantity=int(row.quantity),
        cost_nanos=int(row.cost_nanos),
        service_tier=row.service_tier,
        input_tokens=splits.sizes[max(row.size - 1, 0)],
        surcharge_per_million=row.surcharge_per_million,
    )


def _surcharge() -> ColumnElement[int]:
    """Return what was charged on top of a record's list price: the rate of its own line for that, 0 without one."""
    first = f'$[*] ? (@.sku == "{RELAY_SURCHARGE}").nanos_per_million'
    path: ColumnElement[str] = literal_column(f"'{first}'::jsonpath")
    return func.coalesce(cast(func.jsonb_path_query_first(RECORD.c.lines, path, type_=JSONB), BigInteger), 0)


def _numbers(values: Collection[int]) -> ColumnElement[Any]:
    kind = ARRAY(BigInteger)
    return cast(literal(list(values), kind), kind)
