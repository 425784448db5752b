"""When Python looks for garbage: a module of its own, so that a worker inside Envoy loads no supervisor for it."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Modules are no garbage: to look for some while they are loaded costs a sixth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def tune_garbage_collection() -> None:
    """Leave what was built at the start alone, and look at the rest more seldom: it cost a tenth of a call."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
