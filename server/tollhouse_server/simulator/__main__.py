"""`python -m tollhouse_server.simulator --port 8090 --log PATH [--config FILE.json]`."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import uvloop

from tollhouse_server.simulator.app import build_app
from tollhouse_server.simulator.configuration import Configuration
from tollhouse_server.simulator.listeners import Listeners
from tollhouse_server.simulator.transport import Server, listen

READY = "simulator ready url="


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM; 0 is a clean end, 1 a port in use, 2 a wrong configuration."""
    options = _parser().parse_args(arguments)
    try:
        listeners = Listeners()
        app = build_app(Configuration.load(options.config), options.log, listeners)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return _fail(f"simulator: wrong configuration: {error}", 2)
    try:
        bound = listen(options.host, options.port)
    except OSError as error:
        return _fail(f"simulator: cannot listen on {options.host}:{options.port}: {error.strerror}", 1)
    host, port = bound.getsockname()[:2]
    server = Server(app, listeners, host=host, on_ready=lambda: _say(f"{READY}http://{host}:{port} pid={os.getpid()}"))
    if options.exit_with_stdin:
        threading.Thread(target=_stop_at_end_of_input, args=(server,), daemon=True).start()
    uvloop.run(server.serve(sockets=[bound]))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tollhouse_server.simulator", description="A simulator of the Gemini API.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, default=8090, help="port; 0 takes a free one (default %(default)s)")
    parser.add_argument("--log", type=Path, required=True, help="file of the durable call log")
    parser.add_argument("--config", type=Path, help="settings as JSON")
    parser.add_argument("--exit-with-stdin", action="store_true", help="end when standard input ends")
    return parser


def _stop_at_end_of_input(server: Server) -> None:
    """Whoever started this process holds its standard input; when he dies, nothing is left behind."""
    sys.stdin.read()
    server.stop()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _fail(line: str, code: int) -> int:
    sys.stderr.write(line + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
