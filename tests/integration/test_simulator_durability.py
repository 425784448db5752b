"""The call log as referee: nothing that was answered is ever missing, whatever happens to the process."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from pathlib import Path

import aiohttp
import orjson
import pytest
from tollhouse_server.simulator.client import RunningSimulator, running_simulator

_TARGET = "/v1beta/models/gemini-3.5-flash:generateContent"
_BODY = {"contents": [{"parts": [{"text": "Hello"}]}]}


async def call_until_dead(simulator: RunningSimulator, caller: int, answered: list[str]) -> None:
    """Call again and again, noting each call once its first byte arrived."""
    async with aiohttp.ClientSession() as http:
        for number in range(100_000):
            attempt = f"{caller}-{number}"
            headers = {"x-goog-api-key": "k", "x-tollhouse-attempt-id": attempt}
            try:
                async with http.post(simulator.url + _TARGET, json=_BODY, headers=headers) as answer:
                    if answer.status == 200:
                        answered.append(attempt)
                    await answer.read()
            except aiohttp.ClientError:
                return


async def test_every_answered_call_is_listed_after_kill_9() -> None:
    """Rows are on disk before the first byte, and sequences go on after a restart."""
    answered: list[str] = []
    async with running_simulator() as simulator:
        for round_number in range(3):
            callers = [
                asyncio.create_task(call_until_dead(simulator, 100 * round_number + each, answered))
                for each in range(20)
            ]
            await asyncio.sleep(0.4)
            await simulator.kill()
            await asyncio.gather(*callers)
            await simulator.restart()
        rows = await simulator.calls()

    logged = [row.attempt_id for row in rows]
    assert len(answered) > 100
    assert set(answered) <= set(logged)
    assert len(logged) == len(set(logged))
    assert [row.sequence for row in rows] == sorted({row.sequence for row in rows})


async def test_a_client_that_hangs_up_early_was_served_all_the_same() -> None:
    """The row is written before a slow model even begins to answer."""
    async with running_simulator(models={"*": {"latency_ms": 5_000}}) as simulator:
        timeout = aiohttp.ClientTimeout(total=0.3)
        async with aiohttp.ClientSession(timeout=timeout) as http:
            with pytest.raises(TimeoutError):
                await http.post(simulator.url + _TARGET, json=_BODY, headers={"x-goog-api-key": "k"})

        assert await simulator.count_calls() == 1


async def test_a_stream_whose_client_hangs_up_is_billed_for_what_it_was_sent() -> None:
    """The log says what the last chunk that left has said; a unary call that is given up is billed whole."""
    stream = _TARGET.replace("generateContent", "streamGenerateContent?alt=sse")
    body = {"contents": [{"parts": [{"text": "[[tokens:1600]]"}]}]}
    async with running_simulator(models={"*": {"tokens_per_second": 800}}) as simulator:
        async with aiohttp.ClientSession(headers={"x-goog-api-key": "k"}) as http:
            async with http.post(simulator.url + stream, json=body) as answer:
                read = [await answer.content.readuntil(b"\r\n\r\n") for _ in range(5)]
                (whole,) = await simulator.calls()
            with pytest.raises(TimeoutError):
                await http.post(simulator.url + _TARGET, json=body, timeout=aiohttp.ClientTimeout(total=1))
            async with asyncio.timeout(5):
                while (await simulator.calls())[0].usage == whole.usage:  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.02)
        cut, unary = await simulator.calls()

    told = orjson.loads(read[-1].removeprefix(b"data: "))["usageMetadata"]
    assert told["candidatesTokenCount"] <= cut.usage["candidatesTokenCount"] < 1600
    assert whole.usage["candidatesTokenCount"] == unary.usage["candidatesTokenCount"] == 1600


async def test_counts_are_by_model_and_refused_calls_are_not_counted() -> None:
    """Filters narrow the count; a 404 or a 400 is nobody's call."""
    async with running_simulator() as simulator, aiohttp.ClientSession(headers={"x-goog-api-key": "k"}) as http:
        for model in ("gemini-3.5-flash", "gemini-3.5-flash", "gemini-2.5-pro", "gemini-0"):
            await http.post(f"{simulator.url}/v1beta/models/{model}:generateContent", json=_BODY)
        await http.post(simulator.url + _TARGET, data=b"{not json")

        assert await simulator.count_calls() == 3
        assert await simulator.count_calls(model="gemini-3.5-flash") == 2


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\x00",
        b"[]",
        b"null",
        b'{"contents": [null]}',
        b'{"contents": [{"parts": [null]}]}',
        b'{"contents": 3, "seed": 99999999999999999999999}',
        b'{"a":' * 5_000,
        b'{"contents": [{"parts": [{"text": "' + b"x" * 20_000 + b'"}]}]}',
        b'{"contents": [{"parts": [{"text": "Hi"}]}], "generationConfig": {"seed": 1e300}}',
    ],
    ids=lambda body: body[:24].decode(errors="replace"),
)
async def test_a_bad_or_oversized_body_is_a_400_and_serving_goes_on(body: bytes) -> None:
    """Nothing that a client sends ends the simulator or gets another answer than Gemini's 400."""
    async with (
        running_simulator(body_limit_bytes=10_000) as simulator,
        aiohttp.ClientSession(headers={"x-goog-api-key": "k"}) as http,
    ):
        async with http.post(simulator.url + _TARGET, data=body) as refused:
            error = (await refused.json())["error"]
        async with http.post(simulator.url + _TARGET, json=_BODY) as answered:
            status = answered.status

        assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
        assert status == 200
        assert await simulator.count_calls() == 1


