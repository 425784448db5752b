"""Log-ins that Vault refuses: five of them lock a role for a quarter of an hour, the right ids with the wrong ones."""

from pathlib import Path

import pytest
from tollhouse_server.errors import VaultDenied
from tollhouse_server.vault.approle import AppRoleFiles
from tollhouse_server.vault.client import VaultClient
from tollhouse_server.vault.connection import VaultAddress

from tests.drivers.openbao import TestOpenBao
from tests.drivers.wire import answer, answering

REFUSAL = answer(
    b'{"errors": ["invalid role or secret ID"]}', "content-type: application/json", status="400 Bad Request"
)


@pytest.fixture
def files(tmp_path: Path) -> AppRoleFiles:
    """Ids that nobody knows."""
    written = AppRoleFiles(role_id_file=tmp_path / "role-id", secret_id_file=tmp_path / "secret-id")
    written.role_id_file.write_text("a-role")
    written.secret_id_file.write_text("destroyed")
    return written


async def denied(vault: VaultClient, times: int) -> None:
    """Ask so often, always in vain."""
    for _ in range(times):
        with pytest.raises(VaultDenied):
            await vault.probe()


async def test_refused_ids_are_not_shown_again_until_a_file_changes(files: AppRoleFiles) -> None:
    """Every look for a key would be a log-in, and the fifth would lock all servers of the role out."""
    async with answering(REFUSAL) as vault_server:
        vault = VaultClient(VaultAddress(url=vault_server.url), files)
        await denied(vault, 10)
        before = len(vault_server.seen)
        files.secret_id_file.write_text("written a moment ago")
        await denied(vault, 10)
        await vault.close()

    assert before == 1
    assert len(vault_server.seen) == 2


async def test_refused_ids_are_shown_again_after_a_while(files: AppRoleFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be the role that was wrong, and that is mended without a change here."""
    monkeypatch.setattr("tollhouse_server.vault.connection.REFUSED_FOR_SECONDS", 0.0)
    async with answering(REFUSAL) as vault_server:
        vault = VaultClient(VaultAddress(url=vault_server.url), files)
        await denied(vault, 2)
        await vault.close()

    assert len(vault_server.seen) == 2


async def test_an_embedded_vault_locks_nobody_out(openbao: TestOpenBao, files: AppRoleFiles) -> None:
    """One server that was left with an old secret_id must not take Vault from all the others."""
    files.role_id_file.write_text(openbao.endpoint.gateway.role_id_file.read_text())
    address = VaultAddress(url=openbao.endpoint.address)
    for number in range(7):
        files.secret_id_file.write_text(f"wrong-{number}")
        stranger = VaultClient(address, files)
        await denied(stranger, 1)
        await stranger.close()

    right = VaultClient(address, openbao.endpoint.gateway)
    await right.probe()
    await right.close()
