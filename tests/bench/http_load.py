"""Callers of one address over HTTP/1.1 with keep-alive, for upstreams and peers: as cheap as those of `governed_load`.

`python -m tests.bench.http_load` reads a Load as JSON from standard input and writes a Told as JSON. Every caller has a
connection of his own; requests are the same bytes each time. A call is answered when its status is 200.
"""

import asyncio
import base64
import time
from functools import partial
from typing import cast

import httptools

from tests.bench.tally import Load, Tally, Told, run_callers


class _Caller(asyncio.Protocol):
    """One caller and his connection."""

    def __init__(self, tally: Tally, request: bytes) -> None:
        self._tally, self._request = tally, request
        self._is_waiting = False
        self._first_at = self._began_at = 0.0
        self._pieces = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpResponseParser(self)
        self._call()

    def connection_lost(self, _: Exception | None) -> None:
        self._tally.failed("connection lost", int(self._is_waiting))
        if not self.done.done():
            self.done.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, _: bytes) -> None:
        self._pieces += 1
        self._first_at = self._first_at or time.perf_counter()

    def on_message_complete(self) -> None:
        self._is_waiting, status = False, self._parser.get_status_code()
        if status == 200:
            self._tally.answered(began_at=self._began_at, first_at=self._first_at, messages=self._pieces)
        else:
            self._tally.failed(f"HTTP {status}")
        # Never from within the parser: the next answer might be parsed before this one is done.
        asyncio.get_running_loop().call_soon(self._call)

    def _call(self) -> None:
        now = time.perf_counter()
        if now >= self._tally.ends_at or self._transport.is_closing():
            self._transport.close()
            return
        self._is_waiting, self._began_at, self._first_at, self._pieces = True, now, 0.0, 0
        self._transport.write(self._request)


def _request(load: Load) -> bytes:
    body = base64.b64decode(load.body)
    fields = {
        "host": load.target,
        "content-type": "application/json",
        "content-length": str(len(body)),
        **load.metadata,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {load.path} HTTP/1.1\r\n{head}\r\n".encode() + body


async def send(load: Load) -> Told:
    """Load the server until the time is up and every call has ended."""
    loop = asyncio.get_running_loop()
    host, _, port = load.target.rpartition(":")
    tally, request = Tally(load), _request(load)
    tally.begin()
    opened = [
        (await loop.create_connection(partial(_Caller, tally, request), host, int(port)))[1]
        for _ in range(load.callers)
    ]
    await asyncio.gather(*(one.done for one in opened))
    return tally.end()


if __name__ == "__main__":
    run_callers(send)
