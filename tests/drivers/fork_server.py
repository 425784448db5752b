"""A program of ours, loaded once, and forked for each command: `python -P fork_server.py PROGRAM MODULE...`.

Each message on the socket that is stdin names arguments, environment and directory, and carries four descriptors: the
three streams of the command, and where its exit status is to be told.
"""

import gc
import importlib
import json
import os
import random
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

_LONGEST_MESSAGE = 2**18


def main() -> None:
    """Load the modules, and fork for each message until the socket ends."""
    program, *modules = sys.argv[1:]
    run = importlib.import_module(f"{program}.__main__").main
    for module in modules:
        importlib.import_module(module)
    # What is loaded is no garbage; looking at it would copy its pages in each command.
    gc.freeze()
    control = socket.socket(fileno=os.dup(0))
    # Each command tells itself how it ended.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, _LONGEST_MESSAGE, 4)
        if not message:
            return
        if os.fork() == 0:
            control.close()
            _be_command(run, program, descriptors, **json.loads(message))
        for descriptor in descriptors:
            os.close(descriptor)


def _be_command(
    run: Callable[[], Any],
    program: str,
    descriptors: Sequence[int],
    *,
    arguments: Sequence[str],
    environment: dict[str, str],
    directory: str,
) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *streams, ended = descriptors
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace")
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    sys.argv = [program, *arguments]
    # What is made up must not be the same in every command.
    random.seed()
    status = _status_of(run)
    os.write(ended, bytes([status]))
    os._exit(status)


def _status_of(run: Callable[[], Any]) -> int:
    """Run the program and return its exit status, as the interpreter does."""
    try:
        status = run()
    except SystemExit as end:
        status = end.code
    except BaseException:  # noqa: BLE001 - printed, and the process ends with it
        sys.excepthook(*sys.exc_info())
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return int(status or 0)


if __name__ == "__main__":
    main()
