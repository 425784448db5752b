"""Rows of the price book (append-only, one complete set of price lists for each version) and of proposals for it."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, FetchedValue
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from tollhouse_server.database.types import INSTANT


class PriceBookVersionRow(SQLModel, table=True):
    """A version of the price book: where it came from, and the digest of the file that made it."""

    __tablename__ = "price_book_version"

    version: int = Field(primary_key=True, sa_type=BigInteger)
    recorded_at: datetime | None = Field(default=None, sa_column=Column(INSTANT, server_default=FetchedValue()))
    origin: str
    revision: int = 0
    digest: str
    importer: str = ""
    approver: str = ""
    note: str = ""
    price_count: int


class PriceListRow(SQLModel, table=True):
    """A model's price list in one version of the book."""

    __tablename__ = "price_list"

    version: int = Field(primary_key=True, sa_type=BigInteger)
    model: str = Field(primary_key=True)
    effective_from: datetime = Field(sa_column=Column(INSTANT, primary_key=True))
    origin: str
    source: str
    long_above_tokens: int | None = Field(default=None, sa_type=BigInteger)
    tokens_per_image: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    tier_permille: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    cached_tier_permille: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))


class PriceRow(SQLModel, table=True):
    """One price of a price list."""

    __tablename__ = "price"

    version: int = Field(primary_key=True, sa_type=BigInteger)
    model: str = Field(primary_key=True)
    effective_from: datetime = Field(sa_column=Column(INSTANT, primary_key=True))
    sku: str = Field(primary_key=True)
    nanos_per_million: int = Field(sa_type=BigInteger)


class PriceSurchargeRow(SQLModel, table=True):
    """What an upstream address costs on top, in millionths of the list price, in one version of the book."""

    __tablename__ = "price_surcharge"

    version: int = Field(primary_key=True, sa_type=BigInteger)
    endpoint: str = Field(primary_key=True)
    effective_from: datetime = Field(sa_column=Column(INSTANT, primary_key=True))
    per_million: int = Field(sa_type=BigInteger)
    source: str = ""


class PriceProposalRow(SQLModel, table=True):
    """A price file that waits for a second person, or what was decided on it."""

    __tablename__ = "price_proposal"

    proposal_id: str = Field(primary_key=True)
    base_version: int = Field(sa_type=BigInteger)
    format: str
    content: str
    digest: str
    note: str
    max_jump_factor: int
    allows_jumps: bool
    reason: str = ""
    requested_by: str
    state: str = "REQUESTED"
    decided_by: str | None = None
    decided_at: datetime | None = Field(default=None, sa_column=Column(INSTANT))
    decision_reason: str = ""
    price_version: int | None = Field(default=None, sa_type=BigInteger)
    expires_at: datetime = Field(sa_column=Column(INSTANT, nullable=False))
    version: int = Field(default=1, sa_type=BigInteger)
    created_at: datetime | None = Field(default=None, sa_column=Column(INSTANT, server_default=FetchedValue()))
    updated_at: datetime | None = Field(default=None, sa_column=Column(INSTANT, server_default=FetchedValue()))
