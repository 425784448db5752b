"""What a fault does inside the process that it hits."""

import asyncio
import ctypes
import os
import signal
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress

import psutil

KILL, CANCEL, STOP = "kill", "cancel", "stop"
RESET_POSTGRES, RESET_UPSTREAM = "reset-postgres", "reset-upstream"
FAULTS = (KILL, CANCEL, STOP, RESET_POSTGRES, RESET_UPSTREAM)

_AF_UNSPEC = 0


def strikes(ports: Mapping[str, int]) -> Mapping[str, Callable[[], None]]:
    """Return what each fault does; `ports` says where PostgreSQL and the upstream listen."""
    return {
        KILL: lambda: os.kill(os.getpid(), signal.SIGKILL),
        CANCEL: cancel_current_task,
        # Whoever runs the test sends SIGCONT.
        STOP: lambda: os.kill(os.getpid(), signal.SIGSTOP),
        RESET_POSTGRES: lambda: reset_connections_to(ports["postgres"]),
        RESET_UPSTREAM: lambda: reset_connections_to(ports["upstream"]),
    }


def cancel_current_task() -> None:
    """Cancel the task that passes the boundary, as a caller that hangs up or a shutdown does."""
    task = asyncio.current_task()
    if task is not None:
        task.cancel()


def reset_connections_to(port: int) -> None:
    """Reset this process's TCP connections to a port: both ends see it at once."""
    found = [
        one.fd
        for one in psutil.Process().net_connections("tcp")
        if one.raddr and one.raddr.port == port and one.status == psutil.CONN_ESTABLISHED
    ]
    for descriptor in found:
        _reset(descriptor)


def _reset(descriptor: int) -> None:
    """Send a reset and leave the descriptor to its owner, who finds the connection broken.

    connect(2) with AF_UNSPEC dissolves a TCP connection; where the kernel will not, both directions are shut down.
    """
    address = struct.pack("H14x", _AF_UNSPEC)
    if ctypes.CDLL(None, use_errno=True).connect(descriptor, address, len(address)) != 0:
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as copy:
            copy.shutdown(socket.SHUT_RDWR)
