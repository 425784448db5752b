"""The Vault client against a real OpenBao: what each role may do, and that its token stays alive."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest
from tollhouse_server.embedded.openbao_api import OpenBaoApi
from tollhouse_server.errors import EtagMismatch, SecretMissing, VaultDenied, VaultUnavailable
from tollhouse_server.vault.approle import AppRoleFiles
from tollhouse_server.vault.client import VaultClient
from tollhouse_server.vault.connection import VaultAddress
from tollhouse_server.vault.paths import PEPPER_FIELD, PEPPER_PATH

from tests.drivers.openbao import TestOpenBao

Login = Callable[[AppRoleFiles], VaultClient]
CANARY = "canary-5d1f0c2e9a"


@pytest.fixture
async def login(openbao: TestOpenBao) -> AsyncIterator[Login]:
    made: list[VaultClient] = []

    def log_in(files: AppRoleFiles) -> VaultClient:
        made.append(VaultClient(VaultAddress(url=openbao.endpoint.address, timeout_seconds=2), files))
        return made[-1]

    yield log_in
    for client in made:
        await client.close()


@pytest.fixture
def gateway(openbao: TestOpenBao, login: Login) -> VaultClient:
    return login(openbao.endpoint.gateway)


@pytest.fixture
def custodian(openbao: TestOpenBao, login: Login) -> VaultClient:
    return login(openbao.endpoint.key_custodian)


@pytest.fixture
def path() -> str:
    return f"upstream-keys/account-{uuid4().hex[:8]}/key-1"


def privileged(openbao: TestOpenBao) -> OpenBaoApi:
    keys = json.loads(openbao.endpoint.unseal_file.read_text())
    return OpenBaoApi(openbao.endpoint.address, token=keys["root_token"])


async def short_lived_role(
    openbao: TestOpenBao, directory: Path, *, ttl: int, max_ttl: int, logins: int
) -> AppRoleFiles:
    """A role like the gateway's whose tokens live `ttl` seconds, with a secret_id for `logins` (0: any number)."""
    role = f"short-{uuid4().hex[:8]}"
    terms = {"token_policies": ["gateway"], "token_ttl": ttl, "token_max_ttl": max_ttl, "secret_id_num_uses": logins}
    files = AppRoleFiles(role_id_file=directory / "role-id", secret_id_file=directory / "secret-id")
    async with privileged(openbao) as api:
        await api.put(f"auth/approle/role/{role}", terms)
        files.role_id_file.write_text((await api.get(f"auth/approle/role/{role}/role-id"))["data"]["role_id"])
        files.secret_id_file.write_text((await api.put(f"auth/approle/role/{role}/secret-id"))["data"]["secret_id"])
    return files


async def test_the_custodian_writes_and_the_gateway_reads(
    gateway: VaultClient, custodian: VaultClient, path: str
) -> None:
    """Versions count up, and each can be read."""
    first = await custodian.write_secret(path, {"key": "one"}, cas=0)
    second = await custodian.write_secret(path, {"key": "two"}, cas=first)

    newest = await gateway.read_secret(path)
    older = await gateway.read_secret(path, version=first)
    listed = await gateway.list_secrets(path.rpartition("/")[0])

    assert (first, second, newest.version) == (1, 2, 2)
    assert (newest["key"], older["key"]) == ("two", "one")
    assert listed == ("key-1",)


async def test_a_write_on_a_version_that_is_not_current_changes_nothing(custodian: VaultClient, path: str) -> None:
    """Two rotations at once cannot overwrite each other."""
    await custodian.write_secret(path, {"key": "first"}, cas=0)

    with pytest.raises(EtagMismatch):
        await custodian.write_secret(path, {"key": "second"}, cas=0)

    assert (await custodian.read_secret(path))["key"] == "first"


async def test_a_deleted_secret_is_gone_and_can_be_made_anew(custodian: VaultClient, path: str) -> None:
    """Deleting destroys every version."""
    await custodian.write_secret(path, {"key": "old"}, cas=0)

    await custodian.delete_secret(path)

    with pytest.raises(SecretMissing):
        await custodian.read_secret(path)
    assert await custodian.list_secrets(path.rpartition("/")[0]) == ()
    assert await custodian.write_secret(path, {"key": "new"}, cas=0) == 1


