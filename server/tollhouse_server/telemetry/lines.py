"""Lines on their way to stderr. Whoever writes one never waits: not for a slow pipe, not for a full disk."""

import atexit
import os
import threading
import time
from collections import deque

_MOST_WAITING = 20_000
"""Lines kept for a reader that does not read; they take some 15 MB. What comes then is dropped and counted."""

_LINGER_SECONDS = 0.005
"""Under load lines go out together: each write costs as much as making a line."""

_END_SECONDS = 2.0


class LineWriter:
    """Writes lines to a file descriptor from a thread of its own."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiting: deque[bytes] = deque()
        self._some = threading.Event()
        self._is_idle = threading.Event()
        self._is_idle.set()
        self._untold = 0
        self.dropped = 0
        """Lines that were never written."""

    def start(self) -> "LineWriter":
        """Start writing; what still waits is written when the process ends."""
        threading.Thread(target=self._run, name="log", daemon=True).start()
        atexit.register(self.flush)
        return self

    def write(self, line: bytes) -> None:
        """Have a line written, its end included."""
        if len(self._waiting) >= _MOST_WAITING:
            self._drop(1)
            return
        self._waiting.append(line)
        if not self._some.is_set():
            self._is_idle.clear()
            self._some.set()

    def flush(self, seconds: float = _END_SECONDS) -> bool:
        """Wait until everything is written, and tell whether it was."""
        return self._is_idle.wait(seconds)

    def _run(self) -> None:
        while True:
            self._some.wait()
            time.sleep(_LINGER_SECONDS)
            self._some.clear()
            self._write_all()
            # Whoever wrote meanwhile has set it again, or his line was taken.
            if not self._some.is_set():
                self._is_idle.set()

    def _write_all(self) -> None:
        lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
        try:
            _write(self._descriptor, b"".join(lines))
        except OSError:
            self._drop(len(lines))
            return
        if self._untold:
            told, self._untold = self._untold, 0
            self._waiting.append(b'{"event": "log_lines_dropped", "level": "error", "count": %d}\n' % told)
            self._some.set()

    def _drop(self, lines: int) -> None:
        self.dropped += lines
        self._untold += lines


def _write(descriptor: int, text: bytes) -> None:
    """Write all of it.

    Raises:
        OSError: nobody reads, or there is no room; a part may have been written.
    """
    left = memoryview(text)
    while left:
        left = left[os.write(descriptor, left) :]
