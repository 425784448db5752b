"""Rows of access."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from tollhouse_server.database.types import INSTANT, NOW


class RoleGrantRow(SQLModel, table=True):
    """A role given to a principal on a scope. Never changed: taken away and made anew."""

    __tablename__ = "role_grant"

    tenant_id: str = Field(primary_key=True)
    grant_id: str = Field(primary_key=True)
    principal_id: str
    role: str
    scope: str
    creator: str = ""
    created_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)
