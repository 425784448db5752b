"""Rows of the traffic room."""

from datetime import datetime

from sqlalchemy import BigInteger, Column, FetchedValue
from sqlmodel import Field, SQLModel

from tollhouse_server.database.types import INSTANT


class BreakerOrderRow(SQLModel, table=True):
    """What an operator holds breakers to: OPEN or CLOSED; an empty region or model stands for all of the account."""

    __tablename__ = "breaker_order"

    account_id: str = Field(primary_key=True)
    region: str = Field(default="", primary_key=True)
    model: str = Field(default="", primary_key=True)
    forced: str
    reason: str = ""
    actor: str
    expire_at: datetime | None = Field(default=None, sa_column=Column(INSTANT))
    version: int = Field(default=1, sa_type=BigInteger)
    created_at: datetime | None = Field(default=None, sa_column=Column(INSTANT, server_default=FetchedValue()))
    updated_at: datetime | None = Field(default=None, sa_column=Column(INSTANT, server_default=FetchedValue()))