async def test_sigterm_ends_it_cleanly_even_while_a_call_hangs() -> None:
    """Exit code 0 within seconds."""
    async with (
        running_simulator(faults=[{"kind": "hang"}]) as simulator,
        aiohttp.ClientSession(headers={"x-goog-api-key": "k"}) as http,
    ):
        hanging = asyncio.create_task(http.post(simulator.url + _TARGET, json=_BODY))
        async with asyncio.timeout(5):
            while await simulator.count_calls() == 0:  # noqa: ASYNC110 - another process has no event to wait for
                await asyncio.sleep(0.01)

        code = await asyncio.wait_for(simulator.stop(), 10)

        assert code == 0
        with pytest.raises(aiohttp.ClientError):
            await hanging


async def test_only_known_keys_are_accepted_when_the_configuration_says_so() -> None:
    """The keys of the configuration belong to their projects."""
    keys = {"good": {"project": "p-1"}}
    async with running_simulator(only_known_keys=True, keys=keys) as simulator, aiohttp.ClientSession() as http:
        statuses = []
        for key in ("good", "bad", ""):
            async with http.post(simulator.url + _TARGET, json=_BODY, headers={"x-goog-api-key": key}) as answer:
                statuses.append(answer.status)

        assert statuses == [200, 400, 403]
        assert await simulator.count_calls(project="p-1") == 1


def test_a_port_in_use_is_a_clear_error_that_names_it(tmp_path: Path) -> None:
    """Exit code 1 and the address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [
            sys.executable,
            "-m",
            "tollhouse_server.simulator",
            "--port",
            str(port),
            "--log",
            str(tmp_path / "log"),
        ]
        ended = subprocess.run(
            command, capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)}, timeout=20, check=False
        )

    assert ended.returncode == 1
    assert f"127.0.0.1:{port}: Address already in use" in ended.stderr


async def test_it_ends_when_the_process_that_started_it_is_gone() -> None:
    """The end of its standard input is the end of it."""
    async with running_simulator() as simulator:
        process = simulator._running()
        assert process.stdin is not None
        process.stdin.close()

        assert await asyncio.wait_for(process.wait(), 10) in {0, -signal.SIGTERM}
