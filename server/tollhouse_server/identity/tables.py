"""Rows of identity."""

from datetime import datetime

from sqlalchemy import BigInteger, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field, SQLModel

from tollhouse_server.database.types import INSTANT, NOW

_TEXTS = ARRAY(Text)


class ApiKeyRow(SQLModel, table=True):
    """An API key of an environment; without a project it is for administration only.

    Without `scopes` it may be used for whatever its principal may do, without `allowed_networks` from anywhere.
    """

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
    scopes: list[str] = Field(default_factory=list, sa_type=_TEXTS)
    allowed_networks: list[str] = Field(default_factory=list, sa_type=_TEXTS)
    last_used_at: datetime | None = Field(default=None, sa_type=INSTANT)
    predecessor_id: str | None = None
    successor_id: str | None = None
    version: int = Field(default=1, sa_type=BigInteger)
    created_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)
    updated_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)


class IdentityProviderRow(SQLModel, table=True):
    """An issuer whose tokens a tenant accepts: ACTIVE or DISABLED. `groups` maps values of a claim to ids of groups."""

    __tablename__ = "identity_provider"

    tenant_id: str = Field(primary_key=True)
    provider_id: str = Field(primary_key=True)
    display_name: str = ""
    issuer: str
    audiences: list[str] = Field(sa_type=_TEXTS)
    subject_claim: str
    groups_claim: str = ""
    groups: dict[str, str] = Field(default_factory=dict, sa_type=JSONB)
    project_claim: str = ""
    admits_groups: bool = False
    clock_skew_seconds: int
    environment: str
    state: str = "ACTIVE"
    version: int = Field(default=1, sa_type=BigInteger)
    created_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)
    updated_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)


class IdentityProviderAudienceRow(SQLModel, table=True):
    """An audience of a provider: with its issuer it belongs to one provider of one tenant."""

    __tablename__ = "identity_provider_audience"

    tenant_id: str = Field(primary_key=True)
    provider_id: str = Field(primary_key=True)
    audience: str = Field(primary_key=True)
    issuer: str


class ClientIdentityRow(SQLModel, table=True):
    """What a client's certificate says, `spiffe://...` or `subject:...`, and who he is who has it."""

    __tablename__ = "client_identity"

    tenant_id: str = Field(primary_key=True)
    client_identity_id: str = Field(primary_key=True)
    display_name: str = ""
    identity: str
    principal_id: str
    project_id: str | None = None
    environment: str
    version: int = Field(default=1, sa_type=BigInteger)
    created_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)
    updated_at: datetime | None = Field(default=None, sa_type=INSTANT, sa_column_kwargs=NOW)
