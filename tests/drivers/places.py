"""Where tests let servers keep what they write."""

import os
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

    In memory where there is much of it: a database is hundreds of files, and each test has one. Not with
    TOLLHOUSE_TESTS_ON_DISK set: twenty gigabytes of records would leave nobody any memory.
    """
    is_wanted = "TOLLHOUSE_TESTS_ON_DISK" not in os.environ
    has_room = is_wanted and _IN_MEMORY.is_dir() and shutil.disk_usage(_IN_MEMORY).free > _ROOMY_BYTES
    directory = Path(tempfile.mkdtemp(prefix=f"tollhouse-{purpose}-", dir=_IN_MEMORY if has_room else None))
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)
