"""The directory that holds everything the embedded parts keep, used by one stack at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tollhouse_server.embedded.errors import StateDirectoryLocked, StateDirectoryUnusable
from tollhouse_server.embedded.files import make_private_directory


@dataclass(frozen=True, slots=True)
class StateDirectory:
    """Where each part keeps its own. Everything but `root` is closed to other users."""

    root: Path

    @property
    def logs(self) -> Path:
        """Return where the logs are, one for each child."""
        return self.root / "logs"

    @property
    def secrets(self) -> Path:
        """Return where the passwords of the database roles are."""
        return self.root / "secrets"

    @property
    def postgres(self) -> Path:
        """Return where PostgreSQL's cluster is; it belongs to the account that PostgreSQL runs as."""
        return self.root / "postgres"

    @property
    def openbao(self) -> Path:
        """Return where OpenBao's storage, unseal key and AppRole ids are."""
        return self.root / "openbao"

    @property
    def simulator_calls(self) -> Path:
        """Return the simulator's durable log of calls: an SQLite file."""
        return self.root / "simulator-calls.sqlite"


@contextmanager
def claimed(root: Path) -> Iterator[StateDirectory]:
    """Make the directory and hold it.

    The kernel drops the lock with the process that holds it, so a killed one leaves nothing to clean up.

    Raises:
        StateDirectoryLocked: another process holds it; the error names it.
        StateDirectoryUnusable: it cannot be made or closed to others.
    """
    directory = _make(root)
    descriptor = os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(descriptor, root)
        yield directory
    finally:
        os.close(descriptor)


def _make(root: Path) -> StateDirectory:
    directory = StateDirectory(root)
    try:
        make_private_directory(root)
        # As root, PostgreSQL runs as another account, which must pass through to its own directory and sees no names.
        root.chmod(0o711 if os.geteuid() == 0 else 0o700)
        make_private_directory(directory.logs)
        make_private_directory(directory.secrets)
    except OSError as error:
        detail = f"{error.strerror}; choose another with TOLLHOUSE_STATE_DIR"
        raise StateDirectoryUnusable(path=root, detail=detail) from error
    return directory


def _lock(descriptor: int, root: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 32, 0).decode().strip()
        raise StateDirectoryLocked(path=root, pid=int(holder or 0)) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
