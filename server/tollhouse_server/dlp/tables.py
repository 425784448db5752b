"""Rows of data policies and of what was found by them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, DateTime, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel


def _now() -> "Column[datetime]":
    return Column(DateTime(timezone=True), server_default=func.now(), nullable=False)


class DataPolicyRow(SQLModel, table=True):
    """What a tenant or department says of its data; `policy` is a `DataPolicy` as JSON."""

    __tablename__ = "data_policy"

    tenant_id: str = Field(primary_key=True)
    scope: str = Field(primary_key=True)
    policy: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    version: int = Field(default=1, sa_type=BigInteger)
    created_at: datetime | None = Field(default=None, sa_column=_now())
    updated_at: datetime | None = Field(default=None, sa_column=_now())


class DataFindingRow(SQLModel, table=True):
    """How often one detector found something in one direction of a call; never what."""

    __tablename__ = "data_finding"

    tenant_id: str = Field(primary_key=True)
    found_at: datetime = Field(sa_column=Column(DateTime(timezone=True), primary_key=True))
    request_id: UUID = Field(primary_key=True)
    direction: str = Field(primary_key=True)
    detector: str = Field(primary_key=True)
    action: str = Field(primary_key=True)
    department_id: str = ""
    value_count: int
