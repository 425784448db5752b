"""Rows of audit."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, JSON, BigInteger, Column, DateTime, FetchedValue, Identity, LargeBinary
from sqlmodel import Field, SQLModel

_INSTANT = DateTime(timezone=True)
_NOW = {"server_default": FetchedValue()}


class AuditEventRow(SQLModel, table=True):
    """One event of a tenant's trail, written in the transaction of the act. `before` and `after` hold no secret.

    PostgreSQL links it to the one before when the transaction commits: it sets `occurred_at`, `sequence`, `previous`
    and `hash`, whatever was written there. `audit/README.md` says how.
    """

    __tablename__ = "audit_event"

    tenant_id: str = Field(primary_key=True)
    event_id: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    occurred_at: datetime | None = Field(default=None, sa_type=_INSTANT, sa_column_kwargs=_NOW)
    actor: str
    credential_id: str
    method: str
    permission: str
    resource: str
    before: dict[str, Any] | None = Field(default=None, sa_type=JSON(none_as_null=True))
    after: dict[str, Any] | None = Field(default=None, sa_type=JSON(none_as_null=True))
    request_id: str
    correlation_id: str
    kind: str = "ACT"
    outcome: str = "SUCCESS"
    reason: str = ""
    count: int = Field(default=1, sa_type=BigInteger)
    started_at: datetime | None = Field(default=None, sa_type=_INSTANT)
    personal: str = "NONE"
    sealed_by: str = ""
    sealed: bytes | None = None
    commitment: bytes | None = None


class AuditCheckpointRow(SQLModel, table=True):
    """What was signed of a tenant's trail at one moment, with the proof."""

    __tablename__ = "audit_checkpoint"

    tenant_id: str = Field(primary_key=True)
    number: int = Field(primary_key=True, sa_type=BigInteger)
    sequence: int = Field(sa_type=BigInteger)
    hash: bytes
    first_sequence: int = Field(sa_type=BigInteger)
    document: str
    tree_size: int
    leaf_index: int
    path: list[bytes] = Field(sa_type=ARRAY(LargeBinary))
    key: str
    key_version: int
    signature: bytes
    created_at: datetime = Field(sa_type=_INSTANT)


class AdminRequestRow(SQLModel, table=True):
    """A request id that a tenant's principal has used, what it was used for, and what was answered."""

    __tablename__ = "admin_request"

    tenant_id: str = Field(primary_key=True)
    request_id: UUID = Field(primary_key=True)
    fingerprint: bytes
    response: bytes = b""
    created_at: datetime | None = Field(default=None, sa_type=_INSTANT, sa_column_kwargs=_NOW)
