"""Keys that are pressed while something is shown, read one by one."""

import os
import re
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_SLICE_SECONDS = 0.2
_SEQUENCE = re.compile(r"\x1b(\[[0-9;]*[a-z~]|o[a-z])?")


@dataclass(frozen=True, slots=True)
class Keyboard:
    """The keys of a terminal; of what is no terminal there are none."""

    is_there: bool

    def pressed(self, seconds: float, *, until: Callable[[], bool] = lambda: False) -> str:
        """Wait for so long, or until a key is pressed or `until` is true; return what was pressed, `q` for the end."""
        ends_at = time.monotonic() + seconds
        while (left := ends_at - time.monotonic()) > 0 and not until():
            piece = min(left, _SLICE_SECONDS)
            if not self.is_there:
                time.sleep(piece)
            elif select.select([sys.stdin], [], [], piece)[0]:
                found = os.read(sys.stdin.fileno(), 64)
                # Without anything the terminal is gone; arrows and the like are no letters.
                return _SEQUENCE.sub("", found.decode(errors="replace").lower()) if found else "q"
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