async def test_the_gateway_can_neither_write_nor_delete_nor_read_elsewhere(
    gateway: VaultClient, custodian: VaultClient, path: str
) -> None:
    """A serving process that is taken over cannot change or plant a key."""
    await custodian.write_secret(path, {"key": "kept"}, cas=0)

    for attempt in (
        gateway.write_secret(path, {"key": "planted"}, cas=1),
        gateway.write_secret(PEPPER_PATH, {PEPPER_FIELD: "mine"}, cas=1),
        gateway.delete_secret(path),
        gateway.read_secret("elsewhere/anything"),
        gateway.list_secrets("gateway"),
        gateway.sign("another-key", b"payload"),
    ):
        with pytest.raises(VaultDenied):
            await attempt

    assert (await gateway.read_secret(path))["key"] == "kept"


async def test_the_custodian_cannot_read_the_pepper_nor_sign(gateway: VaultClient, custodian: VaultClient) -> None:
    """Who changes keys can neither forge API keys nor receipts."""
    for attempt in (custodian.read_secret(PEPPER_PATH), custodian.sign("receipts", b"payload")):
        with pytest.raises(VaultDenied):
            await attempt

    assert (await gateway.read_secret(PEPPER_PATH))[PEPPER_FIELD]


async def test_a_signature_verifies_for_its_payload_only(gateway: VaultClient) -> None:
    """Receipts are Ed25519 signatures: 64 bytes, under a public key of 32."""
    signature = await gateway.sign("receipts", b"one receipt")

    assert await gateway.verify(signature, b"one receipt")
    assert not await gateway.verify(signature, b"another receipt")
    assert len(signature.value) == 64
    assert len((await gateway.public_keys("receipts"))[signature.key_version]) == 32


async def test_a_token_is_renewed_before_its_end(openbao: TestOpenBao, login: Login, tmp_path: Path) -> None:
    """A secret_id that is good for one log-in is enough for many lives of a token."""
    vault = login(await short_lived_role(openbao, tmp_path, ttl=1, max_ttl=60, logins=1))
    await vault.probe()
    keeping_alive = asyncio.create_task(vault.run())

    await asyncio.sleep(2.5)
    read = await vault.read_secret(PEPPER_PATH)

    keeping_alive.cancel()
    assert read


async def test_a_token_at_its_longest_life_is_replaced(openbao: TestOpenBao, login: Login, tmp_path: Path) -> None:
    """Renewals end; reads do not."""
    vault = login(await short_lived_role(openbao, tmp_path, ttl=1, max_ttl=2, logins=0))
    keeping_alive = asyncio.create_task(vault.run())

    for _ in range(6):
        await asyncio.sleep(0.5)
        await vault.read_secret(PEPPER_PATH)

    still_running = not keeping_alive.done()
    keeping_alive.cancel()
    assert still_running


async def test_a_revoked_token_is_replaced_on_the_next_call(openbao: TestOpenBao, gateway: VaultClient) -> None:
    """A token can die long before its time."""
    await gateway.read_secret(PEPPER_PATH)
    async with privileged(openbao) as api:
        await api.put("sys/leases/revoke-prefix/auth/approle/login")

    assert await gateway.read_secret(PEPPER_PATH)


async def test_a_wrong_secret_id_is_denied_without_showing_it(
    openbao: TestOpenBao, login: Login, tmp_path: Path
) -> None:
    """The error names where, never with what."""
    wrong = tmp_path / "secret-id"
    wrong.write_text(CANARY)
    vault = login(AppRoleFiles(role_id_file=openbao.endpoint.gateway.role_id_file, secret_id_file=wrong))

    with pytest.raises(VaultDenied) as raised:
        await vault.probe()

    assert CANARY not in f"{raised.value!r} {raised.value} {raised.value.__cause__!r}"


async def wrapped_files(openbao: TestOpenBao, directory: Path, path: str = "") -> AppRoleFiles:
    """The gateway's ids, its secret_id wrapped in a token that is good for one use."""
    address, wrapped = openbao.endpoint.address, directory / "wrapped"
    token = json.loads(openbao.endpoint.unseal_file.read_text())["root_token"]
    headers = {"X-Vault-Token": token, "X-Vault-Wrap-TTL": "60s"}
    url = f"{address}/v1/{path or 'auth/approle/role/gateway/secret-id'}"
    async with aiohttp.ClientSession(headers=headers) as session, session.put(url, json={"policies": []}) as answer:
        wrapped.write_text((await answer.json())["wrap_info"]["token"] + "\n")
    return AppRoleFiles(role_id_file=openbao.endpoint.gateway.role_id_file, secret_id_file=wrapped)


