"""Access tokens for service accounts: an assertion signed with the account's key is exchanged for a bearer token.

The exchange is RFC 7523 as Google runs it (developers.google.com/identity/protocols/oauth2/service-account).
google-auth signs; the request goes out here, because google-auth's own asks the environment for a proxy and repeats
itself.
"""

import asyncio
import hashlib
import re
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from tollhouse_server.upstream.http import Transport
from tollhouse_server.upstream.keys import UnusableKeyError, is_json, service_account
from tollhouse_server.upstream.protocol import Broken, NotSent, Refused
from tollhouse_server.upstream.refusal_bodies import read_refusal

GOOGLE_TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_ASSERTION_SECONDS = 3600
_RENEW_SECONDS = 300.0
"""So long before its end a token is replaced, while calls still go out with the old one."""
_UNUSABLE_SECONDS = 10.0
"""So long before its end a token is used no more: a call must not arrive with one that has just ended."""
_RETRY_SECONDS = 5.0
_EXCHANGE_SECONDS = 10.0
_MAX_TOKENS = 1000
_REASON = re.compile("[a-z_]{1,40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    """A bearer token, with moments of the tokens' clock."""

    value: str
    obtained_at: float
    expires_at: float


@dataclass(slots=True)
class _Entry:
    """What is known of one key: its token, the exchange under way, and when the next may begin."""

    token: _Token | None = None
    exchange: asyncio.Task[_Token] | None = None
    not_before: float = 0.0


class AccessTokens:
    """The tokens of one process, in memory only, and the exchanges under way, which end with `close` at the latest.

    `token_urls` are the only addresses that a key's signature is shown to.
    """

    def __init__(
        self, transport: Transport, *, token_urls: Collection[str], clock: Callable[[], float] = time.time
    ) -> None:
        self._transport = transport
        self._token_urls = frozenset(token_urls)
        self._clock = clock
        # By the keys' digests: a key that was rotated away must not stay in memory.
        self._entries: dict[bytes, _Entry] = {}

    async def bearer(self, key: str, *, egress_url: str, timeout_seconds: float) -> str:
        """Return what stands behind "Bearer" for a key: a token for a service account's JSON, else the key itself.

        Raises:
            Refused: the key is no service account's, names a token server that is not allowed, or was refused (401).
            NotSent: the token server cannot be reached, or has a trouble of its own.
        """
        if not is_json(key):
            return key.strip()
        entry = self._entry(key)
        now = self._clock()
        token = entry.token
        if token is not None and now < token.expires_at - _RENEW_SECONDS:
            return token.value
        exchange = entry.exchange
        if exchange is None and now >= entry.not_before:
            exchange = asyncio.create_task(self._exchange(key, egress_url))
            entry.exchange = exchange
            exchange.add_done_callback(lambda ended: self._exchanged(entry, ended))
        if token is not None and now < token.expires_at - _UNUSABLE_SECONDS:
            return token.value
        if exchange is None:
            raise NotSent("the token server could not be used just now")
        try:
            async with asyncio.timeout(timeout_seconds):
                # All calls with this key wait for the one exchange; a call that is cancelled does not end it.
                return (await asyncio.shield(exchange)).value
        except TimeoutError:
            raise NotSent("no access token in time") from None

    def renewable(self, key: str, token: str, *, used_since: float) -> bool:
        """Forget a key's token that the upstream refused, and tell whether another one may do better.

        A token can be revoked while its key is in order; but one obtained after `used_since`, for the very call that
        was refused, says that the key is not.
        """
        entry = self._entries.get(_digest(key)) if is_json(key) else None
        if entry is None:
            return False
        if entry.token is None or entry.token.value != token:
            return True
        was_held = entry.token.obtained_at < used_since
        entry.token = None
        return was_held

    @property
    def now(self) -> float:
        """Return the moment of the tokens' clock."""
        return self._clock()

    async def close(self) -> None:
        """End the exchanges under way."""
        tasks = [entry.exchange for entry in self._entries.values() if entry.exchange is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _entry(self, key: str) -> _Entry:
        digest = _digest(key)
        entry = self._entries.get(digest)
        if entry is None:
            if len(self._entries) >= _MAX_TOKENS:
                self._forget_idle()
            entry = self._entries[digest] = _Entry()
        return entry

    def _forget_idle(self) -> None:
        """Forget the keys that no call has used for a token's life: rotated away, most likely."""
        now = self._clock()
        self._entries = {
            digest: entry
            for digest, entry in self._entries.items()
            if entry.exchange is not None or (entry.token is not None and entry.token.expires_at > now)
        }

    def _exchanged(self, entry: _Entry, task: asyncio.Task[_Token]) -> None:
        entry.exchange = None
        if task.cancelled():
            return
        if task.exception() is None:
            entry.token = task.result()
        elif entry.token is not None:
            # The old token still serves; asking at every call would only add to the token server's trouble.
            entry.not_before = self._clock() + _RETRY_SECONDS

    async def _exchange(self, key: str, egress_url: str) -> _Token:
        account = _account(key, self._token_urls)
        asked_at = self._clock()
        assertion = await asyncio.to_thread(_assertion, account, int(asked_at))
        form = urlencode({"assertion": assertion, "grant_type": _GRANT}).encode()
        try:
            async with self._transport.exchange(
                "POST",
                account["token_uri"],
                headers={"content-type": "application/x-www-form-urlencoded"},
                body=form,
                timeout_seconds=_EXCHANGE_SECONDS,
                egress_url=egress_url,
            ) as answer:
                status, body = answer.status, await read_refusal(answer)
        except Broken as error:
            # The model was asked nothing: however the exchange broke, the call was not sent.
            raise NotSent(f"no access token: {error}") from error
        return _token(status, body, asked_at)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _account(key: str, token_urls: Collection[str]) -> Mapping[str, Any]:
    try:
        account = service_account(key)
    except UnusableKeyError as error:
        raise _refused(str(error)) from None
    if account["token_uri"] not in token_urls:
        raise _refused("the key names a token server that the settings do not allow")
    return account


def _assertion(account: Mapping[str, Any], issued_at: int) -> str:
    """Sign a claim to the account, a millisecond of CPU; google-auth is loaded by the first, a tenth of a second.

    Raises:
        Refused: the private key is none.
    """
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from google.auth import crypt, jwt  # noqa: PLC0415

    claims = {
        "iss": account["client_email"],
        "scope": _SCOPE,
        # The same whatever the token server's address, so that a relay can stand before it.
        "aud": GOOGLE_TOKEN_URL,
        "iat": issued_at,
        "exp": issued_at + _ASSERTION_SECONDS,
    }
    try:
        signer = crypt.RSASigner.from_service_account_info(account)  # type: ignore[no-untyped-call]
        return str(jwt.encode(signer, claims).decode())  # type: ignore[no-untyped-call]
    except (ValueError, TypeError, AttributeError, UnsupportedAlgorithm):
        # No key, one of another kind, or one behind a password.
        raise _refused("the key's private key cannot be used") from None


def _token(status: int, body: Mapping[str, Any], asked_at: float) -> _Token:
    if status == 200:
        value, seconds = body.get("access_token"), body.get("expires_in")
        if not isinstance(value, str) or not value or not isinstance(seconds, int | float):
            raise NotSent("the token server's answer has no access token")
        return _Token(value=value, obtained_at=asked_at, expires_at=asked_at + seconds)
    reason = body.get("error")
    if status in {400, 401, 403} and isinstance(reason, str):
        # One of the words of RFC 6749, 5.2; what else stands there may be the assertion.
        named = f": {reason}" if _REASON.fullmatch(reason) else ""
        raise _refused(f"the token server refused the key{named}")
    raise NotSent(f"the token server answered {status}")


def _refused(message: str) -> Refused:
    """Return the refusal of a key as the upstream itself would put it."""
    return Refused(401, {"error": {"code": 401, "message": message, "status": "UNAUTHENTICATED"}})
