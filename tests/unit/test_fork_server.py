"""The process from which the others are forked keeps nothing of what it is told for them."""

import os
import subprocess
import sys

# It forks one process, and then looks through its own frames while it waits for the next message.
_FORK_ONE = """
import json, os, socket, sys, threading
from tollhouse_server.fork_server import fork_on_demand

ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
main = threading.get_ident()

def frames_of(thread):
    frame = sys._current_frames()[thread]
    while frame is not None:
        yield frame
        frame = frame.f_back

def ask():
    message = json.dumps({"role": "worker", "environment": {"TOLLHOUSE_POSTGRES_DSN": "hidden"}}).encode()
    pipes = [os.pipe(), os.pipe()]
    socket.send_fds(ours, [message], [writable for _, writable in pipes])
    pid, *_ = socket.recv_fds(ours, 100, 1)
    while not any(frame.f_code.co_name == "select" for frame in frames_of(main)):
        pass
    held = [repr(value) for frame in frames_of(main) for value in frame.f_locals.values()]
    os.write(1, f"{int(pid) > 0} {any('hidden' in value for value in held)}".encode())
    ours.close()

threading.Thread(target=ask).start()
fork_on_demand(theirs.detach())
os._exit(0)
"""


def test_settings_are_forgotten_once_a_process_is_forked() -> None:
    """They hold secrets; the fork server lives for months, and each of its children has a copy of its memory."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    forked = subprocess.run(
        [sys.executable, "-c", _FORK_ONE], env=environment, capture_output=True, check=False, timeout=60
    )

    assert (forked.returncode, forked.stdout.decode().split()) == (0, ["True", "False"])
