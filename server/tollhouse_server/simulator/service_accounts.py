"""Service accounts, their keys, and the OAuth tokens that the simulator gives out for them.

The token endpoint is that of RFC 7523 as Google runs it
(developers.google.com/identity/protocols/oauth2/service-account).
Of a key pair only the public half is kept: the private one leaves in the credentials, and nowhere else.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tollhouse_server.simulator import errors
from tollhouse_server.simulator.errors import JsonObject

GOOGLE_TOKEN_URI = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
_TOKEN_PREFIX = "ya29."  # noqa: S105 - how Google's access tokens begin
_ASSERTION_SECONDS = 3_600
_SKEW_SECONDS = 600
_LIFETIME_SECONDS = 3_599
_GRANTS_LIMIT = 10_000
_ANY_PROJECT = "*"


class OAuthRefused(Exception):
    """The token endpoint's refusal, in OAuth's own shape."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(error)
        self.body = {"error": error, "error_description": description}


@dataclass(slots=True)
class ServiceAccount:
    """One account. `projects` are those it may call in besides its own; `*` is every project."""

    email: str
    project: str
    projects: list[str] = field(default_factory=list)
    enabled: bool = True
    token_lifetime_seconds: float = _LIFETIME_SECONDS
    keys: dict[str, str] = field(default_factory=dict)
    """private_key_id -> public key as PEM, "" when the key was disabled."""

    def may_call(self, project: str) -> bool:
        """Whether it has rights in a project."""
        return project == self.project or project in self.projects or _ANY_PROJECT in self.projects

    def shown(self) -> dict[str, Any]:
        """Give it as the admin path lists it."""
        return {
            "email": self.email,
            "project": self.project,
            "projects": self.projects,
            "enabled": self.enabled,
            "token_lifetime_seconds": self.token_lifetime_seconds,
            "keys": {key_id: bool(public) for key_id, public in self.keys.items()},
        }


@dataclass(frozen=True, slots=True)
class Grant:
    """What a bearer token stands for."""

    account: ServiceAccount
    private_key_id: str
    expires_at: float


