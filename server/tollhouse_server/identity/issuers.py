"""The public keys of issuers: fetched beside the calls, kept, and good for a while when an issuer is down.

Only issuers that the deployment allows are ever asked, at addresses of their own host or of the deployment's list; no
redirect is followed, nothing large is read, and nothing waits long.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import orjson
import structlog

from tollhouse_server.errors import IdentityProviderUnavailable
from tollhouse_server.http_bodies import body_of
from tollhouse_server.identity.signatures import PublicKey, public_keys

if TYPE_CHECKING:
    import aiohttp

_log = structlog.get_logger(__name__)

REFRESH_SECONDS: Final = 300.0
"""How old keys may become before they are fetched anew, beside the calls."""

PAUSE_SECONDS: Final = 5.0
"""At least this long lies between two fetches of an issuer, however many unknown keys tokens name."""

FETCH_SECONDS: Final = 5.0
_MAX_BYTES: Final = 256 * 1024
_ROUND_SECONDS: Final = 20.0
_NEVER: Final = float("-inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerRules:
    """Which issuers may be asked, and where.

    `key_urls` are addresses of keys on other hosts than the issuer's; `tls` vouches for them all. Keys are good for
    `stale_seconds` after the issuer confirmed them last.
    """

    issuers: Collection[str]
    key_urls: Collection[str] = ()
    stale_seconds: float = 3600.0
    tls: ssl.SSLContext | None = None


@dataclass(slots=True)
class _Known:
    """An issuer's keys by id, when they were confirmed, and when they were last asked for, with what outcome."""

    keys: Mapping[str, PublicKey] = field(default_factory=dict)
    confirmed_at: float = _NEVER
    tried_at: float = _NEVER
    failed: bool = False
    is_due: bool = True
    answered: asyncio.Event = field(default_factory=asyncio.Event)


class _IssuerError(Exception):
    """An issuer did not answer, or not as it must; the text is for the log."""


class Issuers:
    """Knows the keys of the issuers that are wanted."""

    def __init__(self, rules: IssuerRules, clock: Callable[[], float] = time.monotonic) -> None:
        self._rules = rules
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._more = asyncio.Event()
        self._hearers: list[Callable[[], None]] = []

    def on_withdrawal(self, hear: Callable[[], None]) -> None:
        """Call `hear` whenever an issuer has no more a key that it had: what was admitted by it stands no longer."""
        self._hearers.append(hear)

    def allows(self, issuer: str) -> bool:
        """Tell whether the deployment allows an issuer."""
        return issuer in self._rules.issuers

    def want(self, issuers: Collection[str]) -> None:
        """Keep the keys of these issuers and forget those of others."""
        wanted = [issuer for issuer in issuers if self.allows(issuer)]
        self._known = {issuer: self._known.get(issuer) or _Known() for issuer in wanted}
        self._more.set()

    async def key(self, issuer: str, key_id: str, *, patience_seconds: float) -> PublicKey | None:
        """Return a key of an issuer, which is asked at once for one that is unknown; None if it has none of this id.

        Raises:
            IdentityProviderUnavailable: the issuer does not answer, and what it said before is missing or too old.
        """
        known = self._known.setdefault(issuer, _Known())
        if key_id not in known.keys:
            await self._ask(known, patience_seconds)
        if self._clock() - known.confirmed_at > self._rules.stale_seconds:
            raise IdentityProviderUnavailable
        found = known.keys.get(key_id)
        if found is None and known.failed:
            # The issuer may have this key since; who is turned away now must know that he may come back.
            raise IdentityProviderUnavailable
        return found

    async def _ask(self, known: _Known, patience_seconds: float) -> None:
        """Wait for a fetch by `run`: a caller who gives up, on purpose or not, spoils it for nobody."""
        if not known.is_due:
            if self._clock() - known.tried_at < PAUSE_SECONDS:
                return
            known.is_due, known.answered = True, asyncio.Event()
        self._more.set()
        try:
            async with asyncio.timeout(max(0.0, patience_seconds)):
                await known.answered.wait()
        except TimeoutError:
            raise IdentityProviderUnavailable from None

    async def run(self) -> None:
        """Fetch for ever: what calls ask for at once, and all wanted issuers before their keys are old."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._more.clear()
                for issuer, known in [*self._known.items()]:
                    old = self._clock() - known.confirmed_at > REFRESH_SECONDS
                    rested = self._clock() - known.tried_at >= PAUSE_SECONDS
                    if rested and (known.is_due or old):
                        known.tried_at = self._clock()
                        group.create_task(self._refresh(issuer, known))
                with suppress(TimeoutError):
                    async with asyncio.timeout(_ROUND_SECONDS):
                        await self._more.wait()

    async def _refresh(self, issuer: str, known: _Known) -> None:
        try:
            before, known.keys = known.keys, await self._fetch(issuer)
            known.confirmed_at, known.failed = self._clock(), False
            if any(known.keys.get(key_id) != key for key_id, key in before.items()):
                _log.info("issuer_key_withdrawn", issuer=issuer)
                for hear in self._hearers:
                    hear()
        except _IssuerError as error:
            known.failed = True
            _log.warning("issuer_unavailable", issuer=issuer, detail=str(error))
        finally:
            known.is_due = False
            known.answered.set()

    async def _fetch(self, issuer: str) -> Mapping[str, PublicKey]:
        import aiohttp  # noqa: PLC0415 - loaded before, where there are issuers; see wiring/identity.py

        connector = aiohttp.TCPConnector(ssl=self._rules.tls or True)
        timeout = aiohttp.ClientTimeout(total=FETCH_SECONDS)
        jar = aiohttp.DummyCookieJar()
        try:
            async with aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=jar) as session:
                document = await _read(session, issuer.rstrip("/") + "/.well-known/openid-configuration")
                if document.get("issuer") != issuer:
                    raise _IssuerError("its discovery document is another issuer's")
                keys = public_keys(await _read(session, self._key_url(issuer, document.get("jwks_uri"))))
        except aiohttp.ClientError as error:
            raise _IssuerError(type(error).__name__) from error
        if not keys:
            raise _IssuerError("it has no key that can be used")
        return keys

    def _key_url(self, issuer: str, url: object) -> str:
        """Return the address of an issuer's keys: at its own host, by its own scheme, or on the deployment's list."""
        if not isinstance(url, str):
            raise _IssuerError("its discovery document names no jwks_uri")
        try:
            own, found = urlsplit(issuer), urlsplit(url)
            same = (found.scheme, found.netloc.lower()) == (own.scheme, own.netloc.lower())
        except ValueError:
            same = False
        if not same and url not in self._rules.key_urls:
            raise _IssuerError("its jwks_uri is at another host, which the deployment does not allow")
        return url


async def _read(session: "aiohttp.ClientSession", url: str) -> dict[str, Any]:
    """Return the JSON object at an address; raises _IssuerError or aiohttp.ClientError where it cannot be had."""
    try:
        async with session.get(url, allow_redirects=False, headers={"accept": "application/json"}) as response:
            if response.status != 200:
                raise _IssuerError(f"it answered {response.status}")
            body = await body_of(response, most_bytes=_MAX_BYTES + 1)
        if len(body) > _MAX_BYTES:
            raise _IssuerError(f"it answered with more than {_MAX_BYTES} bytes")
        document = orjson.loads(body)
    except (TimeoutError, OSError, ValueError) as error:
        raise _IssuerError(type(error).__name__) from error
    if not isinstance(document, dict):
        raise _IssuerError("it answered with no JSON object")
    return document
