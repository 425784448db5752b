"""Rows of what makes a charge from a cost: rules, shared costs, wallets, currencies; and of costs elsewhere."""

from datetime import date, datetime
from typing import Any

from sqlalchemy import BigInteger, Column, Identity
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from tollhouse_server.database.types import INSTANT, NOW


class _Kept(SQLModel):
    version: int = Field(default=1, sa_type=BigInteger)
    created_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)
    updated_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)


class ChargeRuleRow(_Kept, table=True):
    """A mark-up or discount, in force from `starts_on` until before `ends_on`. Of its numbers those of its kind count.

    `steps` are pairs: from how many nano-dollars of the month's cost on, and the rate of what is above, in millionths.
    """

    __tablename__ = "charge_rule"

    tenant_id: str = Field(primary_key=True)
    rule_id: str = Field(primary_key=True)
    scope: str
    selector: str = ""
    kind: str
    rate_millionths: int = Field(default=0, sa_type=BigInteger)
    amount_nanos: int = Field(default=0, sa_type=BigInteger)
    steps: list[list[int]] = Field(default_factory=list, sa_type=JSONB)
    reason: str
    starts_on: date
    ends_on: date | None = None
    creator: str


class SharedCostRow(_Kept, table=True):
    """A cost of each month that begins from `starts_on` until before `ends_on`; `shares` are departments' weights."""

    __tablename__ = "shared_cost"

    tenant_id: str = Field(primary_key=True)
    cost_id: str = Field(primary_key=True)
    display_name: str
    kind: str
    amount_nanos: int = Field(sa_type=BigInteger)
    method: str
    shares: dict[str, int] = Field(default_factory=dict, sa_type=JSONB)
    reason: str
    starts_on: date
    ends_on: date | None = None
    creator: str


class WalletRow(_Kept, table=True):
    """A wallet: its limit has the id of the wallet, and the sum of the top-ups as its amount.

    `attributed_nanos` is how much of what the limit has settled was taken from top-ups.
    """

    __tablename__ = "wallet"

    tenant_id: str = Field(primary_key=True)
    wallet_id: str = Field(primary_key=True)
    limit_id: int = Field(sa_type=BigInteger)
    display_name: str = ""
    low_balance_percent: int
    attributed_nanos: int = Field(default=0, sa_type=BigInteger)


class TopUpRow(SQLModel, table=True):
    """Money put into a wallet: what of it is spent, and what has expired. `expired_at` is when nothing more can."""

    __tablename__ = "wallet_top_up"

    tenant_id: str = Field(primary_key=True)
    wallet_id: str = Field(primary_key=True)
    top_up_id: str = Field(primary_key=True)
    amount_nanos: int = Field(sa_type=BigInteger)
    spent_nanos: int = Field(default=0, sa_type=BigInteger)
    expired_nanos: int = Field(default=0, sa_type=BigInteger)
    expires_at: datetime | None = Field(default=None, sa_type=INSTANT)
    expired_at: datetime | None = Field(default=None, sa_type=INSTANT)
    reference: str = ""
    creator: str
    created_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)


class CurrencyRateRow(SQLModel, table=True):
    """How many millionths of a unit one dollar is from a day on."""

    __tablename__ = "currency_rate"

    rate_id: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    code: str
    dated: date
    per_dollar_millionths: int = Field(sa_type=BigInteger)
    source: str
    creator: str
    recorded_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)


class DisplayCurrencyRow(_Kept, table=True):
    """The currency in which a tenant reads amounts, beside dollars."""

    __tablename__ = "display_currency"

    tenant_id: str = Field(primary_key=True)
    code: str


class BoundLabelsRow(_Kept, table=True):
    """Labels that go on every record of a project, `projects/{id}`, or of a key, `apiKeys/{id}`."""

    __tablename__ = "bound_labels"

    tenant_id: str = Field(primary_key=True)
    holder: str = Field(primary_key=True)
    labels: dict[str, Any] = Field(default_factory=dict, sa_type=JSONB)


class AlternativeCostRow(SQLModel, table=True):
    """What a unit of work costs otherwise, from a day on."""

    __tablename__ = "alternative_cost"

    tenant_id: str = Field(primary_key=True)
    alternative_cost_id: str = Field(primary_key=True)
    starts_on: date = Field(primary_key=True)
    subject: str
    unit: str
    unit_nanos: int = Field(sa_type=BigInteger)
    counted_by: str
    creator: str
    created_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)
