"""The synchronous side: hvac, its requests, and its errors turned into ours. Runs in threads."""

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import hvac  # type: ignore[import-untyped]
import hvac.exceptions  # type: ignore[import-untyped]
import requests

from tollhouse_server.errors import (
    EtagMismatch,
    FieldViolation,
    InvalidRequest,
    SecretMissing,
    VaultDenied,
    VaultUnavailable,
)
from tollhouse_server.vault.approle import AppRoleFiles, is_wrapping_token
from tollhouse_server.vault.secret_text import SecretText

LOGIN_PATH = "auth/approle/login"
REFUSED_FOR_SECONDS = 300.0
"""Ids that were refused are not shown again for so long while the files stay as they are: Vault locks a role after five
log-ins that failed in a quarter of an hour, and with it every server that has the right ids."""
UNWRAP_PATH = "sys/wrapping/unwrap"
CAS_REFUSAL = "check-and-set"
UNAVAILABLE = (
    requests.RequestException,
    hvac.exceptions.VaultDown,
    hvac.exceptions.VaultNotInitialized,
    hvac.exceptions.InternalServerError,
    hvac.exceptions.BadGateway,
    hvac.exceptions.RateLimitExceeded,
    hvac.exceptions.UnexpectedError,
)
DENIED = (hvac.exceptions.Forbidden, hvac.exceptions.Unauthorized)

# What may be in a wrapping token: whoever swaps the file for one of his own wraps something else.
_WRAPPED_BY: Final = re.compile(r"auth/[^/]+/role/[^/]+/(custom-)?secret-id")

Answer = TypeVar("Answer")
Operation = Callable[[hvac.Client], Answer]


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultAddress:
    """Which Vault. `ca_file` verifies its certificate (None: the system's authorities)."""

    url: str
    namespace: str | None = None
    ca_file: Path | None = None
    timeout_seconds: float = 5.0


class Connection:
    """Blocking calls to one Vault; every call may be made from any thread."""

    def __init__(self, address: VaultAddress) -> None:
        """Prepare; connects on the first call."""
        self._address = address
        self._session = requests.Session()
        # No proxy, netrc or certificate bundle from the environment: secrets go to the stated address only.
        self._session.trust_env = False
        self._session.verify = str(address.ca_file) if address.ca_file else True
        # The wrapping token that was used up, and what was in it: in memory alone, and never again to be had.
        self._unwrapped: tuple[str, SecretText] | None = None
        self._unwrapping = threading.Lock()
        # A digest of the ids that were refused, and when.
        self._refused: tuple[bytes, float] | None = None

    def client(self, token: str) -> hvac.Client:
        """Return an hvac client with `token`; empty for none, as None would have hvac look in the home directory."""
        address = self._address
        return hvac.Client(
            url=address.url,
            token=token,
            namespace=address.namespace,
            timeout=address.timeout_seconds,
            session=self._session,
        )

    def log_in(self, files: AppRoleFiles) -> tuple[str, float, bool]:
        """Log in with the files' ids; return the token, its life in seconds, and whether it can be renewed.

        Raises:
            VaultUnavailable: Vault is stopped, sealed or slow.
            VaultDenied: a file cannot be read, or Vault does not take what is in it.
        """
        with _our_errors(LOGIN_PATH):
            role_id, secret_id = _read_id(files.role_id_file), self.secret_id(files).reveal()
            digest = hashlib.sha256(f"{role_id}\n{secret_id}".encode()).digest()
            if self._refused is not None and self._refused[0] == digest and time.monotonic() < self._refused[1]:
                raise VaultDenied(path=f"{LOGIN_PATH} (refused before with what is in {files.secret_id_file})")
            try:
                answer = self.client("").auth.approle.login(role_id=role_id, secret_id=secret_id, use_token=False)
            except hvac.exceptions.InvalidRequest as error:
                # Vault answers 400 to a wrong or revoked secret_id.
                self._refused = digest, time.monotonic() + REFUSED_FOR_SECONDS
                raise VaultDenied(path=LOGIN_PATH) from error
            granted = answer["auth"]
            return granted["client_token"], float(granted["lease_duration"]), bool(granted["renewable"])

    def secret_id(self, files: AppRoleFiles) -> SecretText:
        """Return the role's secret_id: what the file holds, or what its wrapping token gives, once.

        Raises:
            VaultUnavailable: Vault is stopped, sealed or slow.
            VaultDenied: the file cannot be read, or its wrapping token is used up, expired or not for a secret_id.
        """
        text = _read_id(files.secret_id_file)
        return self._unwrapped_once(text, files) if is_wrapping_token(text) else SecretText(text)

    def wrapped_secret_id(self, files: AppRoleFiles) -> SecretText | None:
        """Return what the file's wrapping token gives, once; None where the file holds the secret_id itself.

        Raises:
            VaultUnavailable, VaultDenied: as `secret_id`.
        """
        text = _read_id(files.secret_id_file)
        return self._unwrapped_once(text, files) if is_wrapping_token(text) else None

    def _unwrapped_once(self, token: str, files: AppRoleFiles) -> SecretText:
        if files.secret_id is not None:
            return files.secret_id
        with self._unwrapping:
            if self._unwrapped is None or self._unwrapped[0] != token:
                self._unwrapped = (token, self._unwrap(token, files.secret_id_file))
            return self._unwrapped[1]

    def _unwrap(self, token: str, file: Path) -> SecretText:
        denied = f"{UNWRAP_PATH} (the wrapping token in {file}"
        with _our_errors(UNWRAP_PATH):
            try:
                # The look comes first: it uses nothing up.
                wrapped = self.client("").adapter.post("/v1/sys/wrapping/lookup", json={"token": token})["data"]
                if not _WRAPPED_BY.fullmatch(str(wrapped["creation_path"])):
                    raise VaultDenied(path=f"{denied} holds something else than a secret_id)")
                return SecretText(self.client(token).sys.unwrap()["data"]["secret_id"])
            except (hvac.exceptions.InvalidRequest, *DENIED) as error:
                # Used by us before a restart, or by somebody who should not have it: that is what wrapping tells.
                raise VaultDenied(path=f"{denied} has expired, or somebody has used it already)") from error

    def call(self, client: hvac.Client, operation: Operation[Answer], path: str) -> Answer:
        """Return what `operation` does; an error names `path`.

        Raises:
            VaultUnavailable: Vault is stopped, sealed or slow.
            VaultDenied: its policy does not allow this.
            SecretMissing: there is nothing at `path`.
            EtagMismatch: another version is the current one.
            InvalidRequest: Vault does not take this request.
        """
        with _our_errors(path):
            return operation(client)

    def close(self) -> None:
        """Close the sockets."""
        self._session.close()


@contextmanager
def _our_errors(path: str) -> Iterator[None]:
    try:
        yield
    except DENIED as error:
        raise VaultDenied(path=path) from error
    except hvac.exceptions.InvalidPath as error:
        raise SecretMissing(path=path) from error
    except hvac.exceptions.InvalidRequest as error:
        if CAS_REFUSAL in str(error):
            raise EtagMismatch(name=path) from error
        violation = FieldViolation(path=path, description="Vault does not take this request")
        raise InvalidRequest(violations=(violation,)) from error
    except UNAVAILABLE as error:
        raise VaultUnavailable(detail=f"{path}: {type(error).__name__}") from error


def _read_id(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise VaultDenied(path=f"{LOGIN_PATH} ({path}: {error.strerror})") from error
