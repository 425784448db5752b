"""Servers that end a connection which nobody uses, in the very moment in which somebody wants to."""

import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from tollhouse_server.upstream.http import open_transport

from tests.drivers.exchanges import ask
from tests.drivers.wire import answer

_RESET = struct.pack("ii", 1, 0)


class Fickle:
    """A server in a thread that ends each connection after one answer, when it is told to."""

    def __init__(self, *, reset: bool) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._reset = reset
        self._may_end = threading.Event()
        self._has_ended = threading.Event()
        self.requests = 0
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        for _ in range(2):
            wire, _ = self._socket.accept()
            seen = b""
            while not seen.endswith(b"\r\n\r\n{}"):
                seen += wire.recv(65536)
            self.requests += 1
            wire.sendall(answer(b"whole"))
            self._may_end.wait()
            if self._reset:
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            wire.close()
            self._has_ended.set()

    def end_connection(self) -> None:
        """End the connection there is. Whoever calls this from an event loop has not heard of it on return."""
        self._may_end.set()
        assert self._has_ended.wait(5)

    def close(self) -> None:
        self._thread.join(5)
        self._socket.close()


@pytest.fixture(params=[False, True], ids=["closes", "resets"])
def fickle(request: pytest.FixtureRequest) -> Iterator[Fickle]:
    """A server whose connections end in good order, or are reset."""
    server = Fickle(reset=request.param)
    yield server
    server.close()


async def test_a_farewell_that_has_arrived_is_no_broken_exchange(fickle: Fickle) -> None:
    """Nothing was sent, so nothing is in suspense: the next request goes out on another connection."""
    async with open_transport() as transport:
        await ask(transport, fickle.url)
        fickle.end_connection()

        assert await ask(transport, fickle.url) == b"whole"

    assert fickle.requests == 2
