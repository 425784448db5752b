"""Rows of kept content and of what is to be kept."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Column, Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, SQLModel

from tollhouse_server.database.types import INSTANT, NOW


class ContentPolicyRow(SQLModel, table=True):
    """What of a tenant's calls is kept. `scopes` are names of departments and projects, none for all."""

    __tablename__ = "content_policy"

    tenant_id: str = Field(primary_key=True)
    keep: str
    retention_days: int
    scopes: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False))
    must_keep: bool
    version: int = 1
    created_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)
    updated_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)


class KeptContentRow(SQLModel, table=True):
    """What is kept of one call: `prompt` and `answer` are packed and sealed. Written once."""

    __tablename__ = "kept_content"

    tenant_id: str = Field(primary_key=True)
    attempt_id: UUID = Field(primary_key=True)
    created_at: datetime = Field(sa_type=INSTANT)
    expires_at: datetime = Field(sa_type=INSTANT)
    department_path: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False))
    project_id: str
    principal_id: str
    request_id: UUID
    method: str
    model: str
    prompt: bytes
    prompt_bytes: int
    answer: bytes | None = None
    answer_bytes: int = 0
    answer_truncated: bool = False
