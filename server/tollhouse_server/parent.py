"""The process that started this one."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

KILL_AFTER_DRAIN_SECONDS = 10.0
"""How long after its drain a process is given to end."""


def end_with_parent(parent_pid: int) -> None:
    """Have the kernel send SIGTERM when the parent ends, however it ends: drain, do not linger.

    Only Linux can do that; elsewhere just the check is made.

    Raises:
        SystemExit: the parent has ended already.
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    # After the call: a parent that ended before it sends nothing.
    if os.getppid() != parent_pid:
        sys.exit("the parent process ended")


def say_ready(ready_fd: int) -> None:
    """Tell the parent, through what it reads, that this process does its work."""
    os.write(ready_fd, b"1")
    os.close(ready_fd)
