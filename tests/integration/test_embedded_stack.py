"""The whole embedded stack: it survives the death of a part, and its own death blocks no new start."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace

import aiohttp
import asyncpg
import psutil
import pytest
from tollhouse_server.embedded.errors import StateDirectoryLocked
from tollhouse_server.embedded.stack import StackConfig, embedded_stack
from tollhouse_server.errors import VaultUnavailable
from tollhouse_server.ports import PortInUse
from tollhouse_server.vault.client import VaultClient
from tollhouse_server.vault.connection import VaultAddress
from tollhouse_server.vault.paths import PEPPER_FIELD, PEPPER_PATH

from tests.drivers.places import servers_place

RECOVERY_SECONDS = 30.0
# Runs a stack and prints its pids, as `tollhouse-server run` would hold one.
HOLDER = """
import asyncio, json, sys
from pathlib import Path
from tollhouse_server.embedded.stack import StackConfig, embedded_stack

async def main():
    async with embedded_stack(StackConfig(state_directory=Path(sys.argv[1]))) as stack:
        print("PIDS", json.dumps(stack.pids), flush=True)
        await asyncio.sleep(3600)

asyncio.run(main())
"""


@pytest.fixture
def config() -> Iterator[StackConfig]:
    with servers_place("stack") as directory:
        yield StackConfig(state_directory=directory / ".tollhouse")


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(RECOVERY_SECONDS):
        while not condition():  # noqa: ASYNC110 - other processes end
            await asyncio.sleep(0.05)


async def held_elsewhere(config: StackConfig) -> tuple[asyncio.subprocess.Process, dict[str, int]]:
    """Another process that runs a stack on this directory, and the pids of its parts."""
    holder = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLDER, str(config.state_directory)),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
        stdout=asyncio.subprocess.PIPE,
    )
    assert holder.stdout is not None
    async for line in holder.stdout:
        if line.startswith(b"PIDS"):
            return holder, json.loads(line[4:])
    pytest.fail("the stack did not start")


def ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_kill_9_of_the_parent_ends_every_child_and_a_new_start_works(config: StackConfig) -> None:
    """The kernel stops the children, PostgreSQL by a shutdown in order; the lock goes with the parent."""
    holder, pids = await held_elsewhere(config)

    holder.kill()
    await holder.wait()
    await eventually(lambda: all(ended(pid) for pid in pids.values()))

    async with embedded_stack(config) as stack:
        connection = await asyncpg.connect(stack.app_dsn)
        answer = await connection.fetchval("SELECT 1")
        await connection.close()
    log = (config.state_directory / "logs" / "postgres.log").read_text()
    assert answer == 1
    assert "received fast shutdown request" in log
    assert "was not properly shut down" not in log


async def test_kill_9_of_everything_is_recovered_from(config: StackConfig) -> None:
    """A power cut, as far as the files can tell."""
    holder, pids = await held_elsewhere(config)
    for pid in (holder.pid, *pids.values()):
        os.kill(pid, signal.SIGKILL)
    await holder.wait()

    async with embedded_stack(config) as stack:
        connection = await asyncpg.connect(stack.app_dsn)
        answer = await connection.fetchval("SELECT 1")
        await connection.close()
        vault = VaultClient(VaultAddress(url=stack.openbao.address), stack.openbao.gateway)
        pepper = await vault.read_secret(PEPPER_PATH)
        await vault.close()

    assert answer == 1
    assert pepper[PEPPER_FIELD]


async def test_a_second_stack_on_one_directory_is_refused_naming_the_first(config: StackConfig) -> None:
    """Two `make run` in one checkout do not fight over the data."""
    holder, pids = await held_elsewhere(config)

    with pytest.raises(StateDirectoryLocked) as raised:
        async with embedded_stack(config):
            pass

    holder.terminate()
    await holder.wait()
    await eventually(lambda: all(ended(pid) for pid in pids.values()))
    assert raised.value.pid == holder.pid
    assert str(holder.pid) in str(raised.value)


async def test_a_part_that_is_killed_comes_back_on_its_port(config: StackConfig) -> None:
    """Each of the three; OpenBao comes back unsealed."""
    async with embedded_stack(config) as stack:
        vault = VaultClient(VaultAddress(url=stack.openbao.address), stack.openbao.gateway)
        simulator = stack.simulator
        assert simulator is not None

        for pid in stack.pids.values():
            os.kill(pid, signal.SIGKILL)

        await answers(lambda: answer_of_postgres(stack.app_dsn), asyncpg.PostgresError, OSError)
        await answers(vault.probe, VaultUnavailable)
        await answers(lambda: answer_of_simulator(simulator.base_url), aiohttp.ClientError)
        await vault.close()


async def test_a_failure_of_the_body_comes_through_and_everything_is_stopped(config: StackConfig) -> None:
    """The context adds nothing of its own to an error of the server inside it."""
    pids: dict[str, int] = {}

    with pytest.raises(ZeroDivisionError):
        async with embedded_stack(replace(config, simulator=False)) as stack:
            pids |= stack.pids
            raise ZeroDivisionError

    assert set(pids) == {"postgres", "openbao"}
    assert all(ended(pid) for pid in pids.values())


async def test_a_port_in_use_stops_the_start_and_what_had_started(config: StackConfig) -> None:
    """No half a stack stays behind, and the message names the setting."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        with pytest.raises(PortInUse, match=rf"Port {port}.*TOLLHOUSE_SIMULATOR_PORT"):
            async with embedded_stack(replace(config, simulator_port=port)):
                pass

    state = str(config.state_directory)
    assert not [process for process in psutil.process_iter() if state in " ".join(command_of(process))]


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


async def answer_of_postgres(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("SELECT 1")
    await connection.close()


async def answer_of_simulator(base_url: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(base_url) as response:
        await response.read()


async def answers(ask: Callable[[], Awaitable[None]], *not_yet: type[Exception]) -> None:
    """Ask until it works."""
    async with asyncio.timeout(RECOVERY_SECONDS):
        while True:
            try:
                return await ask()
            except not_yet:
                await asyncio.sleep(0.1)
