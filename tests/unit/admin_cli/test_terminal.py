"""What differs when a person sits at a terminal: questions, and protection from what an answer contains."""

import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from google.type.money_pb2 import Money
from tollhouse.admin.v1 import tenants_pb2
from tollhouse.v1 import content_pb2, generation_pb2

from tests.unit.admin_cli.canned import CannedServer

ROOT = Path(__file__).resolve().parents[3]
SOURCES = os.pathsep.join(str(ROOT / folder) for folder in ("protos", "admin_cli"))
# Whoever runs the tests in the background has told the shell that Ctrl-C is to be ignored. Not a `preexec_fn`, which
# forks this process while its gRPC server is at work: now and then that server hangs ever after.
_LET_CTRL_C_END = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def start(terminal: int, *arguments: str, kind: str = "dumb") -> "subprocess.Popen[bytes]":
    """Start the program on a terminal, configured as this process is."""
    return subprocess.Popen(
        [sys.executable, "-c", _LET_CTRL_C_END, "-m", "tollhouse_admin", *arguments],
        env={**os.environ, "PYTHONPATH": SOURCES, "TERM": kind},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )


def read_all(screen: int) -> str:
    """What was shown until the program ended."""
    shown = b""
    while True:
        try:
            piece = os.read(screen, 4096)
        except OSError:
            # Linux reports the end of a terminal's last user as an error.
            return shown.decode()
        if not piece:
            return shown.decode()
        shown += piece


@pytest.mark.parametrize(("answer", "code", "calls"), [("y\n", 0, 1), ("n\n", 1, 0), ("\n", 1, 0)])
def test_a_person_is_asked_before_something_is_destroyed(
    server: CannedServer, answer: str, code: int, calls: int
) -> None:
    """Only a yes goes on."""
    server.answers["DeleteTenant"] = tenants_pb2.Tenant(name="tenants/acme")
    screen, terminal = pty.openpty()

    program = start(terminal, "tenants", "delete", "acme")
    os.close(terminal)
    os.write(screen, answer.encode())
    shown = read_all(screen)

    assert program.wait(30) == code
    assert (
        "Every credential of tenants/acme will be refused; for 30 days it can be undeleted, then it is purged. Go on?"
        in shown
    )
    assert len(server.received) == calls


def test_an_answer_cannot_steer_the_terminal(server: CannedServer) -> None:
    """A model may be talked into writing escape sequences; a pipe gets them as they are, a terminal does not."""
    text = content_pb2.Part(text="a\x1b]0;owned\x07b\ttab\nline")
    server.answers["StreamGenerateContent"] = [
        generation_pb2.GenerateContentResponse(
            candidates=[content_pb2.Candidate(content=content_pb2.Content(parts=[text]))],
            outcome=generation_pb2.Outcome(cost=Money(nanos=1)),
        )
    ]
    screen, terminal = pty.openpty()

    program = start(terminal, "generate", "x")
    os.close(terminal)
    shown = read_all(screen)

    assert program.wait(30) == 0
    assert "a\ufffd]0;owned\ufffdb\ttab" in shown
    assert "\x1b" not in shown


def test_ctrl_c_ends_a_call_with_its_request_id(server: CannedServer) -> None:
    """What was produced is paid for, and can be looked up."""
    asked, hang = threading.Event(), threading.Event()

    def silence(_request: object) -> list[generation_pb2.GenerateContentResponse]:
        asked.set()
        hang.wait(20)
        return []

    server.answers["StreamGenerateContent"] = silence
    screen, terminal = pty.openpty()

    program = start(terminal, "generate", "x")
    os.close(terminal)
    assert asked.wait(30)
    program.send_signal(signal.SIGINT)
    shown = read_all(screen)
    hang.set()

    assert program.wait(30) == 130
    assert f"tollhouse usage receipt {server.last.request.request_id}" in shown
    assert "Traceback" not in shown
