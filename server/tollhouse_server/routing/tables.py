"""Rows of the catalogue and of upstream accounts. No secret is ever in one: of a key only its fingerprint."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, FetchedValue, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field, SQLModel

from tollhouse_server.database.types import INSTANT


def _now() -> Column[datetime]:
    return Column(INSTANT, server_default=FetchedValue())


class CatalogueRevisionRow(SQLModel, table=True):
    """A packaged catalogue that was stored."""

    __tablename__ = "catalogue_revision"

    revision: int = Field(primary_key=True)


class ModelRow(SQLModel, table=True):
    """A model: what it can do, what bounds a call to it, and until when it lives."""

    __tablename__ = "model"

    model: str = Field(primary_key=True)
    display_name: str
    upstreams: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False))
    capabilities: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False))
    input_token_limit: int = Field(sa_type=BigInteger)
    output_token_limit: int = Field(sa_type=BigInteger)
    images_per_answer: int = 0
    grounding_queries: int = 0
    tool_prompt_tokens: int | None = Field(default=None, sa_type=BigInteger)
    shutdown_at: datetime | None = Field(default=None, sa_column=Column(INSTANT))
    notice_at: datetime | None = Field(default=None, sa_column=Column(INSTANT))
    successor: str = ""
    source: str = ""
    origin: str
    version: int = Field(default=1, sa_type=BigInteger)
    updated_at: datetime | None = Field(default=None, sa_column=_now())


class ModelAliasRow(SQLModel, table=True):
    """Another name of a model, good until its own date."""

    __tablename__ = "model_alias"

    alias: str = Field(primary_key=True)
    model: str
    shutdown_at: datetime | None = Field(default=None, sa_column=Column(INSTANT))
    origin: str
    version: int = Field(default=1, sa_type=BigInteger)
    updated_at: datetime | None = Field(default=None, sa_column=_now())


class TierRow(SQLModel, table=True):
    """A tier; its models are its targets'."""

    __tablename__ = "tier"

    tier: str = Field(primary_key=True)
    display_name: str
    description: str = ""
    origin: str
    version: int = Field(default=1, sa_type=BigInteger)
    updated_at: datetime | None = Field(default=None, sa_column=_now())


class TierTargetRow(SQLModel, table=True):
    """One choice of a tier, the first at position 0; empty account and region mean any that can serve the model.

    Choices of one rank share the traffic by weight; no rank means the position.
    """

    __tablename__ = "tier_target"

    tier: str = Field(primary_key=True)
    position: int = Field(primary_key=True)
    model: str
    account_id: str = ""
    region: str = ""
    rank: int | None = None
    weight: int = 1


class RoutingPolicyRow(SQLModel, table=True):
    """What a tenant, department or project says of routing; `policy` is a `RoutingPolicy` as JSON."""

    __tablename__ = "routing_policy"

    tenant_id: str = Field(primary_key=True)
    scope: str = Field(primary_key=True)
    policy: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    version: int = Field(default=1, sa_type=BigInteger)
    created_at: datetime | None = Field(default=None, sa_column=_now())
    updated_at: datetime | None = Field(default=None, sa_column=_now())


class ApiVersionRow(SQLModel, table=True):
    """The upstream API version for a kind of account and a method ("*": any other)."""

    __tablename__ = "api_version"

    kind: str = Field(primary_key=True)
    method: str = Field(primary_key=True)
    api_version: str
    origin: str


class AccountRow(SQLModel, table=True):
    """An upstream account (a Google Cloud project): ACTIVE or DISABLED.

    Its host (`base_url_key`) and its proxy (`egress`) are names in settings, never URLs. An empty `tenant_id` or
    `environment` (`live` or `test`) means that it is for all of them.
    """

    __tablename__ = "account"

    account_id: str = Field(primary_key=True)
    display_name: str = ""
    kind: str
    project: str = ""
    base_url_key: str
    region: str = ""
    egress: str = ""
    tenant_id: str = ""
    environment: str = ""
    state: str = "ACTIVE"
    version: int = Field(default=1, sa_type=BigInteger)
    created_at: datetime | None = Field(default=None, sa_column=_now())
    updated_at: datetime | None = Field(default=None, sa_column=_now())


class AccountLimitRow(SQLModel, table=True):
    """A quota that the upstream sets an account; an empty model means all models together."""

    __tablename__ = "account_limit"

    account_id: str = Field(primary_key=True)
    metric: str = Field(primary_key=True)
    model: str = Field(default="", primary_key=True)
    amount: int = Field(sa_type=BigInteger)


class UpstreamKeyRow(SQLModel, table=True):
    """Metadata of an account's key; only ACTIVE ones are used. `fingerprint` is 16 hex digits of its SHA-256.

    The other states: STAGED, DRAINING, DISABLED, QUARANTINED, REVOKED, RETIRED. `provider_key` is what the provider
    calls it, empty for one that came by hand.
    """

    __tablename__ = "upstream_key"

    account_id: str = Field(primary_key=True)
    key_id: str = Field(primary_key=True)
    display_name: str = ""
    vault_version: int = Field(sa_type=BigInteger)
    fingerprint: str
    provider_key: str = ""
    state: str = "ACTIVE"
    version: int = Field(default=1, sa_type=BigInteger)
    created_at: datetime | None = Field(default=None, sa_column=_now())
    updated_at: datetime | None = Field(default=None, sa_column=_now())
