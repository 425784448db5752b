"""A process that has loaded everything, and from which the others are forked: both ends of it.

To load the modules takes two seconds of a core, a fork some milliseconds: a worker that was killed soon serves again,
and what all of them have loaded is in memory once. The supervisor cannot fork by itself: it has threads and a loop.
"""

import asyncio
import errno
import gc
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from setproctitle import setproctitle

from tollhouse_server.settings import environment_without_settings

_LONGEST_MESSAGE, _LONGEST_STATUS = 2**17, 8
_ANSWER_SECONDS = 60.0
"""How long it may take to load, and then to fork, at most."""

_MALLOC = "glibc.malloc.mmap_threshold=1048576:glibc.malloc.trim_threshold=16777216:glibc.malloc.hugetlb=1"
"""What is large has pages of its own, large ones, and gives them back; unless somebody has said something else.

glibc itself maps nothing below the largest block that was ever freed: workers stayed 40 to 240 MB larger after some
calls of 20 MB. And such a block in pages of 4 KiB is mostly page faults: 20 MB take 6 times as long to copy.
"""

_UNKNOWN_STATUS = -int(signal.SIGKILL)
"""Of a process whose parent was killed, too."""


class ForkedProcess:
    """A process as its supervisor sees it, who is not its parent: as asyncio.subprocess.Process as far as it goes."""

    def __init__(self, pid: int, pidfd: int, status_fd: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._pidfd = pidfd
        self._status_fd = status_fd
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(status_fd, self._note_status)

    async def wait(self) -> int:
        """Wait for its end and return its exit status, negative for a signal."""
        await self._ended.wait()
        assert self.returncode is not None  # noqa: S101 - it ends with one
        return self.returncode

    def terminate(self) -> None:
        """Have it drain and end.

        Raises:
            ProcessLookupError: it has ended.
        """
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once.

        Raises:
            ProcessLookupError: it has ended.
        """
        self._send(signal.SIGKILL)

    def _send(self, sent: signal.Signals) -> None:
        if self.returncode is not None:
            raise ProcessLookupError
        # Not by its id, which another process may have by now.
        signal.pidfd_send_signal(self._pidfd, sent)

    def _note_status(self) -> None:
        """Hear how it ended from its parent, or that its parent has ended: it is draining then."""
        told = os.read(self._status_fd, _LONGEST_STATUS)
        self._loop.remove_reader(self._status_fd)
        os.close(self._status_fd)
        if told:
            self._note_end(int(told))
        else:
            self._loop.add_reader(self._pidfd, self._note_end, _UNKNOWN_STATUS)

    def _note_end(self, status: int) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.returncode = status
        self._ended.set()


class ForkServer:
    """The supervisor's end. It loads from the moment that the block is entered, so enter it early.

    What is forked writes to `log_path`; None leaves its output on this process's stderr. `metrics_environment` says
    where it keeps its metrics, which is settled while it loads.
    """

    def __init__(self, metrics_environment: Mapping[str, str], *, log_path: Path | None = None) -> None:
        self._environment = {**environment_without_settings(), **metrics_environment}
        # Not the first: glibc moves it, and setproctitle looks for the title's place before the first variable.
        self._environment.setdefault("GLIBC_TUNABLES", _MALLOC)
        self.log_path = log_path
        self._control: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._asking = asyncio.Lock()
        self._is_closed = False

    async def __aenter__(self) -> Self:
        self._control = await self._start()
        return self

    async def __aexit__(self, *error: object) -> None:
        self._is_closed = True
        await self._close()

    async def fork(self, role: str, environment: Mapping[str, str], *, ready_fd: int) -> ForkedProcess:
        """Start a process of a role; it writes to `ready_fd` once it works.

        Raises:
            OSError: the fork server cannot be started, or ends.
        """
        message = json.dumps({"role": role, "environment": dict(environment)}).encode()
        async with self._asking:
            try:
                return await self._ask(message, ready_fd)
            except (ConnectionError, TimeoutError):
                # It was ended, and with it all processes; or it stands still.
                await self._close()
                return await self._ask(message, ready_fd)

    async def _close(self) -> None:
        """End it; what was forked and still lives is told to drain."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            # It may be loading still, or stand still; it has nothing to lose.
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
            self._process = None

    async def _ask(self, message: bytes, ready_fd: int) -> ForkedProcess:
        if self._is_closed:
            raise BrokenPipeError
        if self._control is None:
            self._control = await self._start()
        readable, writable = os.pipe()
        try:
            socket.send_fds(self._control, [message], [ready_fd, writable])
            answer, descriptors, _, _ = await asyncio.to_thread(socket.recv_fds, self._control, _LONGEST_MESSAGE, 1)
            if not answer:
                raise BrokenPipeError
            if int(answer) < 0:
                raise OSError(-int(answer), os.strerror(-int(answer)))
            if not descriptors:
                # It was forked, and ends when it finds nobody to say to that it works.
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        except BaseException:
            os.close(readable)
            raise
        finally:
            os.close(writable)
        return ForkedProcess(int(answer), descriptors[0], readable)

    async def _start(self) -> socket.socket:
        with ExitStack() as opened:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            opened.enter_context(ours)
            with theirs, self.log_path.open("ab") if self.log_path else nullcontext() as log:
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "tollhouse_server", "fork-server"),
                    *("--control-fd", str(theirs.fileno()), "--parent-pid", str(os.getpid())),
                    env=dict(self._environment),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(theirs.fileno(),),
                    # Ctrl-C in the terminal is for the supervisor: it drains the others.
                    start_new_session=True,
                )
            opened.pop_all()
        ours.settimeout(_ANSWER_SECONDS)
        return ours


