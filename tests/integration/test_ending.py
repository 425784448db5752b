"""How the housekeeper ends, also while PostgreSQL is gone or answers nobody any more."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.drivers.postgres import TestDatabase
from tests.drivers.way import way_to


@asynccontextmanager
async def housekeeper(dsn: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a housekeeper whose heart beats fast; it works on entry."""
    readable, writable = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tollhouse_server", "housekeeper"),
        *("--ready-fd", str(writable), "--parent-pid", str(os.getpid())),
        env={
            "PATH": os.defpath,
            "TOLLHOUSE_POSTGRES_DSN": dsn,
            "TOLLHOUSE_WORKER_DEAD_AFTER_SECONDS": "1",
            # Nobody listens there: the ledger is kept all the same.
            "TOLLHOUSE_VAULT_ADDRESS": "http://127.0.0.1:9",
            "TOLLHOUSE_VAULT_ROLE_ID_FILE": os.devnull,
            "TOLLHOUSE_VAULT_SECRET_ID_FILE": os.devnull,
            "TOLLHOUSE_VAULT_CUSTODIAN_ROLE_ID_FILE": os.devnull,
            "TOLLHOUSE_VAULT_CUSTODIAN_SECRET_ID_FILE": os.devnull,
        },
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=(writable,),
    )
    os.close(writable)
    try:
        with os.fdopen(readable, "rb") as pipe:
            ready = await asyncio.to_thread(pipe.read, 1)
        assert ready == b"1", (await process.communicate())[1].decode()
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("state", ["there", "down", "frozen"])
async def test_an_idle_housekeeper_ends_soon_when_it_is_told_to(fresh_database: TestDatabase, state: str) -> None:
    """Whatever PostgreSQL does: nothing is waited for that may not come, and nothing breaks on the way."""
    async with way_to(fresh_database.app_dsn) as (way, dsn), housekeeper(dsn) as process:
        await asyncio.sleep(1.0)
        way.befall(state)
        await asyncio.sleep(0.5)

        process.send_signal(signal.SIGTERM)
        _, errors = await asyncio.wait_for(process.communicate(), 30)

    # One that does not end within ten seconds is ended by its own timer, and says so by its exit code.
    assert process.returncode == 0, errors.decode()
    # The drivers' own lines about a lost connection are JSON; what ends a task or the process is not.
    assert not [line for line in errors.splitlines() if line.startswith(b"Traceback")], errors.decode()
    assert b"never retrieved" not in errors
