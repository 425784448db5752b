"""Rows of the custody of upstream keys. No secret is ever in one."""

from datetime import datetime

from sqlalchemy import BigInteger, Column, FetchedValue
from sqlmodel import Field, SQLModel

from tollhouse_server.database.types import INSTANT


def _now() -> Column[datetime]:
    return Column(INSTANT, server_default=FetchedValue())


class KeyPolicyRow(SQLModel, table=True):
    """How an account's keys are rotated; an account without one is rotated as `terms.DEFAULT_POLICY` says."""

    __tablename__ = "key_policy"

    account_id: str = Field(primary_key=True)
    provider: str
    rotation_period_days: int
    drain_seconds: int
    version: int = Field(default=1, sa_type=BigInteger)
    created_at: datetime | None = Field(default=None, sa_column=_now())
    updated_at: datetime | None = Field(default=None, sa_column=_now())


class KeyRotationRow(SQLModel, table=True):
    """One rotation or revocation. `step` is what has to be done next; it is open until `ended_at`."""

    __tablename__ = "key_rotation"

    rotation_id: str = Field(primary_key=True)
    account_id: str
    kind: str
    cause: str
    provider: str
    old_key_id: str
    new_key_id: str = ""
    step: str
    outcome: str = ""
    error: str = ""
    remark: str = ""
    tries: int = 0
    fence: int = Field(default=0, sa_type=BigInteger)
    leased_until: datetime | None = Field(default=None, sa_column=_now())
    next_at: datetime | None = Field(default=None, sa_column=_now())
    drain_seconds: int
    actor: str
    created_at: datetime | None = Field(default=None, sa_column=_now())
    step_at: datetime | None = Field(default=None, sa_column=_now())
    updated_at: datetime | None = Field(default=None, sa_column=_now())
    ended_at: datetime | None = Field(default=None, sa_column=Column(INSTANT))


class KeyAnomalyRow(SQLModel, table=True):
    """An hour in which a key was used far more than usual; `usual` and `deviation` are per hour."""

    __tablename__ = "key_anomaly"

    account_id: str = Field(primary_key=True)
    key_id: str = Field(primary_key=True)
    hour: datetime = Field(sa_column=Column(INSTANT, primary_key=True))
    metric: str = Field(primary_key=True)
    amount: int = Field(sa_type=BigInteger)
    usual: int = Field(sa_type=BigInteger)
    deviation: int = Field(sa_type=BigInteger)
    raised_at: datetime | None = Field(default=None, sa_column=_now())
