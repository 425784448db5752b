"""Ports that this server is to listen on."""

import socket
from dataclasses import dataclass

from tollhouse_server.errors import TollhouseError

LOOPBACK = "127.0.0.1"

_kept: list[socket.socket] = []
"""They are closed with the process: none knows when the last of its servers has stopped for good."""


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
    """Return `port` if nobody listens on it; for 0, a free one that is kept for this process.

    Raises:
        PortInUse: somebody does.
    """
    if port == 0:
        return keep_free_port(host)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Connections of a server that just ended linger in TIME_WAIT; they do not block a new listener.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            # Binding alone is not enough: two sockets with SO_REUSEADDR may share a port until one listens.
            probe.listen(1)
        except OSError as error:
            raise PortInUse(port=port, purpose=purpose, setting=setting) from error
    return port


def keep_free_port(host: str = LOOPBACK) -> int:
    """Return a port that nobody listens on, and keep the kernel from giving it to others while this process lives.

    What is bound and does not listen lets those listen who ask for that very port with SO_REUSEADDR or SO_REUSEPORT, as
    servers do; who asks for any port, or connects somewhere, gets another one. Without it, seconds pass between the
    choice and the listening, and on a busy host a connection of somebody else's took the port meanwhile.
    """
    keeper = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    keeper.bind((host, 0))
    _kept.append(keeper)
    return int(keeper.getsockname()[1])
