"""Rows of tenancy. Nothing is deleted, only marked: the records that name it stay readable."""

from datetime import datetime

from sqlalchemy import BigInteger
from sqlmodel import Field, SQLModel

from tollhouse_server.database.types import INSTANT, NOW, LTree


class _Lived(SQLModel):
    display_name: str = ""
    state: str = "ACTIVE"
    version: int = Field(default=1, sa_type=BigInteger)
    created_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)
    updated_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)
    deleted_at: datetime | None = Field(default=None, sa_type=INSTANT)


class TenantRow(_Lived, table=True):
    """A tenant: ACTIVE, SUSPENDED or DELETED."""

    __tablename__ = "tenant"

    tenant_id: str = Field(primary_key=True)
    time_zone: str = "UTC"
    fiscal_month_start_day: int = 1


class DepartmentRow(_Lived, table=True):
    """A department; `path` holds the ids from the top of the tree down to itself, joined by dots."""

    __tablename__ = "department"

    tenant_id: str = Field(primary_key=True)
    department_id: str = Field(primary_key=True)
    parent_id: str | None = None
    path: str = Field(sa_type=LTree)


class ProjectRow(_Lived, table=True):
    """A project; its id is unique in the tenant."""

    __tablename__ = "project"

    tenant_id: str = Field(primary_key=True)
    project_id: str = Field(primary_key=True)
    department_id: str


class PrincipalRow(_Lived, table=True):
    """A principal: USER or SERVICE_ACCOUNT; ACTIVE, DISABLED or DELETED."""

    __tablename__ = "principal"

    tenant_id: str = Field(primary_key=True)
    principal_id: str = Field(primary_key=True)
    kind: str


class DepartmentMoveRow(SQLModel, table=True):
    """A move of a department: SCHEDULED, APPLIED, CANCELLED or FAILED.

    Paths are ids joined by dots; while the move is SCHEDULED they and the counts are as they were foreseen.
    """

    __tablename__ = "department_move"

    tenant_id: str = Field(primary_key=True)
    move_id: str = Field(primary_key=True)
    department_id: str
    parent_id: str | None = None
    effective_at: datetime = Field(sa_type=INSTANT)
    state: str
    failure: str = ""
    path_before: str
    path_after: str
    department_count: int = Field(sa_type=BigInteger)
    project_count: int = Field(sa_type=BigInteger)
    limits_left: int = Field(sa_type=BigInteger)
    limits_joined: int = Field(sa_type=BigInteger)
    creator: str
    credential_id: str
    ended_at: datetime | None = Field(default=None, sa_type=INSTANT)
    version: int = Field(default=1, sa_type=BigInteger)
    created_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)
    updated_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)
