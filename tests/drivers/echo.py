"""An upstream that says back everything it was sent, and so whatever secret came with it; the path says how."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

GOOD_TOKEN, REFUSED_TOKEN = "/token/good", "/token/refused"


@dataclass(slots=True)
class Echo:
    """A running one: `manners` are the first parts of the paths that were asked for, `assertions` what came as such."""

    url: str
    access_token: str
    manners: set[str] = field(default_factory=set)
    assertions: set[str] = field(default_factory=set)

    def answer(self, path: str, said: str) -> tuple[int, bytes]:
        """Return status and body for a request of which `said` is all that came."""
        manner = path.split("/")[1]
        self.manners.add(manner)
        if path == GOOD_TOKEN:
            return 200, _json({"access_token": self.access_token, "expires_in": 3600, "token_type": "Bearer"})
        if path == REFUSED_TOKEN:
            return 400, _json({"error": said[-90:], "error_description": said})
        if manner == "v2":
            return (403 if path.endswith("/keys") else 404 if "/keys/" in path else 500), _error(said)
        if manner.startswith("s"):
            return int(manner[1:]), _error(said)
        return 200, {"garbage": said.encode(), "list": _json([said]), "half": _json({"text": said})[:-1]}[manner]


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _error(said: str) -> bytes:
    detail = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": said,
        "domain": said,
        "metadata": {"a": said},
    }
    return _json({"error": {"code": 400, "status": said, "message": said, "details": [detail]}})


@contextmanager
def running_echo(access_token: str) -> Iterator[Echo]:
    """Run one on a free port of loopback, also as a plain proxy."""
    echo = Echo("", access_token)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0"))).decode(errors="replace")
            echo.assertions.update(parse_qs(body).get("assertion", []))
            asked = urlsplit(self.path)
            said = " ".join([self.path, *(str(value) for value in self.headers.values()), body])
            # Only what is asked of a proxy names a host.
            status, answer = (400, _error(said)) if asked.netloc else echo.answer(asked.path, said)
            if asked.netloc:
                echo.manners.add("proxy")
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_DELETE = do_POST  # noqa: N815 - the names that http.server looks for

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    echo.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield echo
    finally:
        server.shutdown()
        server.server_close()
