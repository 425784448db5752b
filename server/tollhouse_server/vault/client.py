"""Secrets and signatures from Vault, for asyncio: calls go to threads, the token is kept alive in the background."""

import asyncio
import base64
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import structlog

from tollhouse_server.errors import InvalidRequest, SecretMissing, TollhouseError, VaultDenied, VaultUnavailable
from tollhouse_server.vault.approle import AppRoleFiles
from tollhouse_server.vault.connection import Connection, Operation, VaultAddress
from tollhouse_server.vault.lease import Lease
from tollhouse_server.vault.paths import SECRETS_MOUNT, TRANSIT_MOUNT
from tollhouse_server.vault.secret_text import SecretFields, SecretText

# Threads that a slow Vault may hold; asyncio's own pool is shared with everything else.
CALLS_AT_ONCE = 4
RETRY_SECONDS = 2.0

Answer = TypeVar("Answer")
Arguments = ParamSpec("Arguments")
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mounts:
    """Where the engines are mounted."""

    secrets: str = SECRETS_MOUNT
    transit: str = TRANSIT_MOUNT


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A detached signature, and which version of the key in Vault made it."""

    key: str
    key_version: int
    value: bytes


class VaultClient:
    """One AppRole's view of Vault. Paths are below the secrets mount, as in `paths`.

    Raises:
        VaultUnavailable: from every method that asks Vault: it is stopped, sealed or slow.
        VaultDenied: likewise: the role may not do this, or cannot log in.
    """

    def __init__(self, address: VaultAddress, approle: AppRoleFiles, mounts: Mounts = Mounts()) -> None:
        """Prepare; logs in on the first call."""
        self._connection = Connection(address)
        self._approle = approle
        self._mounts = mounts
        # hvac's requests time out on connecting and on each read; this bounds both and a hanging name look-up.
        self._patience_seconds = address.timeout_seconds * 2 + 1
        self._places = asyncio.Semaphore(CALLS_AT_ONCE)
        self._logging_in = asyncio.Lock()
        self._session: tuple[str, Lease] | None = None

    async def run(self) -> None:
        """Keep the token alive until cancelled: renew in time, log in again when renewing ends or fails."""
        while True:
            try:
                await self._keep_alive()
            except TollhouseError as error:
                # Not fatal: whoever reads secrets sees the same error, and keys already held keep serving.
                _log.warning("vault_token_not_renewed", error=type(error).__name__, reason=error.reason)
                await asyncio.sleep(RETRY_SECONDS)

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.to_thread(self._connection.close)

    async def unwrapped_secret_id(self) -> SecretText | None:
        """Return the secret_id if the file holds a wrapping token, for the processes that this one starts; else None.

        Raises:
            VaultDenied: the file cannot be read, or its token was used already, has expired or is for something else.
        """
        return await self._in_thread(self._connection.wrapped_secret_id, self._approle)

    async def probe(self) -> None:
        """Return if Vault is there, unsealed, and takes our token."""
        await self._call(lambda client: client.auth.token.lookup_self(), "auth/token/lookup-self")

    async def token_seconds_left(self) -> float:
        """Return for how long Vault takes our token unless it is renewed; logs in again where it takes it no more."""
        found = await self._call(lambda client: client.auth.token.lookup_self(), "auth/token/lookup-self")
        return float(found["data"]["ttl"])

    async def read_secret(self, path: str, *, version: int | None = None) -> SecretFields:
        """Return the secret at `path`, its newest version or the one asked for.

        Raises:
            SecretMissing: there is none.
        """

        def operation(client: Any) -> Any:
            return client.secrets.kv.v2.read_secret_version(
                path, version=version, mount_point=self._mounts.secrets, raise_on_deleted_version=True
            )

        found = (await self._call(operation, path))["data"]
        return SecretFields(found["data"], version=found["metadata"]["version"])

    async def write_secret(self, path: str, values: Mapping[str, str], *, cas: int) -> int:
        """Write a new version if the current one is `cas` (0: none exists yet), and return its number.

        Raises:
            EtagMismatch: another version is the current one.
        """

        def operation(client: Any) -> Any:
            return client.secrets.kv.v2.create_or_update_secret(
                path, dict(values), cas=cas, mount_point=self._mounts.secrets
            )

        return int((await self._call(operation, path))["data"]["version"])

    async def delete_secret(self, path: str) -> None:
        """Destroy every version for good. Does nothing when there is none."""
        await self._call(
            lambda client: client.secrets.kv.v2.delete_metadata_and_all_versions(
                path, mount_point=self._mounts.secrets
            ),
            path,
        )

    async def list_secrets(self, path: str) -> tuple[str, ...]:
        """Return the names below `path`, folders with a trailing slash; empty when there is nothing."""
        try:
            found = await self._call(
                lambda client: client.secrets.kv.v2.list_secrets(path, mount_point=self._mounts.secrets), path
            )
        except SecretMissing:
            return ()
        return tuple(found["data"]["keys"])

    async def sign(self, key: str, payload: bytes) -> Signature:
        """Return a signature of `payload` with the transit key.

        Raises:
            SecretMissing: there is no such key.
        """

        def operation(client: Any) -> Any:
            return client.secrets.transit.sign_data(key, hash_input=_base64(payload), mount_point=self._mounts.transit)

        try:
            answer = await self._call(operation, f"{self._mounts.transit}/sign/{key}")
        except InvalidRequest as error:
            raise SecretMissing(path=f"{self._mounts.transit}/keys/{key}") from error
        # vault:v<version>:<base64>
        _, version, value = answer["data"]["signature"].split(":")
        return Signature(key=key, key_version=int(version[1:]), value=base64.b64decode(value))

    async def verify(self, signature: Signature, payload: bytes) -> bool:
        """Tell whether the transit key made this signature of `payload`.

        Raises:
            InvalidRequest: there is no such key, or it never had that version.
        """
        text = f"vault:v{signature.key_version}:{_base64(signature.value)}"

        def operation(client: Any) -> Any:
            return client.secrets.transit.verify_signed_data(
                signature.key, hash_input=_base64(payload), signature=text, mount_point=self._mounts.transit
            )

        return bool((await self._call(operation, f"{self._mounts.transit}/verify/{signature.key}"))["data"]["valid"])

    async def public_keys(self, key: str) -> Mapping[int, bytes]:
        """Return the raw public keys (Ed25519: 32 bytes) of a transit key by version, for verifying without Vault.

        Raises:
            SecretMissing: there is no such key.
        """
        answer = await self._call(
            lambda client: client.secrets.transit.read_key(key, mount_point=self._mounts.transit),
            f"{self._mounts.transit}/keys/{key}",
        )
        versions = answer["data"]["keys"]
        return {int(version): base64.b64decode(entry["public_key"]) for version, entry in versions.items()}

    async def make_wrapping_key(self, key: str) -> None:
        """Make a transit key that wraps others (AES-256-GCM), unless there is one; it cannot be exported."""
        await self._call(
            lambda client: client.secrets.transit.create_key(
                key, key_type="aes256-gcm96", mount_point=self._mounts.transit
            ),
            f"{self._mounts.transit}/keys/{key}",
        )

    async def destroy_wrapping_key(self, key: str) -> None:
        """Destroy a transit key: what it has wrapped is never readable again. Does nothing when there is none."""
        path = f"{self._mounts.transit}/keys/{key}"
        try:
            await self._call(
                lambda client: client.secrets.transit.read_key(key, mount_point=self._mounts.transit), path
            )
        except SecretMissing:
            return

        def operation(client: Any) -> Any:
            # Only now: a key that nobody wants destroyed cannot be deleted by mistake.
            client.secrets.transit.update_key_configuration(
                key, deletion_allowed=True, mount_point=self._mounts.transit
            )
            return client.secrets.transit.delete_key(key, mount_point=self._mounts.transit)

        await self._call(operation, path)

    async def new_wrapped_key(self, key: str) -> tuple[SecretText, bytes]:
        """Return a new random key (Base64 of 32 bytes), and the same wrapped by a transit key.

        Raises:
            InvalidRequest: there is no such transit key.
        """
        answer = await self._call(
            lambda client: client.secrets.transit.generate_data_key(
                key, key_type="plaintext", mount_point=self._mounts.transit
            ),
            f"{self._mounts.transit}/datakey/plaintext/{key}",
        )
        return SecretText(answer["data"]["plaintext"]), answer["data"]["ciphertext"].encode()

    async def unwrap_key(self, key: str, wrapped: bytes) -> SecretText:
        """Return what a transit key has wrapped (Base64).

        Raises:
            InvalidRequest: there is no such transit key, or it is another one than that which wrapped this.
        """
        answer = await self._call(
            lambda client: client.secrets.transit.decrypt_data(
                key, ciphertext=wrapped.decode(), mount_point=self._mounts.transit
            ),
            f"{self._mounts.transit}/decrypt/{key}",
        )
        return SecretText(answer["data"]["plaintext"])

    async def _call(self, operation: Operation[Answer], path: str) -> Answer:
        token = await self._token()
        try:
            return await self._with_token(token, operation, path)
        except VaultDenied:
            # 403 is also the answer to a dead token (revoked, or Vault restored from a backup): only then log in again.
            if await self._token_holds(token):
                raise
        return await self._with_token(await self._token(refused=token), operation, path)

    async def _with_token(self, token: str, operation: Operation[Answer], path: str) -> Answer:
        client = self._connection.client(token)
        return await self._in_thread(self._connection.call, client, operation, path)

    async def _token_holds(self, token: str) -> bool:
        try:
            await self._with_token(token, lambda client: client.auth.token.lookup_self(), "auth/token/lookup-self")
        except VaultDenied:
            return False
        return True

    async def _token(self, *, refused: str | None = None) -> str:
        """A live token, logging in when there is none, when it has expired, or when it is the `refused` one."""
        async with self._logging_in:
            if self._session is not None:
                token, lease = self._session
                if token != refused and not lease.expired(time.monotonic()):
                    return token
            return await self._log_in()

    async def _log_in(self) -> str:
        asked_at = time.monotonic()
        token, ttl, renewable = await self._in_thread(self._connection.log_in, self._approle)
        lease = Lease(granted_at=asked_at, ttl_seconds=ttl, full_ttl_seconds=ttl, renewable=renewable)
        self._session = (token, lease)
        return token

    async def _keep_alive(self) -> None:
        token = await self._token()
        lease = self._lease_of(token)
        await asyncio.sleep(lease.seconds_to_renewal(time.monotonic()))
        async with self._logging_in:
            if self._session is not None and self._session[0] == token:
                await self._renew(token, lease)

    def _lease_of(self, token: str) -> Lease:
        if self._session is None or self._session[0] != token:
            # Replaced in the meantime: look again at once.
            return Lease(granted_at=time.monotonic(), ttl_seconds=0, full_ttl_seconds=0, renewable=False)
        return self._session[1]

    async def _renew(self, token: str, lease: Lease) -> None:
        if not lease.worth_renewing:
            await self._log_in()
            return
        asked_at = time.monotonic()
        try:
            answer = await self._with_token(
                token, lambda client: client.auth.token.renew_self(), "auth/token/renew-self"
            )
        except VaultDenied:
            await self._log_in()
            return
        granted = answer["auth"]
        renewed = Lease(
            granted_at=asked_at,
            ttl_seconds=float(granted["lease_duration"]),
            full_ttl_seconds=lease.full_ttl_seconds,
            renewable=bool(granted["renewable"]),
        )
        self._session = (token, renewed)

    async def _in_thread(
        self, work: Callable[Arguments, Answer], *arguments: Arguments.args, **named: Arguments.kwargs
    ) -> Answer:
        async with self._places:
            try:
                async with asyncio.timeout(self._patience_seconds):
                    return await asyncio.to_thread(work, *arguments, **named)
            except TimeoutError as error:
                raise VaultUnavailable(detail=f"no answer in {self._patience_seconds:.0f} s") from error


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
