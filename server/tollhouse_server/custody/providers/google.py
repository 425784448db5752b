"""Google's API Keys API, through its client library; the simulator offers the same API at another address.

A key's id is chosen by us and unique in its project, so issuing twice makes one key (cloud.google.com/api-keys/docs,
CreateKeyRequest.key_id, read November 2026).
"""

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import quote, quote_plus, urlsplit

from google.api_core import exceptions
from google.auth import exceptions as auth_exceptions
from google.oauth2.credentials import Credentials

from tollhouse_server.custody.providers.manual import SecretReader
from tollhouse_server.custody.providers.protocol import IssuedKey, KeyOrder
from tollhouse_server.errors import KeyProviderFailed, SecretMissing
from tollhouse_server.telemetry.redaction import REDACTED, redacted
from tollhouse_server.upstream.protocol import NotSent, Refused
from tollhouse_server.vault.secret_text import SecretText

CREDENTIAL_FIELD: Final = "credential"
DEFAULT_ENDPOINT: Final = "https://apikeys.googleapis.com"
_TARGET: Final = "generativelanguage.googleapis.com"
_CALL_SECONDS: Final = 10.0
_OPERATION_SECONDS: Final = 25.0
_NAME_PREFIX: Final = "Tollhouse "
_FAILURES: Final = (
    exceptions.GoogleAPIError,
    auth_exceptions.GoogleAuthError,
    OSError,
    TimeoutError,
    ValueError,
)

Answer = TypeVar("Answer")


def credential_path(account_id: str) -> str:
    """Return where the service account that may manage an account's keys lies below the secrets mount."""
    return f"custody/{account_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeysAddress:
    """Which API. `token` is what an account without a service account in Vault shows; the simulator takes any."""

    endpoint: str = DEFAULT_ENDPOINT
    token: str = ""
    provider: str = "GOOGLE"


class Bearers(Protocol):
    """Gives access tokens for service accounts' keys; `upstream.tokens.AccessTokens` is one.

    google-auth's own would ask hosts that no setting names for the regions that an account may be used in.
    """

    async def bearer(self, key: str, *, egress_url: str, timeout_seconds: float) -> str:
        """Return the token that stands behind "Bearer" for a key; raises Refused or NotSent."""


class ApiKeysProvider:
    """Issues API keys in the account's Google Cloud project. Calls block, so they go to threads."""

    def __init__(self, vault: SecretReader, bearers: Bearers, address: ApiKeysAddress = ApiKeysAddress()) -> None:
        self._vault = vault
        self._bearers = bearers
        self._address = address

    async def find(self, order: KeyOrder) -> IssuedKey | None:
        """Return the key of the order's id, unless it was deleted.

        Raises:
            KeyProviderFailed: see `protocol`.
        """
        return await self._call(order, lambda client: _find(client, _resource(order)))

    async def issue(self, order: KeyOrder) -> IssuedKey | None:
        """Create the key, good for Gemini alone; one that is there already is returned.

        Raises:
            KeyProviderFailed: see `protocol`.
        """
        return await self._call(order, lambda client: _issue(client, order))

    async def retire(self, order: KeyOrder, *, provider_key: str, secret: SecretText | None) -> bool:
        """Delete a key; one that came by hand is looked for by its secret.

        Raises:
            KeyProviderFailed: see `protocol`.
        """
        return await self._call(order, lambda client: _retire(client, provider_key, secret), secret=secret)

    async def strays(self, order: KeyOrder, *, ended: Collection[str]) -> tuple[str, ...]:
        """Return keys that we have issued and that live although their ids are among the ended ones.

        Raises:
            KeyProviderFailed: see `protocol`.
        """
        return await self._call(order, lambda client: _strays(client, _parent(order), frozenset(ended)))

    async def _call(
        self, order: KeyOrder, work: Callable[[Any], Answer], *, secret: SecretText | None = None
    ) -> Answer:
        if not order.project:
            raise self._failed(f"account {order.account_id} names no Google Cloud project")
        bearer = await self._bearer(order.account_id)
        try:
            return await asyncio.to_thread(lambda: work(self._client(bearer)))
        except _FAILURES as error:
            # Not `from error`: its own text has the whole URL, and with it the key that is looked up.
            raise self._failed(_told(error, bearer, secret.reveal() if secret is not None else "")) from None

    async def _bearer(self, account_id: str) -> str:
        path = credential_path(account_id)
        try:
            credential = (await self._vault.read_secret(path)).get(CREDENTIAL_FIELD)
        except SecretMissing:
            credential = self._address.token
        if not credential:
            raise SecretMissing(path=path)
        try:
            return await self._bearers.bearer(credential, egress_url="", timeout_seconds=_CALL_SECONDS)
        except Refused as error:
            told = redacted(str(error.error.get("message", error)))
            raise self._failed(f"no access token for the service account: {told}") from error
        except NotSent as error:
            raise self._failed(f"no access token for the service account: {error}") from error

    def _client(self, bearer: str) -> Any:
        # Importing it takes half a second, which only a process that rotates keys should pay.
        from google.cloud.api_keys_v2 import ApiKeysClient  # noqa: PLC0415
        from google.cloud.api_keys_v2.services.api_keys.transports.rest import ApiKeysRestTransport  # noqa: PLC0415

        where = urlsplit(self._address.endpoint)
        credentials = Credentials(token=bearer)  # type: ignore[no-untyped-call]
        transport = ApiKeysRestTransport(host=where.netloc, url_scheme=where.scheme, credentials=credentials)
        return ApiKeysClient(transport=transport)

    def _failed(self, detail: str) -> KeyProviderFailed:
        return KeyProviderFailed(provider=self._address.provider, detail=detail)


