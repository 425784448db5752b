"""Run as a script: drop privileges, tie this process to its parent's life, and become the command in the arguments.

`python -I -S launch.py PARENT_PID DEATH_SIGNAL UID GID KEEP_SEARCH -- COMMAND...`; a UID of -1 keeps the user.
A script of its own, not a `preexec_fn`: Python code between fork and exec deadlocks when another thread holds a lock.
Standard library only, no imports from the package, which `-I -S` hides: it starts in 10 ms and works for any user.
That is why it does not share `tollhouse_server.parent`, which ties the server's own processes to their parent.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_SET_SECUREBITS = 28
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAPABILITY_VERSION_3 = 0x20080522
CAP_DAC_OVERRIDE = 1
SECBIT_NO_SETUID_FIXUP = 1 << 2
CAP_DAC_READ_SEARCH = 2


def become(uid: int, gid: int, *, keep_search: bool) -> None:
    """Change to `uid` and `gid` for good; with `keep_search`, keep only the right to pass closed directories.

    Raises:
        SystemExit: that right cannot be kept.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if keep_search:
        libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
        # Without it access(2), by which initdb looks for its programs, leaves the capability out of account.
        libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    # A container may have dropped the narrower capability; the wider one is in the usual default set.
    if keep_search and not (_keep_only(libc, CAP_DAC_READ_SEARCH) or _keep_only(libc, CAP_DAC_OVERRIDE)):
        sys.exit("cannot keep the capability to walk through the closed directories above the state directory")


def _keep_only(libc: ctypes.CDLL, capability: int) -> bool:
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    bit = 1 << capability
    # effective, permitted, inheritable for capabilities 0-31, then the same for 32-63.
    sets = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)
    if libc.capset(header, sets) != 0:
        return False
    return bool(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) == 0)


def end_with_parent(parent_pid: int, death_signal: int) -> None:
    """Have the kernel send `death_signal` when the parent ends, however it ends; does nothing but on Linux.

    Raises:
        SystemExit: the parent has ended already.
    """
    if not sys.platform.startswith("linux"):
        return
    # After the change of user, which would clear it.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent_pid:
        sys.exit("the parent process ended")


def main(arguments: list[str]) -> None:
    """Become the command after `--`."""
    parent_pid, death_signal, uid, gid, keep_search = (int(value) for value in arguments[:5])
    command = arguments[6:]
    if uid >= 0:
        become(uid, gid, keep_search=bool(keep_search))
    if death_signal:
        end_with_parent(parent_pid, death_signal)
    os.execv(command[0], command)  # noqa: S606 - replacing this process is the purpose


if __name__ == "__main__":
    main(sys.argv[1:])
