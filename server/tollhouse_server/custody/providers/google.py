"""Google's API Keys API, through its client library; the simulator offers the same API at another address.

A key's id is chosen by us and unique in its project, so issuing twice makes one key (cloud.google.com/api-keys/docs,
CreateKeyRequest.key_id, read November 2026).
"""

import asyncio
import json
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from google.api_core import exceptions
from google.auth import credentials as google_credentials
from google.auth import exceptions as auth_exceptions
from google.oauth2 import credentials as user_credentials
from google.oauth2 import service_account

from tollhouse_server.custody.providers.manual import SecretReader
from tollhouse_server.custody.providers.protocol import IssuedKey, KeyOrder
from tollhouse_server.errors import KeyProviderFailed, SecretMissing
from tollhouse_server.telemetry.redaction import redacted
from tollhouse_server.vault.secret_text import SecretText

CREDENTIAL_FIELD: Final = "credential"
DEFAULT_ENDPOINT: Final = "https://apikeys.googleapis.com"
_SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)
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
    token_endpoint: str = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
    token: str = ""
    provider: str = "GOOGLE"


class ApiKeysProvider:
    """Issues API keys in the account's Google Cloud project. Calls block, so they go to threads."""

    def __init__(self, vault: SecretReader, address: ApiKeysAddress = ApiKeysAddress()) -> None:
        self._vault = vault
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
        return await self._call(order, lambda client: _retire(client, provider_key, secret))

    async def strays(self, order: KeyOrder, *, ended: Collection[str]) -> tuple[str, ...]:
        """Return keys that we have issued and that live although their ids are among the ended ones.

        Raises:
            KeyProviderFailed: see `protocol`.
        """
        return await self._call(order, lambda client: _strays(client, _parent(order), frozenset(ended)))

    async def _call(self, order: KeyOrder, work: Callable[[Any], Answer]) -> Answer:
        if not order.project:
            raise self._failed(f"account {order.account_id} names no Google Cloud project")
        try:
            credentials = await self._credentials(order.account_id)
            return await asyncio.to_thread(lambda: work(self._client(credentials)))
        except _FAILURES as error:
            raise self._failed(_told(error)) from error

    async def _credentials(self, account_id: str) -> google_credentials.Credentials:
        path = credential_path(account_id)
        try:
            fields = await self._vault.read_secret(path)
        except SecretMissing:
            if not self._address.token:
                raise
            return user_credentials.Credentials(token=self._address.token)  # type: ignore[no-untyped-call]
        if CREDENTIAL_FIELD not in fields:
            raise SecretMissing(path=path)
        try:
            # Where tokens come from is the deployment's to say, not a credential's.
            facts = json.loads(fields[CREDENTIAL_FIELD]) | {"token_uri": self._address.token_endpoint}
            made: google_credentials.Credentials = service_account.Credentials.from_service_account_info(  # type: ignore[no-untyped-call]
                facts, scopes=_SCOPES
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            # Not `from`: what cannot be parsed may be the secret itself.
            raise self._failed(f"what lies at {path} in Vault is not a service account's key") from None
        return made

    def _client(self, credentials: google_credentials.Credentials) -> Any:
        # Importing it takes half a second, which only a process that rotates keys should pay.
        from google.cloud.api_keys_v2 import ApiKeysClient  # noqa: PLC0415
        from google.cloud.api_keys_v2.services.api_keys.transports.rest import ApiKeysRestTransport  # noqa: PLC0415

        where = urlsplit(self._address.endpoint)
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


def _told(error: BaseException) -> str:
    """What of an error may be shown: Google's messages can repeat what was sent."""
    if isinstance(error, exceptions.GoogleAPICallError):
        return redacted(f"{type(error).__name__}: {error.message}")[:500]
    return type(error).__name__
