"""What a process finds outside: PostgreSQL, Vault, and the secrets to begin with."""

import base64
import hashlib
import hmac

from pydantic import SecretStr

from tollhouse_server.errors import FieldViolation, InvalidRequest
from tollhouse_server.settings import Settings
from tollhouse_server.vault.approle import AppRoleFiles
from tollhouse_server.vault.client import VaultClient
from tollhouse_server.vault.connection import VaultAddress
from tollhouse_server.vault.paths import PEPPER_FIELD, PEPPER_PATH
from tollhouse_server.vault.secret_text import SecretText


def required_dsn(settings: Settings) -> str:
    """Return the application role's DSN.

    Raises:
        InvalidRequest: it is not set.
    """
    if settings.postgres_dsn is None:
        raise missing("TOLLHOUSE_POSTGRES_DSN")
    return settings.postgres_dsn.get_secret_value()


def gateway_vault(settings: Settings) -> VaultClient:
    """Return the client of the role that reads keys.

    Raises:
        InvalidRequest: an address or a file is not set.
    """
    if settings.vault_role_id_file is None or settings.vault_secret_id_file is None:
        raise missing("TOLLHOUSE_VAULT_ROLE_ID_FILE and TOLLHOUSE_VAULT_SECRET_ID_FILE")
    files = AppRoleFiles(
        role_id_file=settings.vault_role_id_file,
        secret_id_file=settings.vault_secret_id_file,
        secret_id=_unwrapped(settings.vault_secret_id),
    )
    return VaultClient(_vault_address(settings), files)


def custodian_vault(settings: Settings) -> VaultClient:
    """Return the client of the role that writes keys.

    Raises:
        InvalidRequest: an address or a file is not set.
    """
    role, secret = settings.vault_custodian_role_id_file, settings.vault_custodian_secret_id_file
    if role is None or secret is None:
        raise missing("TOLLHOUSE_VAULT_CUSTODIAN_ROLE_ID_FILE and TOLLHOUSE_VAULT_CUSTODIAN_SECRET_ID_FILE")
    files = AppRoleFiles(
        role_id_file=role, secret_id_file=secret, secret_id=_unwrapped(settings.vault_custodian_secret_id)
    )
    return VaultClient(_vault_address(settings), files)


async def with_unwrapped_secret_ids(settings: Settings) -> Settings:
    """Return settings with the secret_ids for which files hold wrapping tokens: the first who asks gets them.

    Raises:
        VaultDenied: somebody has used a token already, or it has expired.
        VaultUnavailable: Vault does not answer.
    """
    update: dict[str, SecretStr] = {}
    for name, client in (
        ("vault_secret_id", gateway_vault(settings)),
        ("vault_custodian_secret_id", custodian_vault(settings)),
    ):
        try:
            found = await client.unwrapped_secret_id()
        finally:
            await client.close()
        if found is not None:
            update[name] = SecretStr(found.reveal())
    return settings.model_copy(update=update)


def _unwrapped(secret_id: SecretStr | None) -> SecretText | None:
    return None if secret_id is None else SecretText(secret_id.get_secret_value())


async def read_pepper(vault: VaultClient) -> bytes:
    """Return the secret under which API keys are digested.

    Raises:
        VaultUnavailable, VaultDenied, SecretMissing: the server cannot start without it.
    """
    return base64.b64decode((await vault.read_secret(PEPPER_PATH))[PEPPER_FIELD])


def _vault_address(settings: Settings) -> VaultAddress:
    if settings.vault_address is None:
        raise missing("TOLLHOUSE_VAULT_ADDRESS")
    return VaultAddress(url=settings.vault_address, namespace=settings.vault_namespace, ca_file=settings.vault_ca_file)


def derived(pepper: bytes, purpose: str) -> bytes:
    """Return a key of its own for each purpose, the same on every server."""
    return hmac.digest(pepper, purpose.encode(), hashlib.sha256)


def data_policy_key(pepper: bytes) -> bytes:
    """Return the key under which exceptions of data policies are kept."""
    return derived(pepper, "data-policies")


def missing(names: str) -> InvalidRequest:
    """Return what to raise where settings lack something."""
    return InvalidRequest(violations=(FieldViolation(path=names, description="must be set to serve"),))
