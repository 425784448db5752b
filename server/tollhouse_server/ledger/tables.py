"""Rows of the ledger that the control plane reads and writes; the tick itself speaks SQL (`store.py`)."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Column, Identity, Integer
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, SQLModel

from tollhouse_server.database.types import INSTANT, NOW


class LimitRow(SQLModel, table=True):
    """A limit: scope x metric x window x selector x mode. COST amounts are nano-dollars.

    `kept_by` is the resource name of what alone changes it, such as a wallet; `alert_round` counts how often it has
    begun to raise its alerts anew.
    """

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
    kept_by: str = ""
    alert_round: int = 0
    version: int = Field(default=1, sa_type=BigInteger)
    created_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)
    updated_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)


class LimitIncreaseRow(SQLModel, table=True):
    """A temporary increase of a limit, from its request to its end. The names of people are resource names."""

    __tablename__ = "limit_increase"

    tenant_id: str = Field(primary_key=True)
    increase_id: str = Field(primary_key=True)
    limit_id: int = Field(sa_type=BigInteger)
    amount: int = Field(sa_type=BigInteger)
    reason: str
    state: str = "REQUESTED"
    requested_by: str
    decided_by: str | None = None
    decided_at: datetime | None = Field(default=None, sa_type=INSTANT)
    decision_reason: str = ""
    starts_at: datetime | None = Field(default=None, sa_type=INSTANT)
    expires_at: datetime = Field(sa_type=INSTANT)
    version: int = Field(default=1, sa_type=BigInteger)
    created_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)
    updated_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)


class LimitAlertRow(SQLModel, table=True):
    """What a limit has raised; written by the tick, in the transaction that books the usage."""

    __tablename__ = "limit_alert"

    tenant_id: str = Field(primary_key=True)
    alert_id: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    limit_id: int = Field(sa_type=BigInteger)
    window_start: datetime = Field(sa_type=INSTANT)
    kind: str
    threshold: int = 0
    settled: int = Field(sa_type=BigInteger)
    amount: int = Field(sa_type=BigInteger)
    attempt_id: UUID | None = None
    raised_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)
