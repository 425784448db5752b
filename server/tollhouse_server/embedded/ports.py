"""Loopback ports of the embedded parts."""

import socket

from tollhouse_server.embedded.errors import PortInUse

LOOPBACK = "127.0.0.1"


def claim_port(port: int, *, purpose: str, setting: str) -> int:
    """`port` if nobody listens on it, else PortInUse; for 0, a port that is free now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Connections of a server that just ended linger in TIME_WAIT; they do not block a new listener.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            # Binding alone is not enough: two sockets with SO_REUSEADDR may share a port until one listens.
            probe.listen(1)
        except OSError as error:
            raise PortInUse(port=port, purpose=purpose, setting=setting) from error
        return int(probe.getsockname()[1])
