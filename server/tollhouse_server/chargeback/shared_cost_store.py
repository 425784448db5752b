"""SQL of shared costs, and of the departments that bear them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlmodel import col, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.chargeback.charge_tables import SharedCostRow
from tollhouse_server.database.integrity import constraints
from tollhouse_server.database.rows import change, check_version, find, insert
from tollhouse_server.errors import ResourceExists
from tollhouse_server.names import SharedCostName
from tollhouse_server.tenancy.tables import DepartmentRow


@dataclass(frozen=True, slots=True, kw_only=True)
class DepartmentLife:
    """A department as far as it counts here: `ended_at` is when it was deleted or merged."""

    department_id: str
    parent_id: str | None
    merged_into: str | None
    ended_at: datetime | None


async def costs_of_month(session: AsyncSession, tenant: str, month: date) -> Sequence[SharedCostRow]:
    """Return the costs of the month that begins on `month`, in the order of their ids."""
    cost = SharedCostRow
    query = select(cost).where(
        col(cost.tenant_id) == tenant,
        col(cost.starts_on) <= month,
        or_(col(cost.ends_on).is_(None), col(cost.ends_on) > month),
    )
    return (await session.exec(query.order_by(col(cost.cost_id)))).all()


async def department_lives(session: AsyncSession, tenant: str) -> list[DepartmentLife]:
    """Return every department that a tenant has or had."""
    rows = (await session.exec(select(DepartmentRow).where(DepartmentRow.tenant_id == tenant))).all()
    return [
        DepartmentLife(
            department_id=row.department_id,
            parent_id=row.parent_id,
            merged_into=row.merged_into,
            ended_at=None if row.state == "ACTIVE" else row.deleted_at or row.updated_at,
        )
        for row in rows
    ]


async def create_cost(session: AsyncSession, row: SharedCostRow) -> SharedCostRow:
    """Insert a shared cost.

    Raises:
        ResourceExists: the id is taken.
    """
    name = SharedCostName(row.tenant_id, row.cost_id)
    with constraints({"shared_cost_pkey": ResourceExists(name=str(name))}):
        return await insert(session, row)


async def get_cost(session: AsyncSession, name: SharedCostName, *, lock: bool = False) -> SharedCostRow:
    """Return a shared cost, ended or not; with `lock` it stays as it is until the transaction ends.

    Raises:
        ResourceNotFound: there is none.
    """
    query = select(SharedCostRow).where(
        SharedCostRow.tenant_id == name.tenant, SharedCostRow.cost_id == name.shared_cost
    )
    return await find(session, query, name, lock=lock)


async def end_cost(
    session: AsyncSession, row: SharedCostRow, ends_on: date, *, expected_version: int | None
) -> SharedCostRow:
    """End a locked shared cost with the month before `ends_on`.

    Raises:
        EtagMismatch: it is not at `expected_version`.
    """
    check_version(row, expected_version, str(SharedCostName(row.tenant_id, row.cost_id)))
    return await change(session, row, ends_on=ends_on)


async def list_costs(
    session: AsyncSession, tenant: str, *, month: date | None, after: str, size: int
) -> Sequence[SharedCostRow]:
    """Return up to `size` shared costs by id; those of one month, if it is given."""
    cost = SharedCostRow
    conditions: list[Any] = [col(cost.tenant_id) == tenant, col(cost.cost_id) > after]
    if month is not None:
        conditions += [col(cost.starts_on) <= month, or_(col(cost.ends_on).is_(None), col(cost.ends_on) > month)]
    return (await session.exec(select(cost).where(*conditions).order_by(col(cost.cost_id)).limit(size))).all()
