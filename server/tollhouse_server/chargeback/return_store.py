"""SQL of alternative costs, and of the units that were given for months."""

from collections.abc import Sequence
from datetime import date
from typing import Any, Final

from sqlmodel import col, select, tuple_
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.chargeback.charge_tables import AlternativeCostRow
from tollhouse_server.chargeback.returns import Alternative, Counting
from tollhouse_server.database.rows import run_sql
from tollhouse_server.errors import ResourceNotFound, WrongState
from tollhouse_server.names import AlternativeCostName


async def find_alternative(session: AsyncSession, row: AlternativeCostRow) -> AlternativeCostRow | None:
    """Return what was stated under the same name from the same day on."""
    query = select(AlternativeCostRow).where(
        AlternativeCostRow.tenant_id == row.tenant_id,
        AlternativeCostRow.alternative_cost_id == row.alternative_cost_id,
        AlternativeCostRow.starts_on == row.starts_on,
    )
    return (await session.exec(query)).one_or_none()


_SET: Final = """
INSERT INTO alternative_cost
    (tenant_id, alternative_cost_id, starts_on, subject, unit, unit_nanos, counted_by, creator)
VALUES (:tenant_id, :alternative_cost_id, :starts_on, :subject, :unit, :unit_nanos, :counted_by, :creator)
ON CONFLICT (tenant_id, alternative_cost_id, starts_on) DO UPDATE
SET subject = excluded.subject, unit = excluded.unit, unit_nanos = excluded.unit_nanos,
    counted_by = excluded.counted_by, creator = excluded.creator, created_at = now()
RETURNING created_at
"""


async def set_alternative(session: AsyncSession, row: AlternativeCostRow) -> AlternativeCostRow:
    """Write a row, in place of one of the same day."""
    row.created_at = (await run_sql(session, _SET, row.model_dump(exclude={"created_at"}))).scalar_one()
    return row


async def list_alternatives(
    session: AsyncSession, tenant: str, *, after: tuple[str, date] | None, size: int
) -> Sequence[AlternativeCostRow]:
    """Return up to `size` rows of a tenant by name and day, after the one of a name and day."""
    key = (col(AlternativeCostRow.alternative_cost_id), col(AlternativeCostRow.starts_on))
    query = select(AlternativeCostRow).where(AlternativeCostRow.tenant_id == tenant)
    if after is not None:
        query = query.where(tuple_(*key) > tuple_(*after))
    return (await session.exec(query.order_by(*key).limit(size))).all()


_UNITS: Final = """
INSERT INTO unit_count (tenant_id, alternative_cost_id, month, units) VALUES (:tenant, :name, :month, :units)
ON CONFLICT (tenant_id, alternative_cost_id, month) DO UPDATE SET units = excluded.units, updated_at = now()
"""


async def record_units(session: AsyncSession, name: AlternativeCostName, month: str, units: int) -> int | None:
    """Write how many units a month had; return how many it had before, if that was known.

    Raises:
        ResourceNotFound: no such alternative cost is stated.
        WrongState: its units are calls.
    """
    keys: dict[str, Any] = {"tenant": name.tenant, "name": name.alternative_cost, "month": month}
    stated = await run_sql(
        session,
        "SELECT counted_by FROM alternative_cost WHERE tenant_id = :tenant AND alternative_cost_id = :name"
        " ORDER BY starts_on DESC LIMIT 1",
        keys,
    )
    row = stated.one_or_none()
    if row is None:
        raise ResourceNotFound(name=str(name))
    if row.counted_by != Counting.GIVEN.value:
        raise WrongState(name=str(name), state=row.counted_by, needed=Counting.GIVEN.value)
    before = await run_sql(
        session,
        "SELECT units FROM unit_count WHERE tenant_id = :tenant AND alternative_cost_id = :name AND month = :month",
        keys,
    )
    found: int | None = before.scalar_one_or_none()
    await run_sql(session, _UNITS, keys | {"units": units})
    return found


_READ: Final = """
SELECT c.alternative_cost_id, c.starts_on, c.subject, c.unit, c.unit_nanos, c.counted_by, u.units
FROM alternative_cost c
LEFT JOIN unit_count u ON u.tenant_id = c.tenant_id AND u.alternative_cost_id = c.alternative_cost_id
    AND u.month = :month
WHERE c.tenant_id = :tenant ORDER BY 1, 2
"""


async def read_alternatives(session: AsyncSession, tenant: str, month: str) -> list[Alternative]:
    """Return everything that a tenant has stated, with the units of a month."""
    return [
        Alternative(
            alternative_cost=row.alternative_cost_id,
            starts_on=row.starts_on,
            subject=row.subject,
            unit=row.unit,
            unit_nanos=int(row.unit_nanos),
            counting=Counting(row.counted_by),
            units=row.units,
        )
        for row in (await run_sql(session, _READ, {"tenant": tenant, "month": month})).all()
    ]
