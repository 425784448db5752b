"""Where a process writes for the Envoy that it becomes: a directory with a private key, and none is left behind."""

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

_PREFIX: Final = "tollhouse-envoy-"


def make_place() -> Path:
    """Make one in the temporary directory, and remove those of processes that were killed.

    It is locked for as long as this process lives, whatever it becomes by exec: the kernel unlocks it at its end.
    """
    parent = Path(tempfile.gettempdir())
    _clear(parent)
    unlocked = Path(tempfile.mkdtemp(prefix="tollhouse-"))
    held = os.open(unlocked, os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(held, True)  # noqa: FBT003 - it takes no name
    fcntl.flock(held, fcntl.LOCK_EX)
    # Only now it has the name that others look for: what is not locked yet would seem to be left behind.
    return unlocked.rename(parent / unlocked.name.replace("tollhouse-", _PREFIX, 1))


def _clear(parent: Path) -> None:
    for place in parent.glob(f"{_PREFIX}*"):
        # Another user's, or one that is in use or is being removed by somebody else.
        with suppress(OSError):
            _remove_unlocked(place)


def _remove_unlocked(place: Path) -> None:
    held = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(held).st_uid == os.geteuid():
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(place)
    finally:
        os.close(held)
