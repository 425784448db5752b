"""An event loop whose clock jumps to the next timer instead of waiting: an hour of traffic in milliseconds."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.SelectSelector):
    """Passes time instead of waiting for files."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everybody waits, and nothing is left to happen")
        # A little more than asked for, as a real selector: a timer that is met half way would be set for ever.
        self.now += timeout + 1e-6 if timeout else 0.0
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop; `time()` is its clock."""

    def __init__(self) -> None:
        self._passing = _Selector()
        super().__init__(self._passing)

    def time(self) -> float:
        return self._passing.now


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run `coroutine` in virtual time."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.close()


def now() -> float:
    """The moment of the running loop."""
    return asyncio.get_running_loop().time()
