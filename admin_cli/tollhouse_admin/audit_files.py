"""Files of trails: one event a line. A file goes on where it ends, so that an archive grows by the same command."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tollhouse_admin.failures import wrong_usage

_HEAD = re.compile(rb'\{"metadata":\{"tenant_uid":"([a-z0-9-]{2,63})","sequence":([1-9][0-9]{0,18}),')
_START = b'{"metadata":{"tenant_uid":"'
_BLOCK_BYTES = 1 << 20


class TrailFile:
    """An export as it grows. What was not finished when a writing broke off is cut off at the next one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def resume(self, tenant: str) -> int:
        """Return the sequence of the file's last whole event, 0 where there is none, and cut off what is behind it.

        Raises:
            Failure: it is something else, of another tenant, or cannot be written.
        """
        with reported(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                start = os.pread(file.fileno(), len(_START), 0)
                if start != _START[: len(start)]:
                    raise wrong_usage(f"{self.path} is not an export of a trail", "Choose another --file.")
                end, line = _last_line(file.fileno(), self.path.stat().st_size)
                sequence = _sequence(self.path, line, tenant) if line else 0
                file.truncate(end)
        return sequence

    def append(self, lines: Sequence[str]) -> None:
        """Write events behind what is there, durably.

        Raises:
            Failure: it cannot be written.
        """
        with reported(self.path), self.path.open("ab") as file:
            file.write("".join(f"{line}\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())


def _sequence(path: Path, line: bytes, tenant: str) -> int:
    head = _HEAD.match(line)
    if head is None:
        raise wrong_usage(f"{path} is not an export of a trail", "Choose another --file.")
    if head[1].decode() != tenant:
        raise wrong_usage(f"{path} is the trail of {head[1].decode()}", "Choose another --file.")
    return int(head[2])


def _last_line(descriptor: int, size: int) -> tuple[int, bytes]:
    """Return where the last whole line of a file ends, and the line."""
    read, start = b"", size
    while start > 0:
        length = min(_BLOCK_BYTES, start)
        start -= length
        read = os.pread(descriptor, length, start) + read
        end = read.rfind(b"\n") + 1
        begin = read.rfind(b"\n", 0, end - 1) + 1 if end else 0
        if end and (begin or start == 0):
            return start + end, read[begin:end]
    return 0, b""


def read_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file with their ends.

    Raises:
        Failure: it cannot be read.
    """
    with reported(path), path.open("rb", buffering=_BLOCK_BYTES) as file:
        yield from file


def write_lines(path: Path, lines: Iterable[str]) -> int:
    """Write a new file whole or not at all; return how many lines it has.

    Raises:
        Failure: it cannot be written.
    """
    fresh, count = path.with_name(f"{path.name}.new"), 0
    with reported(path):
        with fresh.open("w") as file:
            for line in lines:
                file.write(f"{line}\n")
                count += 1
        fresh.replace(path)
    return count


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """Tell in one line which file the system refuses to read or write."""
    try:
        yield
    except OSError as error:
        raise wrong_usage(f"{error.filename or path}: {error.strerror or error}") from error
