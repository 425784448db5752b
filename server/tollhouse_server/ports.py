"""Ports that this server is to listen on."""

import socket
from dataclasses import dataclass

from tollhouse_server.errors import TollhouseError

LOOPBACK = "127.0.0.1"


@dataclass(eq=False, kw_only=True)
class PortInUse(TollhouseError):
    """Another program listens on a port that a part of this server needs."""

    port: int
    purpose: str
    setting: str

    def message(self) -> str:
        return (
            f"Port {self.port}, needed for {self.purpose}, is in use; "
            f"set {self.setting} to a free port or stop that program."
        )


def claim_port(port: int, *, purpose: str, setting: str, host: str = LOOPBACK) -> int:
    """Return `port` if nobody listens on it; for 0, a port that is free now.

    Raises:
        PortInUse: somebody does.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Connections of a server that just ended linger in TIME_WAIT; they do not block a new listener.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            # Binding alone is not enough: two sockets with SO_REUSEADDR may share a port until one listens.
            probe.listen(1)
        except OSError as error:
            raise PortInUse(port=port, purpose=purpose, setting=setting) from error
        return int(probe.getsockname()[1])
