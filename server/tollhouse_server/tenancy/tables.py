"""Rows of tenancy. Nothing is deleted, only marked: the records that name it stay readable."""

from datetime import datetime

from sqlalchemy import BigInteger, Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, SQLModel

from tollhouse_server.database.types import INSTANT, NOW, LTree


class _Lived(SQLModel):
    display_name: str = ""
    state: str = "ACTIVE"
    version: int = Field(default=1, sa_type=BigInteger)
    created_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)
    updated_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)
    deleted_at: datetime | None = Field(default=None, sa_type=INSTANT)


class _Owned(SQLModel):
    cost_centre: str = ""
    owner_id: str | None = None


class TenantRow(_Lived, table=True):
    """A tenant: ACTIVE, SUSPENDED, DELETED or PURGED.

    While it is DELETED, `purge_at` is until when it can be undeleted, and `state_before` what it is then.
    """

    __tablename__ = "tenant"

    tenant_id: str = Field(primary_key=True)
    time_zone: str = "UTC"
    fiscal_month_start_day: int = 1
    purge_at: datetime | None = Field(default=None, sa_type=INSTANT)
    state_before: str | None = None


class DepartmentRow(_Lived, _Owned, table=True):
    """A department: ACTIVE, DELETED or MERGED; `path` holds the ids from the top of the tree down to itself.

    One that is MERGED lies below the department `merged_into`, which is never a merged one itself.
    """

    __tablename__ = "department"

    tenant_id: str = Field(primary_key=True)
    department_id: str = Field(primary_key=True)
    parent_id: str | None = None
    path: str = Field(sa_type=LTree)
    merged_into: str | None = None


class ProjectRow(_Lived, _Owned, table=True):
    """A project; its id is unique in the tenant. Under the names of `former_departments` it is still found."""

    __tablename__ = "project"

    tenant_id: str = Field(primary_key=True)
    project_id: str = Field(primary_key=True)
    department_id: str
    former_departments: list[str] = Field(default_factory=list, sa_type=ARRAY(Text))


class PrincipalRow(_Lived, table=True):
    """A principal: USER or SERVICE_ACCOUNT; ACTIVE, DISABLED or DELETED. `issuer` and `subject` are set together."""

    __tablename__ = "principal"

    tenant_id: str = Field(primary_key=True)
    principal_id: str = Field(primary_key=True)
    kind: str
    email: str = ""
    issuer: str = ""
    subject: str = ""


class DepartmentMoveRow(SQLModel, table=True):
    """A MOVE of a department, or a MERGE of what is in it into `parent_id`: SCHEDULED, APPLIED, CANCELLED or FAILED.

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
    kind: str = "MOVE"
    limit_policy: str = ""
    own_limits: int = Field(default=0, sa_type=BigInteger)
    own_grants: int = Field(default=0, sa_type=BigInteger)
    creator: str
    credential_id: str
    ended_at: datetime | None = Field(default=None, sa_type=INSTANT)
    version: int = Field(default=1, sa_type=BigInteger)
    created_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)
    updated_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)