@dataclass(slots=True)
class _Children:
    """What was forked, by pidfd: its id, and where its exit status is to be told."""

    selector: selectors.BaseSelector
    living: dict[int, tuple[int, int]] = field(default_factory=dict)

    def fork(self, descriptors: Sequence[int]) -> tuple[int, int]:
        """Fork: return the child's id and pidfd, and in the child zeros.

        `descriptors` are the child's, to say that it works, and ours, to say how it ended; what fails closes both.

        Raises:
            OSError: there is no room for a process or a descriptor more.
        """
        try:
            ready_fd, status_fd = descriptors
            pid = os.fork()
        except (OSError, ValueError):
            for descriptor in descriptors:
                os.close(descriptor)
            # What does not fit is cut off by the kernel.
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE)) from None
        if not pid:
            self._forget()
            os.close(status_fd)
            return 0, 0
        os.close(ready_fd)
        try:
            return pid, self._watch(pid, status_fd)
        except OSError:
            # Nobody would hear of its end.
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(status_fd)
            raise

    def _watch(self, pid: int, status_fd: int) -> int:
        pidfd = os.pidfd_open(pid)
        self.living[pidfd] = (pid, status_fd)
        self.selector.register(pidfd, selectors.EVENT_READ)
        return pidfd

    def bury(self, pidfd: int) -> None:
        """Tell how a child ended."""
        pid, status_fd = self.living.pop(pidfd)
        self.selector.unregister(pidfd)
        os.close(pidfd)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        # The supervisor may be gone.
        with suppress(BrokenPipeError), os.fdopen(status_fd, "wb") as status:
            status.write(str(code).encode())

    def _forget(self) -> None:
        """Close, in a child, what is its parent's."""
        for pidfd, (_, status_fd) in self.living.items():
            os.close(pidfd)
            os.close(status_fd)
        self.selector.close()


def fork_on_demand(control_fd: int) -> Sequence[str] | None:
    """Fork a process for each message until the socket ends: return None then, and in each child its arguments."""
    # What is loaded is no garbage, and to look at it would copy its pages.
    gc.freeze()
    setproctitle("tollhouse-server fork-server")
    control, children = socket.socket(fileno=control_fd), _Children(selectors.DefaultSelector())
    children.selector.register(control, selectors.EVENT_READ)
    with suppress(EOFError):
        while True:
            for key, _ in children.selector.select():
                if key.fileobj is not control:
                    children.bury(key.fd)
                elif (arguments := _fork_for_one(control, children)) is not None:
                    return arguments
    return None


def _fork_for_one(control: socket.socket, children: _Children) -> Sequence[str] | None:
    """Fork a process for a message: return None, and in the child its arguments.

    The message holds secrets. Nobody else has it, so it is gone in both when this returns.

    Raises:
        EOFError: there is nobody any more to send one.
    """
    message, descriptors, _, _ = socket.recv_fds(control, _LONGEST_MESSAGE, 2)
    if not message:
        raise EOFError
    parent_pid = os.getpid()
    try:
        pid, pidfd = children.fork(descriptors)
    except OSError as error:
        # Those that it has forked before go on.
        control.send(str(-(error.errno or errno.EIO)).encode())
        return None
    if not pid:
        control.close()
        return _arguments(**json.loads(message), ready_fd=descriptors[0], parent_pid=parent_pid)
    socket.send_fds(control, [str(pid).encode()], [pidfd])
    return None


def _arguments(*, role: str, environment: Mapping[str, str], ready_fd: int, parent_pid: int) -> Sequence[str]:
    os.setsid()
    os.environ.update(environment)
    setproctitle(f"tollhouse-server {role}")
    return role, "--ready-fd", str(ready_fd), "--parent-pid", str(parent_pid)