class ServiceAccounts:
    """The registered accounts and the tokens that are out. `path` keeps the accounts over a restart."""

    def __init__(self, *, clock: Callable[[], float], path: Path | None = None) -> None:
        self._clock = clock
        self._path = path
        self._accounts: dict[str, ServiceAccount] = {}
        self._grants: dict[str, Grant] = {}
        if path is not None and path.exists():
            self._accounts = {each["email"]: ServiceAccount(**each) for each in orjson.loads(path.read_bytes())}

    async def issue_key(self, settings: Mapping[str, Any], token_uri: str) -> JsonObject:
        """Make a key, and the account when it is new, and give Google's service-account JSON for it."""
        project = str(settings["project"])
        email = settings.get("email") or f"tollhouse-{secrets.token_hex(4)}@{project}.iam.gserviceaccount.com"
        # A key pair takes a tenth of a second of CPU, in which other calls should go on.
        pair = await asyncio.to_thread(rsa.generate_private_key, public_exponent=65_537, key_size=2_048)
        account = self._accounts.setdefault(email, ServiceAccount(email, project))
        key_id = secrets.token_hex(20)
        account.keys[key_id] = _public_pem(pair)
        self.change(email, settings)
        return _credentials(account, key_id, pair, token_uri)

    def change(self, email: str, settings: Mapping[str, Any]) -> ServiceAccount:
        """Set an account's `enabled`, `projects` and `token_lifetime_seconds`; `disable_key` names a key of it."""
        account = self._accounts[email]
        account.enabled = bool(settings.get("enabled", account.enabled))
        account.projects = [str(each) for each in settings.get("projects", account.projects)]
        account.token_lifetime_seconds = float(settings.get("token_lifetime_seconds", account.token_lifetime_seconds))
        if settings.get("disable_key"):
            account.keys[settings["disable_key"]] = ""
        self._keep()
        return account

    def forget(self) -> None:
        """Forget every account; its tokens are refused from now on."""
        self._accounts.clear()
        self._grants.clear()
        self._keep()

    def revoke_tokens(self, email: str | None = None) -> None:
        """Refuse every token that is out, or those of one account; new ones are given."""
        self._grants = {token: each for token, each in self._grants.items() if email not in {None, each.account.email}}

    def all(self) -> list[ServiceAccount]:
        """Give every account."""
        return list(self._accounts.values())

    def signer_of(self, assertion: str) -> tuple[ServiceAccount, str]:
        """Say whose assertion this is, by its key's id, after checking its signature; raise OAuthRefused."""
        header, claims = _parts(assertion)
        account = self._accounts.get(str(claims.get("iss")))
        if account is None or not account.enabled:
            raise OAuthRefused("invalid_grant", "Invalid grant: account not found")
        if header.get("alg") != "RS256":
            raise OAuthRefused("invalid_grant", "Invalid JWT: algorithm must be RS256.")
        named = header.get("kid")
        for key_id in [str(named)] if named else account.keys:
            if _is_signed_by(account.keys.get(key_id, ""), assertion):
                return account, key_id
        raise OAuthRefused("invalid_grant", "Invalid JWT Signature.")

    def grant(self, assertion: str, endpoints: Iterable[str]) -> JsonObject:
        """Answer a JWT bearer grant with an access token, or raise OAuthRefused."""
        account, key_id = self.signer_of(assertion)
        claims = _parts(assertion)[1]
        now = self._clock()
        if claims.get("aud") not in {GOOGLE_TOKEN_URI, *endpoints}:
            raise OAuthRefused("invalid_grant", "Invalid JWT: Failed audience check.")
        if not _is_timely(claims, now):
            raise OAuthRefused(
                "invalid_grant",
                "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. "
                "Check your iat and exp values in the JWT claim.",
            )
        if not claims.get("scope"):
            raise OAuthRefused("invalid_scope", "Invalid OAuth scope or ID token audience provided.")
        token = _TOKEN_PREFIX + secrets.token_urlsafe(48)
        self._remember(token, Grant(account, key_id, now + account.token_lifetime_seconds))
        return {"access_token": token, "expires_in": int(account.token_lifetime_seconds), "token_type": "Bearer"}

    def admit(self, token: str, *, project: str | None, service: str) -> Grant | None:
        """Say what a bearer token stands for, None for one that was never given out, or raise a 401 or 403."""
        grant = self._grants.get(token)
        if grant is None:
            if token.startswith(_TOKEN_PREFIX):
                raise errors.token_refused(service)
            if not token.startswith("eyJ"):
                return None
            grant = self._self_signed(token, service)
        if grant.expires_at <= self._clock() or not grant.account.enabled:
            raise errors.token_refused(service)
        if project is not None and not grant.account.may_call(project):
            raise errors.project_denied(project, service)
        return grant

    def _self_signed(self, token: str, service: str) -> Grant:
        """Accept a token that an account signed itself, as Google's client libraries use by default (RFC 7519)."""
        try:
            account, key_id = self.signer_of(token)
        except OAuthRefused:
            raise errors.token_refused(service, "ACCESS_TOKEN_TYPE_UNSUPPORTED") from None
        claims = _parts(token)[1]
        audience = str(claims.get("aud", ""))
        if not _is_timely(claims, self._clock()) or not (claims.get("scope") or audience):
            raise errors.token_refused(service)
        grant = Grant(account, key_id, float(claims["exp"]))
        self._remember(token, grant)
        return grant

    def _remember(self, token: str, grant: Grant) -> None:
        if len(self._grants) >= _GRANTS_LIMIT:
            now = self._clock()
            self._grants = {token: each for token, each in self._grants.items() if each.expires_at > now}
        self._grants[token] = grant

    def _keep(self) -> None:
        if self._path is None:
            return
        stored = [each.shown() | {"keys": each.keys} for each in self._accounts.values()]
        fresh = self._path.with_suffix(".new")
        fresh.write_bytes(orjson.dumps(stored))
        fresh.replace(self._path)


def _credentials(account: ServiceAccount, key_id: str, pair: rsa.RSAPrivateKey, token_uri: str) -> JsonObject:
    private = pair.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    certificates = "https://www.googleapis.com"
    return {
        "type": "service_account",
        "project_id": account.project,
        "private_key_id": key_id,
        "private_key": private.decode(),
        "client_email": account.email,
        "client_id": str(int.from_bytes(account.email.encode(), "big") % 10**21).zfill(21),
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": token_uri,
        "auth_provider_x509_cert_url": f"{certificates}/oauth2/v1/certs",
        "client_x509_cert_url": f"{certificates}/robot/v1/metadata/x509/{account.email.replace('@', '%40')}",
        "universe_domain": "googleapis.com",
    }


def _public_pem(pair: rsa.RSAPrivateKey) -> str:
    encoded = pair.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded.decode()


def _parts(assertion: str) -> tuple[JsonObject, JsonObject]:
    try:
        header, claims = (orjson.loads(_unpadded(part)) for part in assertion.split(".")[:2])
    except (ValueError, binascii.Error):
        raise OAuthRefused("invalid_grant", "Bad Request") from None
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise OAuthRefused("invalid_grant", "Bad Request")
    return header, claims


def _is_signed_by(public_pem: str, assertion: str) -> bool:
    if not public_pem:
        return False
    key = serialization.load_pem_public_key(public_pem.encode())
    signed, _, signature = assertion.rpartition(".")
    assert isinstance(key, rsa.RSAPublicKey)  # noqa: S101 - only such keys are made here
    try:
        key.verify(_unpadded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, binascii.Error):
        return False
    return True


def _is_timely(claims: JsonObject, now: float) -> bool:
    issued, expires = claims.get("iat"), claims.get("exp")
    if not isinstance(issued, (int, float)) or not isinstance(expires, (int, float)):
        return False
    return now < expires <= issued + _ASSERTION_SECONDS and issued <= now + _SKEW_SECONDS


def _unpadded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
