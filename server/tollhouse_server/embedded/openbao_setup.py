"""Mounts, policies, AppRoles and the pepper of a new OpenBao server. Every step may run again."""

import asyncio
import base64
import secrets
import time
from pathlib import Path

from tollhouse_server.embedded.child import POLL_SECONDS
from tollhouse_server.embedded.errors import EmbeddedStartFailed
from tollhouse_server.embedded.files import make_private_directory, write_secret_file
from tollhouse_server.embedded.openbao_api import OpenBaoApi
from tollhouse_server.vault.approle import ROLES, AppRoleFiles, policy_text
from tollhouse_server.vault.paths import (
    AUDIT_KEY,
    PEPPER_FIELD,
    PEPPER_PATH,
    RECEIPTS_KEY,
    SECRETS_MOUNT,
    TRANSIT_MOUNT,
)

PEPPER_BYTES = 32
MOUNT_TIMEOUT_SECONDS = 10.0


async def set_up(api: OpenBaoApi, directory: Path, *, token_ttl_seconds: int, token_max_ttl_seconds: int) -> None:
    """Bring the server in line; the roles' ids go to files (mode 0600) below `directory`.

    Raises:
        EmbeddedStartFailed: the server does not answer, or refuses a step.
    """
    await _mount_engines(api)
    for key in (RECEIPTS_KEY, AUDIT_KEY):
        await api.put(f"{TRANSIT_MOUNT}/keys/{key}", {"type": "ed25519"})
    for role in ROLES:
        await api.put(f"sys/policies/acl/{role}", {"policy": policy_text(role)})
        terms = {"token_policies": [role], "token_ttl": token_ttl_seconds, "token_max_ttl": token_max_ttl_seconds}
        await api.put(f"auth/approle/role/{role}", {**terms, "secret_id_ttl": 0, "secret_id_num_uses": 0})
        await _write_ids(api, role, role_files(directory, role))
    await _write_pepper_once(api)


def role_files(directory: Path, role: str) -> AppRoleFiles:
    """Return where the ids of `role` lie."""
    return AppRoleFiles(role_id_file=directory / role / "role-id", secret_id_file=directory / role / "secret-id")


async def _mount_engines(api: OpenBaoApi) -> None:
    mounted = await api.get("sys/mounts")
    if f"{SECRETS_MOUNT}/" not in mounted:
        await api.put(f"sys/mounts/{SECRETS_MOUNT}", {"type": "kv", "options": {"version": "2"}})
    await _configure_secrets(api)
    if f"{TRANSIT_MOUNT}/" not in mounted:
        await api.put(f"sys/mounts/{TRANSIT_MOUNT}", {"type": "transit"})
    if "approle/" not in await api.get("sys/auth"):
        await api.put("sys/auth/approle", {"type": "approle"})
    # A secret_id cannot be guessed; but one server with an old one would lock out all the others of its role.
    await api.put("sys/auth/approle/tune", {"user_lockout_config": {"lockout_disable": True}})


async def _configure_secrets(api: OpenBaoApi) -> None:
    """A new KV mount refuses everything for some milliseconds while it turns itself into one with versions."""
    deadline = time.monotonic() + MOUNT_TIMEOUT_SECONDS
    while True:
        try:
            await api.put(f"{SECRETS_MOUNT}/config", {"cas_required": True, "max_versions": 10})
        except EmbeddedStartFailed:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(POLL_SECONDS)
        else:
            return


async def _write_ids(api: OpenBaoApi, role: str, ids: AppRoleFiles) -> None:
    make_private_directory(ids.role_id_file.parent)
    role_id = (await api.get(f"auth/approle/role/{role}/role-id"))["data"]["role_id"]
    write_secret_file(ids.role_id_file, role_id)
    if not await _secret_id_holds(api, role, await asyncio.to_thread(_read, ids.secret_id_file)):
        secret_id = (await api.put(f"auth/approle/role/{role}/secret-id"))["data"]["secret_id"]
        write_secret_file(ids.secret_id_file, secret_id)


async def _secret_id_holds(api: OpenBaoApi, role: str, secret_id: str) -> bool:
    if not secret_id:
        return False
    known = await api.put(f"auth/approle/role/{role}/secret-id/lookup", {"secret_id": secret_id})
    return bool(known.get("data"))


async def _write_pepper_once(api: OpenBaoApi) -> None:
    """Never replaced: every API key ever issued is a digest under this pepper. `cas=0` refuses even a deleted one."""
    path = f"{SECRETS_MOUNT}/data/{PEPPER_PATH}"
    if await api.find(path) is None:
        value = base64.b64encode(secrets.token_bytes(PEPPER_BYTES)).decode()
        await api.put(path, {"options": {"cas": 0}, "data": {PEPPER_FIELD: value}})


def _read(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""
