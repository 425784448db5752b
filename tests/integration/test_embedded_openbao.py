"""The embedded OpenBao: it starts unsealed, keeps its secrets over every kind of end, and shows none."""

import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import psutil
import pytest
from tollhouse_server.embedded.errors import EmbeddedStartFailed
from tollhouse_server.embedded.openbao import EmbeddedOpenBao, OpenBaoConfig, OpenBaoEndpoint
from tollhouse_server.ports import PortInUse
from tollhouse_server.vault.client import VaultClient
from tollhouse_server.vault.connection import VaultAddress
from tollhouse_server.vault.paths import PEPPER_FIELD, PEPPER_PATH

from tests.drivers.places import servers_place


@pytest.fixture
def config() -> Iterator[OpenBaoConfig]:
    with servers_place("openbao") as directory:
        yield OpenBaoConfig(directory=directory / "openbao", log_path=directory / "openbao.log")


@asynccontextmanager
async def running(config: OpenBaoConfig) -> AsyncIterator[OpenBaoEndpoint]:
    server = EmbeddedOpenBao(config)
    try:
        yield await server.start()
    finally:
        await server.stop()


async def pepper(endpoint: OpenBaoEndpoint) -> str:
    vault = VaultClient(VaultAddress(url=endpoint.address), endpoint.gateway)
    value = (await vault.read_secret(PEPPER_PATH))[PEPPER_FIELD]
    await vault.close()
    return value


async def test_pepper_and_role_ids_survive_a_stop_a_kill_9_and_an_orphan(config: OpenBaoConfig) -> None:
    """The pepper is made once: losing it would void every API key ever issued."""
    async with running(config) as first:
        made = await pepper(first)
        ids = first.gateway.secret_id_file.read_text()

    async with running(config) as second:
        after_stop = await pepper(second)
        os.kill(second.pid, signal.SIGKILL)
    orphan = await EmbeddedOpenBao(config).start()
    async with running(replace(config, port=orphan.port)) as third:
        after_kill = await pepper(third)
        ids_at_last = third.gateway.secret_id_file.read_text()

    assert [after_stop, after_kill] == [made, made]
    assert ids_at_last == ids


async def test_a_first_start_cut_short_before_the_key_was_written_is_made_again(config: OpenBaoConfig) -> None:
    """Storage that nobody can unseal is worth nothing."""
    async with running(config) as first:
        first.unseal_file.unlink()
    (config.directory / "initialising").touch()

    async with running(config) as second:
        made = await pepper(second)

    assert made


async def test_a_lost_unseal_key_is_a_clear_error_and_the_data_stays(config: OpenBaoConfig) -> None:
    """Nothing is thrown away behind the owner's back."""
    async with running(config) as first:
        kept = first.unseal_file.rename(config.directory / "elsewhere")

    with pytest.raises(EmbeddedStartFailed, match=r"unseal\.json is not; restore"):
        await EmbeddedOpenBao(config).start()

    kept.rename(first.unseal_file)
    async with running(config) as again:
        assert await pepper(again)


async def test_a_port_in_use_is_named_with_the_setting_to_change(config: OpenBaoConfig) -> None:
    """The message tells what to do."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        with pytest.raises(PortInUse, match=rf"Port {port}.*TOLLHOUSE_VAULT_PORT"):
            await EmbeddedOpenBao(replace(config, port=port)).start()


async def test_keys_are_in_closed_files_only(config: OpenBaoConfig, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the log, nor the arguments, nor what we print have the unseal key, the root token or an id."""
    async with running(config) as endpoint:
        ids = [endpoint.gateway.secret_id_file, endpoint.key_custodian.secret_id_file]
        secrets = [*json.loads(endpoint.unseal_file.read_text()).values(), *(path.read_text() for path in ids)]
        secrets.append(await pepper(endpoint))
        arguments = " ".join(psutil.Process(endpoint.pid).cmdline())

    printed = capsys.readouterr()
    shown = [repr(endpoint), arguments, config.log_path.read_text(), printed.out, printed.err]
    assert "openbao_for_laptops_only" in printed.out
    assert not [text for text in shown for secret in secrets if secret in text]
    assert {path.stat().st_mode & 0o777 for path in [endpoint.unseal_file, *ids]} == {0o600}