def _parent(order: KeyOrder) -> str:
    return f"projects/{order.project}/locations/global"


def _resource(order: KeyOrder) -> str:
    return f"{_parent(order)}/keys/{order.key_id}"


def _live(client: Any, name: str) -> Any:
    """The key's metadata, None where there is none or it was deleted (Google keeps those for 30 days)."""
    try:
        # Here as below, no retry of the library's own: ours are paced by the rotation, and told of.
        key = client.get_key(name=name, timeout=_CALL_SECONDS, retry=None)
    except exceptions.NotFound:
        return None
    return None if key.delete_time else key


def _find(client: Any, name: str) -> IssuedKey | None:
    key = _live(client, name)
    if key is None:
        return None
    held = client.get_key_string(name=key.name, timeout=_CALL_SECONDS, retry=None)
    return IssuedKey(provider_key=key.name, secret=SecretText(held.key_string))


def _issue(client: Any, order: KeyOrder) -> IssuedKey | None:
    key = {
        "display_name": f"{_NAME_PREFIX}{order.key_id}",
        "restrictions": {"api_targets": [{"service": _TARGET}]},
    }
    request = {"parent": _parent(order), "key": key, "key_id": order.key_id}
    # Conflict: another process was quicker, or this one before it crashed.
    with suppress(exceptions.Conflict):
        client.create_key(request=request, timeout=_CALL_SECONDS, retry=None).result(timeout=_OPERATION_SECONDS)
    found = _find(client, _resource(order))
    if found is None:
        raise exceptions.NotFound(f"{_resource(order)} was created and is not there")  # type: ignore[no-untyped-call]
    return found


def _retire(client: Any, provider_key: str, secret: SecretText | None) -> bool:
    name = provider_key or _name_of(client, secret)
    key = _live(client, name) if name else None
    if key is not None:
        # NotFound: deleted by another process between the two calls.
        with suppress(exceptions.NotFound):
            client.delete_key(name=key.name, timeout=_CALL_SECONDS, retry=None).result(timeout=_OPERATION_SECONDS)
    return True


def _name_of(client: Any, secret: SecretText | None) -> str:
    if secret is None:
        return ""
    try:
        asked = {"key_string": secret.reveal()}
        return str(client.lookup_key(request=asked, timeout=_CALL_SECONDS, retry=None).name)
    except exceptions.NotFound:
        return ""


def _strays(client: Any, parent: str, ended: frozenset[str]) -> tuple[str, ...]:
    keys = client.list_keys(parent=parent, timeout=_CALL_SECONDS, retry=None)
    return tuple(
        key.name for key in keys if key.name.rpartition("/")[2] in ended and key.display_name.startswith(_NAME_PREFIX)
    )


def _told(error: BaseException, *secrets: str) -> str:
    """What of an error may be shown: Google's messages can repeat what was sent, and its library adds the URL."""
    if not isinstance(error, exceptions.GoogleAPICallError):
        return type(error).__name__
    text = f"{type(error).__name__}: {error.message}"
    for writing in {writing for secret in secrets if secret for writing in (secret, quote(secret), quote_plus(secret))}:
        text = text.replace(writing, REDACTED)
    return redacted(text)[:500]
