"""Long work on the event loop, a slice at a time.

A thread would not do better: it holds the interpreter as long, and gives it up only every five milliseconds.
"""

import asyncio
import time
from collections.abc import Generator
from typing import Final, TypeVar

T = TypeVar("T")

_SLICE_SECONDS: Final = 0.002


async def unhurried(steps: Generator[None, None, T]) -> T:
    """Take all steps and return what they come to; others have their turn after each two milliseconds of them."""
    until = time.perf_counter() + _SLICE_SECONDS
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result
        if time.perf_counter() > until:
            await asyncio.sleep(0)
            until = time.perf_counter() + _SLICE_SECONDS
