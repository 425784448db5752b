"""The test's own way into a process of the server: `python -m tests.faults.worker` forks workers with gates in them.

Arguments name the places that get gates; without any it is those of a call's way.

It imports the server once, gates put in, and then forks a worker or a housekeeper for each line on stdin; a start
takes a fraction of a second instead of two. Each child opens the control socket that the line names: commands come in
by it, what happens goes out by it. The product knows nothing of all this.
"""

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from typing import Any

from tests.faults import gate as gates
from tests.faults.boundaries import PLACES
from tests.faults.strikes import strikes


class Control:
    """The child's end of the control socket: JSON lines."""

    def __init__(self, path: str, gate: gates.Gate, ports: Mapping[str, int]) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._gate = gate
        self._strikes = strikes(ports)

    def say(self, **message: Any) -> None:
        """Send a message; it has left this process on return, whatever becomes of it then."""
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def obey(self) -> None:
        """Carry out commands until the socket ends; then end the process: nobody steers it any more."""
        with self._socket.makefile("rb") as lines:
            for line in lines:
                self._carry_out(json.loads(line))
        os._exit(1)

    def _carry_out(self, command: Mapping[str, Any]) -> None:
        if command["do"] == "arm":
            self._gate.trap = self._trap(**command["trap"])
        elif command["do"] == "disarm":
            self._gate.trap = None
        passed = dict(self._gate.passed)
        if command["do"] == "report":
            self._gate.passed.clear()
        self.say(event="reply", passed=passed)

    def _trap(self, name: str, side: str, hit: int, fault: str) -> gates.Trap:
        def strike() -> None:
            self.say(event="struck", name=name, side=side, fault=fault)
            self._strikes[fault]()

        return gates.Trap(name=name, side=side, hit=hit, strike=strike)

    def announce(self, readable: int) -> None:
        """Say that the process serves, once it says so itself."""
        with os.fdopen(readable, "rb") as pipe:
            if pipe.read(1):
                self.say(event="ready", pid=os.getpid())


def main() -> None:
    """Fork a child for each line of stdin, until it ends."""
    gate = gates.install(sys.argv[1:] or PLACES)
    # The server's rooms may be imported only now.
    import tollhouse_server.processes  # noqa: F401, PLC0415

    # Nobody here asks how a child ended: the test sees its control socket close.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    sys.stdout.write("forks\n")
    sys.stdout.flush()
    for line in sys.stdin:
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _be_child(gate, **json.loads(line))


def _be_child(gate: gates.Gate, *, role: str, control: str, ports: Mapping[str, int], environment: Any) -> None:
    os.setsid()
    os.environ.update(environment)
    control_socket = Control(control, gate, ports)
    readable, writable = os.pipe()
    threading.Thread(target=control_socket.announce, args=(readable,), daemon=True).start()
    threading.Thread(target=control_socket.obey, daemon=True).start()
    status = _serve(role, writable)
    control_socket.say(event="bye", passed=dict(gate.passed))
    os._exit(status)


def _serve(role: str, ready_fd: int) -> int:
    import uvloop  # noqa: PLC0415
    from tollhouse_server import processes  # noqa: PLC0415
    from tollhouse_server.settings import load_settings  # noqa: PLC0415
    from tollhouse_server.telemetry.logging import configure_logging  # noqa: PLC0415

    settings = load_settings()
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    run = processes.work if role == "worker" else processes.keep_house
    try:
        uvloop.run(run(settings, ready_fd))
    except BaseException:  # noqa: BLE001 - printed, and the process ends with it
        # As the interpreter does for a program that fails; os._exit would keep it from us.
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


if __name__ == "__main__":
    main()
