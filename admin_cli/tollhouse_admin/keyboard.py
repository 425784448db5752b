"""Keys that are pressed while something is shown, read one by one."""

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_SLICE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Keyboard:
    """The keys of a terminal; of what is no terminal there are none."""

    is_there: bool

    def pressed(self, seconds: float, *, until: Callable[[], bool] = lambda: False) -> str:
        """Wait for so long, or until a key is pressed or `until` is true; return the key, `q` for Ctrl-C too."""
        ends_at = time.monotonic() + seconds
        while (left := ends_at - time.monotonic()) > 0 and not until():
            piece = min(left, _SLICE_SECONDS)
            if not self.is_there:
                time.sleep(piece)
            elif select.select([sys.stdin], [], [], piece)[0]:
                found = os.read(sys.stdin.fileno(), 64)
                return "q" if not found or found[:1] == b"\x03" else chr(found[0]).lower()
        return ""


@contextmanager
def keyboard() -> Iterator[Keyboard]:
    """Let keys be read one by one and unseen."""
    if not sys.stdin.isatty():
        yield Keyboard(is_there=False)
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal)
        yield Keyboard(is_there=True)
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, before)
