"""The only SQL of devices. Every function works in its caller's transaction."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Row,
    Select,
    String,
    Uuid,
    cast,
    func,
    insert,
    literal,
    true,
    union,
)
from sqlalchemy import select as sa_select
from sqlmodel import SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database import rows
from tollhouse_server.database.integrity import constraints
from tollhouse_server.devices.keys import fingerprint
from tollhouse_server.devices.tables import DeviceRow, OnDeviceUsageRow
from tollhouse_server.devices.terms import OnDeviceSums, Receipt
from tollhouse_server.errors import DeviceKeyInUse, ResourceExists, ResourceNotFound
from tollhouse_server.names import DepartmentName, DeviceName, ProjectName, Scope, TenantName
from tollhouse_server.tenancy.tables import DepartmentRow, ProjectRow

_USED: Final[Any] = SQLModel.metadata.tables["on_device_usage"].c


@dataclass(frozen=True, slots=True)
class DeviceView:
    """A device and the project that its use belongs to."""

    row: DeviceRow
    project: ProjectName

    @property
    def name(self) -> DeviceName:
        """The device's resource name."""
        return DeviceName(self.row.tenant_id, self.row.device_id)


# --- devices ----------------------------------------------------------------------------------------------------------


async def create_device(session: AsyncSession, row: DeviceRow) -> DeviceRow:
    """Insert a device.

    Raises:
        ResourceExists: the id is taken in this tenant, be it by a deleted device.
        DeviceKeyInUse: so is the key.
    """
    name = DeviceName(row.tenant_id, row.device_id)
    taken = DeviceKeyInUse(fingerprint=fingerprint(row.public_key), tenant=str(TenantName(row.tenant_id)))
    with constraints({"device_pkey": ResourceExists(name=str(name)), "device_public_key_unique": taken}):
        return await rows.insert(session, row)


async def find_device(
    session: AsyncSession, name: DeviceName, scope: Scope | None = None, *, lock: bool = False
) -> DeviceView:
    """Return a device that is not deleted, and, where a scope is named, in it; with `lock` it stays as it is.

    Raises:
        ResourceNotFound: there is none.
    """
    query = select(DeviceRow).where(DeviceRow.tenant_id == name.tenant, DeviceRow.device_id == name.device)
    row = await rows.find(session, query.where(col(DeviceRow.deleted_at).is_(None)), name, lock=lock)
    places = select(ProjectRow).where(ProjectRow.tenant_id == name.tenant, ProjectRow.project_id == row.project_id)
    project = (await session.exec(places.where(*_project_in(scope)))).one_or_none()
    if project is None:
        raise ResourceNotFound(name=str(name))
    return DeviceView(row, ProjectName(name.tenant, project.department_id, project.project_id))


async def list_devices(
    session: AsyncSession, tenant: str, scope: Scope | None, *, after: str, size: int
) -> list[DeviceView]:
    """Return up to `size` devices of a tenant or of a part of its tree in the order of their ids, after the id `after`.

    A deleted project's devices are among them.
    """
    query = (
        select(DeviceRow, ProjectRow.department_id)
        .join(
            ProjectRow,
            (col(ProjectRow.tenant_id) == DeviceRow.tenant_id) & (col(ProjectRow.project_id) == DeviceRow.project_id),
        )
        .where(DeviceRow.tenant_id == tenant, col(DeviceRow.deleted_at).is_(None), *_project_in(scope))
        .order_by(DeviceRow.device_id)
        .limit(size)
    )
    if after:
        query = query.where(DeviceRow.device_id > after)
    found = (await session.exec(query)).all()
    return [DeviceView(row, ProjectName(tenant, department, row.project_id)) for row, department in found]


def _project_in(scope: Scope | None) -> list[ColumnElement[bool]]:
    """Return the condition that a project is, or lies below, the scope."""
    match scope:
        case ProjectName():
            in_department = col(ProjectRow.department_id) == scope.department
            return [in_department, col(ProjectRow.project_id) == scope.project]
        case DepartmentName():
            of_tenant = col(DepartmentRow.tenant_id) == scope.tenant
            top = select(DepartmentRow.path).where(of_tenant, DepartmentRow.department_id == scope.department)
            below = select(DepartmentRow.department_id).where(
                of_tenant, col(DepartmentRow.path).op("<@")(top.scalar_subquery())
            )
            return [col(ProjectRow.department_id).in_(below)]
        case _:
            return []


# --- receipts ---------------------------------------------------------------------------------------------------------


