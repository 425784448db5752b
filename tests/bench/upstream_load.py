"""A process that does nothing but call an upstream, set up as a worker is: `python -m tests.bench.upstream_load`.

Reads a Plan as JSON from standard input and writes a Measured as JSON.
"""

import asyncio
import json
import ssl
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import aiohttp
import orjson
import uvloop
from google import genai
from google.genai import types
from tollhouse_server.garbage_collection import tune_garbage_collection
from tollhouse_server.ledger.ledger import new_attempt_id
from tollhouse_server.upstream.gemini import GeminiUpstream
from tollhouse_server.upstream.http import PooledTransport
from tollhouse_server.upstream.protocol import Destination, Method, UpstreamCall

MODEL = "gemini-3.5-flash"
ROUNDS = 3
BODY: dict[str, Any] = {
    "contents": [{"role": "user", "parts": [{"text": "How long is the bridge? " * 18}]}],
    "generationConfig": {"temperature": 0.5, "maxOutputTokens": 64, "stopSequences": ["END"]},
}
Call: TypeAlias = Callable[[], Awaitable[int]]
"""Makes one call and returns how many units it brought: itself, or chunks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do: so many calls from so many callers, by `tollhouse`, `aiohttp` or `google-genai`."""

    client: str
    url: str
    callers: int
    calls: int
    streams: bool
    authority: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What it took: the processor time of this process for one unit, the median of three rounds."""

    units: int
    cpu_us: float
    units_per_second: float


@asynccontextmanager
async def tollhouse(plan: Plan, context: ssl.SSLContext) -> AsyncIterator[Call]:
    """Our client: a body is written as JSON, the answer is read as JSON."""
    transport = PooledTransport(context)
    upstream = GeminiUpstream(transport)
    where = Destination(base_url=plan.url, api_version="v1beta", model=MODEL)

    def call(method: Method) -> UpstreamCall:
        return UpstreamCall(
            attempt_id=new_attempt_id(),
            destination=where,
            method=method,
            body=orjson.dumps(BODY),
            timeout_seconds=60.0,
            silence_seconds=30.0,
            key="key",
        )

    async def unary() -> int:
        return len((await upstream.call(call(Method.GENERATE)))["candidates"])

    async def stream() -> int:
        return sum([1 async for _ in upstream.stream(call(Method.STREAM))])

    yield stream if plan.streams else unary
    transport.close()


@asynccontextmanager
async def bare_aiohttp(plan: Plan, context: ssl.SSLContext) -> AsyncIterator[Call]:
    """Nothing but aiohttp and orjson: no errors told apart, no bound on silence."""
    url, headers = f"{plan.url}/v1beta/models/{MODEL}:", {"x-goog-api-key": "key", "content-type": "application/json"}
    connector = aiohttp.TCPConnector(limit=0, ssl=context)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:

        async def unary() -> int:
            async with session.post(f"{url}generateContent", data=orjson.dumps(BODY), headers=headers) as answer:
                return len(orjson.loads(await answer.read())["candidates"])

        async def stream() -> int:
            chunks = 0
            address = f"{url}streamGenerateContent?alt=sse"
            async with session.post(address, data=orjson.dumps(BODY), headers=headers) as answer:
                async for line in answer.content:
                    if line.startswith(b"data:"):
                        chunks += len(orjson.loads(line[5:])["candidates"])
            return chunks

        yield stream if plan.streams else unary


@asynccontextmanager
async def google_genai(plan: Plan, context: ssl.SSLContext) -> AsyncIterator[Call]:
    """The SDK as an application uses it, its repetitions off."""
    retries = types.HttpRetryOptions(attempts=1)
    options = types.HttpOptions(
        base_url=plan.url, api_version="v1beta", retry_options=retries, async_client_args={"ssl": context}
    )
    gemini = genai.Client(api_key="key", http_options=options).aio
    off = types.AutomaticFunctionCallingConfig(disable=True)
    config = types.GenerateContentConfig(
        temperature=0.5,
        max_output_tokens=64,
        stop_sequences=["END"],
        automatic_function_calling=off,
        automatic_continuation=False,
    )

    async def unary() -> int:
        answer = await gemini.models.generate_content(model=MODEL, contents=BODY["contents"], config=config)
        return len(answer.candidates or ())

    async def stream() -> int:
        answer = await gemini.models.generate_content_stream(model=MODEL, contents=BODY["contents"], config=config)
        return sum([1 async for _ in answer])

    yield stream if plan.streams else unary
    await gemini.aclose()


CLIENTS = {"tollhouse": tollhouse, "aiohttp": bare_aiohttp, "google-genai": google_genai}


async def run_round(call: Call, plan: Plan) -> Measured:
    """Make the calls and count."""

    async def caller() -> int:
        return sum([await call() for _ in range(plan.calls // plan.callers)])

    cpu, started_at = time.process_time(), time.perf_counter()
    units = sum(await asyncio.gather(*(caller() for _ in range(plan.callers))))
    seconds = time.perf_counter() - started_at
    cpu_us = (time.process_time() - cpu) / units * 1e6
    return Measured(units=units, cpu_us=cpu_us, units_per_second=units / seconds)


async def measured(plan: Plan) -> Measured:
    """Warm up and run the rounds."""
    context = ssl.create_default_context(cafile=plan.authority or None)
    async with CLIENTS[plan.client](plan, context) as call:
        await asyncio.gather(*(call() for _ in range(plan.callers)))
        rounds = [await run_round(call, plan) for _ in range(ROUNDS)]
    return Measured(
        units=sum(one.units for one in rounds),
        cpu_us=statistics.median(one.cpu_us for one in rounds),
        units_per_second=statistics.median(one.units_per_second for one in rounds),
    )


if __name__ == "__main__":
    tune_garbage_collection()
    print(json.dumps(asdict(uvloop.run(measured(Plan(**json.loads(sys.stdin.readline())))))))  # noqa: T201 - the result
