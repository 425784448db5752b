"""Rows of the ledger that the control plane reads and writes; the tick itself speaks SQL (`store.py`)."""

from datetime import datetime

from sqlalchemy import BigInteger, Column, Identity, Integer
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, SQLModel

from tollhouse_server.database.types import INSTANT, NOW


class LimitRow(SQLModel, table=True):
    """A limit: scope x metric x window x selector x mode. COST amounts are nano-dollars."""

    __tablename__ = "usage_limit"

    tenant_id: str = Field(primary_key=True)
    limit_id: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    name: str
    scope: str
    metric: str
    window: str
    selector: str = ""
    mode: str = "STRICT"
    amount: int = Field(sa_type=BigInteger)
    overshoot: int = Field(default=0, sa_type=BigInteger)
    thresholds: list[int] = Field(default_factory=list, sa_type=ARRAY(Integer))
    state: str = "ACTIVE"
    version: int = Field(default=1, sa_type=BigInteger)
    created_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)
    updated_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)
