"""Rows of access."""

from datetime import datetime

from sqlalchemy import DateTime, FetchedValue
from sqlmodel import Field, SQLModel


class RoleGrantRow(SQLModel, table=True):
    """A role given to a principal on a scope. Never changed: taken away and made anew."""

    __tablename__ = "role_grant"

    tenant_id: str = Field(primary_key=True)
    grant_id: str = Field(primary_key=True)
    principal_id: str
    role: str
    scope: str
    creator: str = ""
    created_at: datetime | None = Field(
        default=None,
        sa_type=DateTime(timezone=True),
        sa_column_kwargs={"server_default": FetchedValue()},
    )
