"""Rows of months, of what was sealed, and of adjustments. A closed month and all that was sealed or entered stays."""

from datetime import datetime

from sqlalchemy import BigInteger, Integer, LargeBinary, Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, SQLModel

from tollhouse_server.database.types import INSTANT, NOW


class BillingPeriodRow(SQLModel, table=True):
    """A month that was previewed once: OPEN, PREVIEW or CLOSED. A month without a row is OPEN."""

    __tablename__ = "billing_period"

    tenant_id: str = Field(primary_key=True)
    month: str = Field(primary_key=True)
    state: str = "OPEN"
    starts_at: datetime = Field(sa_type=INSTANT)
    ends_at: datetime = Field(sa_type=INSTANT)
    time_zone: str
    is_fiscal: bool
    previewed_at: datetime | None = Field(default=None, sa_type=INSTANT)
    previewed_by: str = ""
    closed_at: datetime | None = Field(default=None, sa_type=INSTANT)
    closed_by: str = ""
    sha256: str = ""
    version: int = Field(default=1, sa_type=BigInteger)
    created_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)
    updated_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)


class SealedStatementRow(SQLModel, table=True):
    """A sealed statement: that of the tenant has no department. `document` is the text that was digested."""

    __tablename__ = "sealed_statement"

    tenant_id: str = Field(primary_key=True)
    month: str = Field(primary_key=True)
    department_id: str = Field(primary_key=True)
    document: bytes = Field(sa_type=LargeBinary)
    sha256: str
    signature: str
    key_version: int = Field(sa_type=Integer)
    tree_size: int = Field(sa_type=BigInteger)
    leaf_index: int = Field(sa_type=BigInteger)
    path: list[str] = Field(sa_type=ARRAY(Text))


class AdjustmentRow(SQLModel, table=True):
    """A credit or correction in the statement of `month`, perhaps of an earlier one."""

    __tablename__ = "adjustment"

    tenant_id: str = Field(primary_key=True)
    adjustment_id: str = Field(primary_key=True)
    month: str
    department_id: str = ""
    project_id: str = ""
    amount_nanos: int = Field(sa_type=BigInteger)
    reason: str
    for_month: str = ""
    created_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)
    created_by: str