async def test_a_wrapped_secret_id_is_unwrapped_once_and_kept_in_memory(
    openbao: TestOpenBao, login: Login, tmp_path: Path
) -> None:
    """Log-ins after the first need it again, and the token gives it only once."""
    files = await wrapped_files(openbao, tmp_path)
    vault = login(files)
    first = await vault.read_secret(PEPPER_PATH)
    async with privileged(openbao) as api:
        await api.put("sys/leases/revoke-prefix/auth/approle/login")

    assert await vault.read_secret(PEPPER_PATH) == first
    with pytest.raises(VaultDenied, match="used it already") as raised:
        await login(files).read_secret(PEPPER_PATH)
    assert files.secret_id_file.read_text().strip() not in str(raised.value)


async def test_the_processes_of_a_server_share_what_was_unwrapped(
    openbao: TestOpenBao, login: Login, tmp_path: Path
) -> None:
    """The one that starts the others unwraps it and hands it on."""
    files = await wrapped_files(openbao, tmp_path)
    secret_id = await login(files).unwrapped_secret_id()

    others = [login(replace(files, secret_id=secret_id)) for _ in range(3)]

    assert secret_id is not None
    assert all([await other.read_secret(PEPPER_PATH) for other in others])
    assert await login(openbao.endpoint.gateway).unwrapped_secret_id() is None


async def test_a_token_that_wraps_something_else_is_not_used(
    openbao: TestOpenBao, login: Login, tmp_path: Path
) -> None:
    """Whoever swaps the file cannot have us log in with what he chose."""
    swapped = await wrapped_files(openbao, tmp_path, "auth/token/create")

    with pytest.raises(VaultDenied, match="something else"):
        await login(swapped).probe()


async def test_a_missing_secret_id_file_is_denied_and_named(openbao: TestOpenBao, login: Login, tmp_path: Path) -> None:
    """A forgotten mount in a deployment is found from the message."""
    missing = tmp_path / "not-mounted"
    vault = login(AppRoleFiles(role_id_file=openbao.endpoint.gateway.role_id_file, secret_id_file=missing))

    for ask in (vault.probe, vault.unwrapped_secret_id):
        with pytest.raises(VaultDenied, match="not-mounted"):
            await ask()


async def test_a_sealed_vault_is_unavailable(openbao: TestOpenBao, gateway: VaultClient) -> None:
    """Sealed is not denied: nothing about the role is wrong."""
    await gateway.probe()
    await openbao.server.seal()
    try:
        with pytest.raises(VaultUnavailable):
            await gateway.read_secret(PEPPER_PATH)
    finally:
        await openbao.server.unseal()

    assert await gateway.read_secret(PEPPER_PATH)


async def test_a_vault_that_never_answers_is_unavailable_in_time(openbao: TestOpenBao) -> None:
    """A server that takes the connection and stays silent does not hold a caller."""
    silent = await asyncio.start_server(lambda _reader, _writer: asyncio.sleep(30), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    address = VaultAddress(url=f"http://127.0.0.1:{port}", timeout_seconds=0.2)
    vault = VaultClient(address, openbao.endpoint.gateway)

    async with asyncio.timeout(3):
        with pytest.raises(VaultUnavailable):
            await vault.probe()

    await vault.close()
    silent.close()


async def test_secrets_do_not_show_in_errors_or_in_print(custodian: VaultClient, path: str) -> None:
    """A canary goes in as a secret, and comes out of nothing but `[...]`."""
    await custodian.write_secret(path, {"key": CANARY}, cas=0)
    fields = await custodian.read_secret(path)

    with pytest.raises(EtagMismatch) as conflict:
        await custodian.write_secret(path, {"key": CANARY}, cas=0)
    with pytest.raises(VaultDenied) as denied:
        await custodian.write_secret("gateway/planted", {"key": CANARY}, cas=0)

    errors = [error for raised in (conflict, denied) for error in (raised.value, raised.value.__cause__)]
    assert CANARY not in " ".join([repr(fields), str(fields), *map(repr, errors), *map(str, errors)])
    assert fields["key"] == CANARY
