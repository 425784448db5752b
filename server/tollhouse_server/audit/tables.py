"""Rows of audit."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, DateTime, FetchedValue, Identity
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

_INSTANT = DateTime(timezone=True)
_NOW = {"server_default": FetchedValue()}


class AuditEventRow(SQLModel, table=True):
    """One administrative act, written in the act's own transaction. `before` and `after` never hold a secret."""

    __tablename__ = "audit_event"

    tenant_id: str = Field(primary_key=True)
    event_id: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    occurred_at: datetime | None = Field(default=None, sa_type=_INSTANT, sa_column_kwargs=_NOW)
    actor: str
    credential_id: str
    method: str
    permission: str
    resource: str
    before: dict[str, Any] | None = Field(default=None, sa_type=JSONB(none_as_null=True))
    after: dict[str, Any] | None = Field(default=None, sa_type=JSONB(none_as_null=True))
    request_id: str
    correlation_id: str


class AdminRequestRow(SQLModel, table=True):
    """A request id that a tenant's principal has used, what it was used for, and what was answered."""

    __tablename__ = "admin_request"

    tenant_id: str = Field(primary_key=True)
    request_id: UUID = Field(primary_key=True)
    fingerprint: bytes
    response: bytes = b""
    created_at: datetime | None = Field(default=None, sa_type=_INSTANT, sa_column_kwargs=_NOW)
