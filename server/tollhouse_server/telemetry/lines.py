"""Lines on their way to stderr. Whoever writes one never waits: not for a slow pipe, not for a full disk."""

import atexit
import os
import select
import threading
from collections import deque

_MOST_WAITING = 20_000
"""Lines kept for a reader that does not read; they take some 15 MB. What comes then is dropped and counted."""

_MOST_AT_ONCE = 512
"""Lines of one write: what a slow reader has not taken is out of the queue, and in no bound of it."""

_LINGER_SECONDS = 0.05
_MOST_LINGERING = 256
"""Lines go out together: to wake the thread for each cost more than to make it (some 40 us, and 25)."""

_END_SECONDS = 2.0
_LINE_END = ord("\n")


class LineWriter:
    """Writes lines to a file descriptor from a thread of its own."""

    def __init__(self, descriptor: int, *, linger_seconds: float = _LINGER_SECONDS) -> None:
        self._descriptor = descriptor
        self._linger_seconds = linger_seconds
        self._waiting: deque[bytes] = deque()
        self._some = threading.Event()
        self._hurry = threading.Event()
        self._is_idle = threading.Event()
        self._is_idle.set()
        self._untold = 0
        self._is_torn = False
        self.dropped = 0
        """Lines that were never written."""

    def start(self) -> "LineWriter":
        """Start writing; what still waits is written when the process ends."""
        threading.Thread(target=self._run, name="log", daemon=True).start()
        atexit.register(self.flush)
        return self

    def write(self, line: bytes, *, is_urgent: bool = False) -> None:
        """Have a line written, its end included: soon, or at once, with those that wait."""
        waiting = len(self._waiting)
        if waiting >= _MOST_WAITING:
            self._drop(1)
            return
        self._waiting.append(line)
        if (is_urgent or waiting >= _MOST_LINGERING) and not self._hurry.is_set():
            self._hurry.set()
        if not self._some.is_set():
            self._is_idle.clear()
            self._some.set()

    def flush(self, seconds: float = _END_SECONDS) -> bool:
        """Wait until everything is written, and tell whether it was."""
        self._hurry.set()
        return self._is_idle.wait(seconds)

    def _run(self) -> None:
        while True:
            self._some.wait()
            self._hurry.wait(self._linger_seconds)
            self._hurry.clear()
            self._some.clear()
            while self._waiting:
                self._write_some()
            # Whoever wrote meanwhile has set it again, or his line was taken.
            if not self._some.is_set():
                self._is_idle.set()

    def _write_some(self) -> None:
        """Write what has waited longest."""
        lines = [self._waiting.popleft() for _ in range(min(_MOST_AT_ONCE, len(self._waiting)))]
        text = b"".join([b"\n" if self._is_torn else b"", *lines])
        unwritten = _write(self._descriptor, text)
        if unwritten == len(text):
            self._drop(len(lines))
            return
        # What comes next must not stand in a line of which there is only a part.
        self._is_torn = bool(unwritten) and text[-unwritten - 1] != _LINE_END
        if unwritten:
            self._drop(text[-unwritten:].count(_LINE_END))
            return
        if self._untold:
            told, self._untold = self._untold, 0
            self._waiting.append(b'{"event": "log_lines_dropped", "level": "error", "count": %d}\n' % told)

    def _drop(self, lines: int) -> None:
        self.dropped += lines
        self._untold += lines


def _write(descriptor: int, text: bytes) -> int:
    """Write all of it; return how many bytes at its end could not be: nobody reads, or there is no room."""
    left = memoryview(text)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:
            # Somebody who has the same pipe has made it so: that its reader is slow is no reason to drop lines.
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()
        except OSError:
            break
    return len(left)
