"""Rows of identity."""

from datetime import datetime

from sqlalchemy import BigInteger
from sqlmodel import Field, SQLModel

from tollhouse_server.database.types import INSTANT, NOW


class ApiKeyRow(SQLModel, table=True):
    """An API key: LIVE or TEST; without a project it is for administration only."""

    __tablename__ = "api_key"

    tenant_id: str = Field(primary_key=True)
    key_id: str = Field(primary_key=True)
    principal_id: str
    project_id: str | None = None
    environment: str
    digest: bytes = Field(repr=False)
    display_name: str = ""
    expires_at: datetime | None = Field(default=None, sa_type=INSTANT)
    revoked_at: datetime | None = Field(default=None, sa_type=INSTANT)
    version: int = Field(default=1, sa_type=BigInteger)
    created_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)
    updated_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)
