"""A driven process's end of the socket by which a test drives it."""

import json
import os
import socket
from collections.abc import Mapping
from typing import Any

from tests.faults import gate as gates
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
