"""The administration plane with an identity provider at tenant acme, and a principal who is known to it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tollhouse.admin.v1 import identity_providers_pb2 as pb
from tollhouse_server.api.mutation import Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.services.identity_providers_service import IdentityProviderService
from tollhouse_server.database.rows import run_sql
from tollhouse_server.identity.directory import Directory
from tollhouse_server.identity.issuers import IssuerRules, Issuers
from tollhouse_server.identity.principal import Principal
from tollhouse_server.identity.tokens import TokenDirectory

from tests.drivers.issuer import Issuer
from tests.integration.admin.plane import PATIENCE_SECONDS, PEPPER, Plane

PROVIDER = "tenants/acme/identityProviders/corp"


class Clock:
    """A clock that a test sets forward."""

    def __init__(self) -> None:
        self.ahead_seconds = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityPlane:
    """A plane whose directory takes tokens."""

    plane: Plane
    issuer: Issuer
    directory: Directory
    clock: Clock
    keys: dict[str, str] = field(default_factory=dict)

    async def register_key(self, principal: str, *grants: tuple[str, str]) -> None:
        """Make a principal of acme with a key, and keep the key."""
        self.keys[principal] = await self.plane.key("acme", principal, *grants)

    async def call(self, message: Any) -> Any:
        """Serve an administrator's request, and let the directory know of it."""
        answer = await self.plane.call(message)
        await self.plane.watch.refresh()
        return answer

    async def admitted(self, token: str, *, patience_seconds: float = PATIENCE_SECONDS) -> Principal:
        """Return who a token stands for."""
        if self.plane.watch.staleness_seconds > 1:
            await self.plane.watch.refresh()
        return await self.directory.authenticate(f"Bearer {token}", patience_seconds=patience_seconds)

    async def add_provider(self, tenant: str = "acme", **fields: Any) -> pb.IdentityProvider:
        """Bind the issuer to a tenant."""
        provider = pb.IdentityProvider(**({"issuer": self.issuer.url, "audiences": ["tollhouse"]} | fields))
        request = pb.CreateIdentityProviderRequest(
            parent=f"tenants/{tenant}", identity_provider_id="corp", identity_provider=provider
        )
        made: pb.IdentityProvider = await self.call(request)
        return made

    async def register(self, principal: str, subject: str, *, tenant: str = "acme") -> None:
        """Say that a principal is a subject of the issuer."""
        async with self.plane.database.transaction() as session:
            await run_sql(
                session,
                "UPDATE principal SET issuer = :issuer, subject = :subject"
                " WHERE tenant_id = :tenant AND principal_id = :principal",
                {"issuer": self.issuer.url, "subject": subject, "tenant": tenant, "principal": principal},
            )


@asynccontextmanager
async def identity_plane(plane: Plane, issuer: Issuer, **rules: Any) -> AsyncIterator[IdentityPlane]:
    """Let a plane take the tokens of an issuer; `rules` are more of IssuerRules."""
    clock = Clock()
    issuers = Issuers(IssuerRules(issuers={issuer.url}, **rules), clock)
    tokens = TokenDirectory(plane.database, plane.watch, issuers, max_age_seconds=3600)
    directory = Directory(plane.database, plane.watch, PEPPER, tokens=tokens)
    issuers.on_withdrawal(directory.forget)
    mutations, pages = Mutations(plane.database, b"fingerprints"), PageTokens(b"pages")
    plane.handlers["IdentityProviderService"] = IdentityProviderService(
        plane.database, mutations, pages, plane.authorizer, {issuer.url}
    )
    async with asyncio.TaskGroup() as group:
        running = group.create_task(issuers.run())
        yield IdentityPlane(plane=plane, issuer=issuer, directory=directory, clock=clock)
        running.cancel()
