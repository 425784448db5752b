"""Rows of schedules of deliveries, and of the deliveries."""

from datetime import datetime

from sqlalchemy import BigInteger, Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, SQLModel

from tollhouse_server.database.types import INSTANT, NOW


class _Kept(SQLModel):
    version: int = Field(default=1, sa_type=BigInteger)
    created_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)
    updated_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)


class DeliveryScheduleRow(_Kept, table=True):
    """When statements of a tenant or department go out, in which formats, and where to.

    `day` is that of the month that follows on the stated one; 0 is its close.
    """

    __tablename__ = "delivery_schedule"

    tenant_id: str = Field(primary_key=True)
    schedule_id: str = Field(primary_key=True)
    department_id: str = ""
    formats: list[str] = Field(sa_type=ARRAY(Text))
    language: str
    day: int = 0
    to_folder: bool = False
    to_bucket: bool = False
    recipients: list[str] = Field(default_factory=list, sa_type=ARRAY(Text))
    creator: str
    ended_at: datetime | None = Field(default=None, sa_type=INSTANT)


class DeliveryRow(_Kept, table=True):
    """One statement on one way. `sha256` is that of a sealed statement, empty for one of a month that is not closed.

    `hand_overs` is how often it was handed to a mail server without an answer; `recipients_left` are those for whom it
    was to come again later, none of them means all of the schedule; `refused` tells of those who will never have it.
    """

    __tablename__ = "delivery"

    tenant_id: str = Field(primary_key=True)
    delivery_id: str = Field(primary_key=True)
    schedule_id: str
    month: str
    sha256: str
    way: str
    state: str = "PENDING"
    attempts: int = 0
    hand_overs: int = 0
    recipients_left: list[str] = Field(default_factory=list, sa_type=ARRAY(Text))
    refused: str = ""
    next_attempt_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)
    delivered_at: datetime | None = Field(default=None, sa_type=INSTANT)
    fault: str = ""
