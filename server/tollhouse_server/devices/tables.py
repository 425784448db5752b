"""Rows of devices and of what they reported. Neither is ever deleted: numbers once used must stay used."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field, SQLModel

from tollhouse_server.database.types import INSTANT, NOW


class DeviceRow(SQLModel, table=True):
    """A device; the `report_` columns count what was taken from it on `report_day` (UTC)."""

    __tablename__ = "device"

    tenant_id: str = Field(primary_key=True)
    device_id: str = Field(primary_key=True)
    project_id: str
    display_name: str = ""
    public_key: bytes
    max_daily_receipts: int = Field(sa_type=BigInteger)
    max_daily_tokens: int = Field(sa_type=BigInteger)
    report_day: date | None = None
    report_receipts: int = Field(default=0, sa_type=BigInteger)
    report_tokens: int = Field(default=0, sa_type=BigInteger)
    last_report_at: datetime | None = Field(default=None, sa_type=INSTANT)
    version: int = Field(default=1, sa_type=BigInteger)
    created_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)
    updated_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)
    revoked_at: datetime | None = Field(default=None, sa_type=INSTANT)
    deleted_at: datetime | None = Field(default=None, sa_type=INSTANT)


class OnDeviceUsageRow(SQLModel, table=True):
    """One receipt, as it was booked. `avoided_nanos` None means that there was no price."""

    __tablename__ = "on_device_usage"

    tenant_id: str = Field(primary_key=True)
    device_id: str = Field(primary_key=True)
    sequence: int = Field(primary_key=True, sa_type=BigInteger)
    receipt_id: UUID
    digest: bytes
    booked_at: datetime = Field(sa_type=INSTANT)
    started_at: datetime = Field(sa_type=INSTANT)
    department_path: list[str] = Field(sa_type=ARRAY(Text))
    project_id: str
    model: str
    task: str
    labels: dict[str, Any] = Field(sa_type=JSONB)
    requests: int = Field(sa_type=BigInteger)
    input_tokens: int = Field(sa_type=BigInteger)
    output_tokens: int = Field(sa_type=BigInteger)
    avoided_nanos: int | None = Field(default=None, sa_type=BigInteger)
    avoided_model: str
    price_version: int = Field(sa_type=BigInteger)
