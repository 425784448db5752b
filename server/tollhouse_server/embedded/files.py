"""Files that hold secrets: mode 0600 from the first byte, written whole or not at all."""

import os
import secrets
from pathlib import Path


def write_secret_file(path: Path, text: str) -> None:
    """Write `text` to `path`, readable by the owner only; a crash leaves the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_or_create_password(path: Path) -> str:
    """Return the password kept at `path`; a new random one (43 URL-safe characters) when there is none."""
    if not path.exists():
        write_secret_file(path, secrets.token_urlsafe(32))
    return path.read_text().strip()


def make_private_directory(path: Path) -> Path:
    """Make `path` with mode 0700, closing it when it was open, and return it."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.chmod(0o700)
    return path
