"""An object store that is unwell: it answers with errors, redirects or nonsense, hangs up, hangs, or is slow."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

_SLOW_BYTES: Final = 65_536


class SickStore:
    """What a store does to a PUT, and what it has heard.

    `ails` is a status, with a body that repeats the access key as real ones do, or one of: `cut` (hangs up within the
    body), `hangs up` (behind it), `hangs`, `nonsense` (no HTTP), `a page` (200 with HTML), `slow` (takes the body in
    pieces, a pause before each). From the PUT with the number `hangs_from` on it hangs, too.
    """

    def __init__(self) -> None:
        self.ails: int | str = 200
        self.port = 0
        self.puts: list[str] = []
        self.taken: dict[str, bytes] = {}
        self.pause_seconds = 0.0
        self.hangs_from = 0
        self.over = threading.Event()

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, store: SickStore) -> None:
        self.store = store
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: the other end has left, as it should."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_PUT(self) -> None:
        store = self.server.store
        store.puts.append(self.path)
        if store.ails == "cut":
            self.rfile.read(1000)
            self._hang_up()
            return
        body = self._body()
        if store.ails == "hangs" or 0 < store.hangs_from <= len(store.puts):
            store.over.wait(60)
            self._hang_up()
        elif store.ails == "hangs up":
            self._hang_up()
        elif store.ails == "nonsense":
            self.wfile.write(b"\0\xff what?\r\n\r\n")
            self._hang_up()
        elif store.ails == "a page":
            self._answer(200, b"<html>Please log in</html>")
        elif isinstance(store.ails, int) and store.ails >= 300:
            self._answer(store.ails, b"<Error><Code>Unwell</Code><AWSAccessKeyId>the key</AWSAccessKeyId></Error>")
        else:
            store.taken[self.path] = body
            self._answer(200, b"", etag='"1"')

    def _body(self) -> bytes:
        left, pieces = int(self.headers.get("Content-Length", 0)), []
        while left > 0:
            if self.server.store.ails == "slow":
                self.server.store.over.wait(self.server.store.pause_seconds)
            piece = self.rfile.read(min(left, _SLOW_BYTES))
            if not piece:
                raise ConnectionResetError("it was killed while it wrote")
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def _answer(self, status: int, body: bytes, etag: str = "") -> None:
        self.send_response(status)
        if status < 400 and status >= 300:
            self.send_header("Location", f"{self.server.store.endpoint}/elsewhere")
        if etag:
            self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(2)


@contextmanager
def open_sick_store() -> Iterator[SickStore]:
    """Run such a store on a free port of loopback."""
    store = SickStore()
    server = _Server(store)
    store.port = server.server_address[1]
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    serving.start()
    try:
        yield store
    finally:
        store.over.set()
        server.shutdown()
        serving.join()
        server.server_close()
