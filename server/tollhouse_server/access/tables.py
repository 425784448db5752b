"""Rows of access."""

from datetime import datetime

from sqlalchemy import BigInteger, Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, SQLModel

from tollhouse_server.database.types import INSTANT, NOW


class RoleGrantRow(SQLModel, table=True):
    """A role given to a principal or to a group on a scope. Never changed: taken away and made anew.

    `role` is the id of a built-in role, or the whole name of one that the tenant has made.
    """

    __tablename__ = "role_grant"

    tenant_id: str = Field(primary_key=True)
    grant_id: str = Field(primary_key=True)
    principal_id: str | None = None
    group_id: str | None = None
    role: str
    scope: str
    creator: str = ""
    created_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)


class GroupRow(SQLModel, table=True):
    """A group of principals."""

    __tablename__ = "principal_group"

    tenant_id: str = Field(primary_key=True)
    group_id: str = Field(primary_key=True)
    display_name: str = ""
    version: int = Field(default=1, sa_type=BigInteger)
    created_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)
    updated_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)


class GroupMemberRow(SQLModel, table=True):
    """A principal in a group. Never changed."""

    __tablename__ = "group_member"

    tenant_id: str = Field(primary_key=True)
    group_id: str = Field(primary_key=True)
    principal_id: str = Field(primary_key=True)
    creator: str = ""
    created_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)


class TenantRoleRow(SQLModel, table=True):
    """A role that a tenant has made of permissions that can be given inside a tenant."""

    __tablename__ = "tenant_role"

    tenant_id: str = Field(primary_key=True)
    role_id: str = Field(primary_key=True)
    description: str = ""
    permissions: list[str] = Field(sa_type=ARRAY(Text))
    creator: str = ""
    version: int = Field(default=1, sa_type=BigInteger)
    created_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)
    updated_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)
