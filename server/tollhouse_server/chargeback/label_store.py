"""SQL of bound labels."""

from collections.abc import Mapping
from typing import Final

from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.chargeback.charge_tables import BoundLabelsRow
from tollhouse_server.database.rows import change, check_version, insert, run_sql

_ALL: Final = "SELECT tenant_id, holder, labels FROM bound_labels WHERE labels <> '{}'"


async def all_labels(session: AsyncSession) -> dict[tuple[str, str], Mapping[str, str]]:
    """Return the labels of every holder that has some, by tenant and holder."""
    return {(row.tenant_id, row.holder): row.labels for row in await run_sql(session, _ALL)}


async def labels_of(session: AsyncSession, tenant: str, holder: str, *, lock: bool = False) -> BoundLabelsRow | None:
    """Return what is bound to a holder; None if nothing ever was."""
    query = select(BoundLabelsRow).where(BoundLabelsRow.tenant_id == tenant, BoundLabelsRow.holder == holder)
    if lock:
        query = query.with_for_update(key_share=True)
    return (await session.exec(query)).one_or_none()


async def write_labels(
    session: AsyncSession, tenant: str, holder: str, labels: Mapping[str, str], *, expected_version: int | None
) -> BoundLabelsRow:
    """Write all labels of a holder.

    Raises:
        EtagMismatch: what there is, is not at `expected_version`.
    """
    row = await labels_of(session, tenant, holder, lock=True)
    found = row or BoundLabelsRow(tenant_id=tenant, holder=holder, version=0)
    check_version(found, expected_version, f"The labels of {holder} of tenants/{tenant}")
    if row is None:
        return await insert(session, BoundLabelsRow(tenant_id=tenant, holder=holder, labels=dict(labels)))
    return await change(session, row, labels=dict(labels))
