"""Tokens of identity providers: from a JWT to the principal behind it."""

import hashlib
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import EpochWatch, Topic
from tollhouse_server.errors import CredentialsInvalid, Fault
from tollhouse_server.identity.issuers import Issuers
from tollhouse_server.identity.presented import Admission
from tollhouse_server.identity.principal import Principal
from tollhouse_server.identity.provider_store import Found, Provider, active_providers, find_subject
from tollhouse_server.identity.signatures import check_signature, take_apart
from tollhouse_server.names import IdentityProviderName

_MAX_SUBJECT_CHARACTERS: Final = 255
_MAX_GROUPS: Final = 2000
_DIGEST_CHARACTERS: Final = 32


class TokenDirectory:
    """Proves tokens by the providers that the tenants have; an issuer and an audience lead to one of them."""

    def __init__(
        self, database: Database, epoch_watch: EpochWatch, issuers: Issuers, *, max_age_seconds: float
    ) -> None:
        self._database = database
        self._issuers = issuers
        self._max_age_seconds = max_age_seconds
        self._providers: Mapping[tuple[str, str], Provider] = {}
        epoch_watch.on_change(Topic.IDENTITY, self._reload)

    async def prove(self, token: str, *, patience_seconds: float) -> Admission:
        """Return what a token is admitted on.

        Raises:
            CredentialsInvalid: whatever is wrong with it.
            IdentityProviderUnavailable: the keys of its issuer are not known.
            StoreUnavailable: PostgreSQL is gone.
        """
        taken = take_apart(token)
        provider = self._provider_of(taken.claims)
        expires_at = _valid_until(taken.claims, provider.clock_skew_seconds, self._max_age_seconds)
        key = await self._issuers.key(provider.issuer, taken.key_id, patience_seconds=patience_seconds)
        if key is None:
            raise CredentialsInvalid(fault=Fault.SIGNING_KEY)
        check_signature(taken, key)
        return Admission(principal=await self._principal(provider, taken.claims), expires_at=expires_at)

    def _provider_of(self, claims: Mapping[str, Any]) -> Provider:
        """Return the one provider that a token is for; what is for several is for none."""
        issuer, audience = claims.get("iss"), claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        found = {
            id(provider): provider
            for one in audiences
            if isinstance(one, str) and isinstance(issuer, str)
            if (provider := self._providers.get((issuer, one))) is not None
        }
        if len(found) != 1:
            raise CredentialsInvalid(fault=Fault.UNKNOWN)
        return next(iter(found.values()))

    async def _principal(self, provider: Provider, claims: Mapping[str, Any]) -> Principal:
        subject = claims.get(provider.subject_claim)
        if not isinstance(subject, str) or not 0 < len(subject) <= _MAX_SUBJECT_CHARACTERS or "\0" in subject:
            raise CredentialsInvalid(fault=Fault.CLAIMS)
        groups, project = _groups(provider, claims), _project(provider, claims)
        async with self._database.transaction() as session:
            found = await find_subject(session, provider, subject, project)
        if not found.is_tenant_active:
            raise CredentialsInvalid(fault=Fault.PRINCIPAL)
        if project and found.project_id is None:
            raise CredentialsInvalid(fault=Fault.CLAIMS)
        return Principal(
            tenant_id=provider.tenant_id,
            principal_id=_principal_id(provider, found, subject, groups),
            credential_id=f"oidc:{provider.provider_id}",
            credential_name=str(IdentityProviderName(provider.tenant_id, provider.provider_id)),
            project_id=found.project_id,
            department_ids=found.path,
            environment=provider.environment,
            groups=groups,
        )

    async def _reload(self) -> Callable[[], None]:
        async with self._database.transaction() as session:
            providers = [one for one in await active_providers(session) if self._issuers.allows(one.issuer)]
        return partial(self._put_in_force, providers)

    def _put_in_force(self, providers: list[Provider]) -> None:
        self._providers = {(one.issuer, audience): one for one in providers for audience in one.audiences}
        self._issuers.want({one.issuer for one in providers})


def _principal_id(provider: Provider, found: Found, subject: str, groups: tuple[str, ...]) -> str:
    """Return the registered principal's id, or one made of the subject where its groups alone admit it.

    Raises:
        CredentialsInvalid: nobody is registered and groups admit nobody, or who is registered is not active.
    """
    if found.principal_id is not None and found.is_principal_active:
        return found.principal_id
    if found.principal_id is not None or not (provider.admits_groups and groups):
        raise CredentialsInvalid(fault=Fault.PRINCIPAL)
    digest = hashlib.sha256(f"{provider.issuer}\0{subject}".encode()).hexdigest()
    return f"oidc-{digest[:_DIGEST_CHARACTERS]}"


def _valid_until(claims: Mapping[str, Any], skew_seconds: float, max_age_seconds: float) -> float:
    """Return until when a token is good, in seconds of Unix time.

    Raises:
        CredentialsInvalid: it is not good now, or does not say from when until when it is.
    """
    now = time.time()
    expires_at, issued_at = _moment(claims, "exp"), _moment(claims, "iat")
    begins_at = max(issued_at, _moment(claims, "nbf") if "nbf" in claims else issued_at)
    if begins_at > now + skew_seconds:
        raise CredentialsInvalid(fault=Fault.NOT_YET_VALID)
    ends_at = min(expires_at, issued_at + max_age_seconds) + skew_seconds
    if ends_at <= now:
        raise CredentialsInvalid(fault=Fault.EXPIRED)
    return ends_at


def _moment(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CredentialsInvalid(fault=Fault.CLAIMS)
    return float(value)


def _groups(provider: Provider, claims: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the ids of the tenant's groups that a token's claim stands for."""
    value = claims.get(provider.groups_claim) if provider.groups_claim else None
    named = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    found = {provider.groups[name] for name in named[:_MAX_GROUPS] if isinstance(name, str) and name in provider.groups}
    return tuple(sorted(found))


def _project(provider: Provider, claims: Mapping[str, Any]) -> str:
    """Return the id of the project that a token names, empty if it names none."""
    value = claims.get(provider.project_claim) if provider.project_claim else None
    if value is None:
        return ""
    if not isinstance(value, str) or not value or "\0" in value:
        raise CredentialsInvalid(fault=Fault.CLAIMS)
    return value
