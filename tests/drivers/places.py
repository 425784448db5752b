"""Where tests let servers keep what they write."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_IN_MEMORY = Path("/dev/shm")  # noqa: S108 - used through mkdtemp only
_ROOMY_BYTES = 4 * 2**30


@contextmanager
def servers_place(purpose: str) -> Iterator[Path]:
    """Make a directory that PostgreSQL's account may enter (pytest's own are closed to it), and remove it at the end.

    In memory where there is much of it: a database is hundreds of files, and each test has one.
    """
    has_room = _IN_MEMORY.is_dir() and shutil.disk_usage(_IN_MEMORY).free > _ROOMY_BYTES
    directory = Path(tempfile.mkdtemp(prefix=f"tollhouse-{purpose}-", dir=_IN_MEMORY if has_room else None))
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)