async def devices_of(
    session: AsyncSession, tenant: str, devices: Collection[str], *, lock: bool = False
) -> dict[str, DeviceRow]:
    """Return those of the devices that there are, by their ids; with `lock` they stay as they are."""
    query = (
        select(DeviceRow)
        .where(DeviceRow.tenant_id == tenant, col(DeviceRow.device_id).in_(devices))
        .where(col(DeviceRow.deleted_at).is_(None))
        # Two reports that name the same devices must not wait for each other.
        .order_by(DeviceRow.device_id)
    )
    if lock:
        query = query.with_for_update(key_share=True).execution_options(populate_existing=True)
    return {row.device_id: row for row in (await session.exec(query)).all()}


@dataclass(slots=True)
class Booked:
    """Digests of receipts that were booked, by the numbers that make them one of a kind."""

    by_sequence: dict[tuple[str, int], bytes]
    by_id: dict[tuple[str, UUID], bytes]

    def digests(self, receipt: Receipt) -> set[bytes]:
        """Return what was booked under one of the receipt's numbers."""
        device = receipt.device.device
        found = (self.by_sequence.get((device, receipt.sequence)), self.by_id.get((device, receipt.receipt_id)))
        return {digest for digest in found if digest is not None}

    def add(self, receipt: Receipt) -> None:
        """Note that a receipt is booked now."""
        self.by_sequence[receipt.device.device, receipt.sequence] = receipt.digest
        self.by_id[receipt.device.device, receipt.receipt_id] = receipt.digest


async def booked_before(session: AsyncSession, tenant: str, receipts: Sequence[Receipt]) -> Booked:
    """Return what was booked under a number of one of the receipts; their devices must be locked."""
    numbers = func.unnest(
        _array([one.device.device for one in receipts], String()),
        _array([one.sequence for one in receipts], BigInteger()),
        _array([one.receipt_id for one in receipts], Uuid()),
    ).table_valued("device_id", "sequence", "receipt_id", name="asked")
    asked = numbers.render_derived()
    found = union(*(_found(asked, tenant, number) for number in ("sequence", "receipt_id")))
    booked = Booked({}, {})
    connection = await session.connection()
    for device, sequence, receipt_id, digest in (await connection.execute(found)).all():
        booked.by_sequence[device, sequence] = booked.by_id[device, receipt_id] = digest
    return booked


def _found(asked: Any, tenant: str, number: str) -> Select[Any]:
    """Return the query for the rows that have one of the two numbers: one look into that number's index for each."""
    same = (_USED.device_id == asked.c.device_id) & (_USED[number] == asked.c[number])
    columns = (_USED.device_id, _USED.sequence, _USED.receipt_id, _USED.digest)
    # The limit keeps PostgreSQL from joining all that the tenant has ever reported.
    row = sa_select(*columns).where(_USED.tenant_id == tenant, same).limit(1).lateral(f"by_{number}")
    return sa_select(row).select_from(asked.join(row, true()))


def _array(values: Sequence[object], kind: Any) -> ColumnElement[Any]:
    return cast(literal(list(values), ARRAY(kind)), ARRAY(kind))


async def book(session: AsyncSession, usage: Sequence[Mapping[str, Any]]) -> None:
    """Append receipts, given by the columns of OnDeviceUsageRow, and write what changed of their devices."""
    await session.flush()
    if usage:
        connection = await session.connection()
        await connection.execute(insert(OnDeviceUsageRow), list(usage))


# --- sums -------------------------------------------------------------------------------------------------------------

_SUMMED: Final = ("requests", "input_tokens", "output_tokens", "avoided_nanos")


async def sum_use(session: AsyncSession, scope: Scope, *, start: datetime, end: datetime) -> OnDeviceSums:
    """Add up what was booked in a period (`end` exclusive), by the tree as it was then."""
    query = sa_select(
        func.count().label("receipts"),
        *(func.sum(_USED[name]).label(name) for name in _SUMMED),
        func.sum(_USED.requests).filter(_USED.avoided_nanos.is_(None)).label("unpriced_requests"),
    ).where(_USED.tenant_id == scope.tenant, _USED.booked_at >= start, _USED.booked_at < end, *_booked_in(scope))
    connection = await session.connection()
    found: Row[Any] = (await connection.execute(query)).one()
    return OnDeviceSums(**{name: int(value or 0) for name, value in found._mapping.items()})


def _booked_in(scope: Scope) -> list[ColumnElement[bool]]:
    path = _USED.department_path
    match scope:
        case ProjectName():
            # The department as well: a name that puts a project into another department names nothing.
            return [_USED.project_id == scope.project, path[func.cardinality(path)] == scope.department]
        case DepartmentName():
            return [path.contains([scope.department])]
        case _:
            return []
