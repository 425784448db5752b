"""The files of a downloaded month: gzipped JSON lines, where the download stands, and the manifest of what was kept.

The lines are written as gzip members, one after the other, each complete: a download that is cut off goes on behind the
last one that its state file knows, and any gzip reader reads the whole.
"""

import gzip
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tollhouse_admin.failures import ExitCode, Failure, wrong_usage

_CHECKSUM_DIGITS = 15
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What a number of lines add up to; `checksum` as `UsageExport.checksum` is defined."""

    records: int = 0
    cost_nanos: int = 0
    checksum: int = 0

    def plus(self, lines: Iterable[str]) -> "Tally":
        """Return the tally with more lines."""
        records, cost_nanos, checksum = self.records, self.cost_nanos, self.checksum
        for line in lines:
            records += 1
            cost_nanos += json.loads(line)["cost_nanos"]
            checksum += int(hashlib.sha256(line.encode()).hexdigest()[:_CHECKSUM_DIGITS], 16)
        return Tally(records=records, cost_nanos=cost_nanos, checksum=checksum)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a download stands: how much of the file is complete, what it holds, and the token that goes on."""

    size: int = 0
    page_token: str = ""
    finished: bool = False
    tally: Tally = Tally()


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What was kept of a month."""

    export: str
    file: str
    sha256: str
    records: int
    cost_nanos: int
    checksum: str

    @property
    def tally(self) -> Tally:
        """Return what the lines add up to."""
        return Tally(records=self.records, cost_nanos=self.cost_nanos, checksum=int(self.checksum))


class MonthFile:
    """The file of one month in a directory, as it grows."""

    def __init__(self, directory: Path, month: str) -> None:
        self.path = directory / f"usage-{month}.jsonl.gz"
        self.manifest_path = directory / f"usage-{month}.manifest.json"
        self._partial = directory / f"usage-{month}.jsonl.gz.part"
        self._state = directory / f"usage-{month}.download.json"

    def resume(self) -> Progress:
        """Return where an earlier download stopped, and cut off what it did not finish writing.

        Raises:
            Failure: the month is there already, or the directory cannot be written.
        """
        if self.path.exists():
            raise wrong_usage(f"{self.path} is there already", "Confirm it, or choose another --directory.")
        with _reported(self._partial):
            self._partial.parent.mkdir(parents=True, exist_ok=True)
            progress = self._progress()
            with self._partial.open("ab") as file:
                file.truncate(progress.size)
        return progress

    def _progress(self) -> Progress:
        if not (self._state.exists() and self._partial.exists()):
            return Progress()
        document = json.loads(self._state.read_text())
        progress = Progress(**document | {"tally": Tally(**document["tally"])})
        return progress if progress.size <= self._partial.stat().st_size else Progress()

    def append(self, progress: Progress, lines: Sequence[str], page_token: str) -> Progress:
        """Write lines behind what is there, durably, and return where the download stands then."""
        with _reported(self._partial):
            with self._partial.open("ab") as file:
                file.write(gzip.compress("".join(f"{line}\n" for line in lines).encode(), mtime=0))
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
            further = replace(
                progress, size=size, page_token=page_token, finished=not page_token, tally=progress.tally.plus(lines)
            )
            _write(self._state, asdict(further))
        return further

    def finish(self, progress: Progress, export: str) -> Manifest:
        """Give the file its name and write its manifest."""
        with _reported(self.path):
            manifest = Manifest(
                export=export,
                file=self.path.name,
                sha256=file_sha256(self._partial),
                records=progress.tally.records,
                cost_nanos=progress.tally.cost_nanos,
                checksum=str(progress.tally.checksum),
            )
            _write(self.manifest_path, asdict(manifest))
            self._partial.replace(self.path)
            self._state.unlink(missing_ok=True)
        return manifest


def read_manifest(path: Path) -> Manifest:
    """Return a manifest.

    Raises:
        Failure: it cannot be read, or is none.
    """
    with _reported(path):
        try:
            return Manifest(**json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise wrong_usage(f"{path} is not a manifest of an export") from error


def check_file(manifest: Manifest, path: Path) -> None:
    """Read the file again and make sure that it is what its manifest says.

    Raises:
        Failure: it is not, or cannot be read.
    """
    with _reported(path):
        try:
            is_right = file_sha256(path) == manifest.sha256 and Tally().plus(_lines(path)) == manifest.tally
        except (EOFError, gzip.BadGzipFile, ValueError):
            is_right = False
    if not is_right:
        message = f"{path} is not the file that its manifest describes"
        raise Failure(
            reason="EXPORT_MISMATCH",
            message=message,
            advice="Download the month again.",
            exit_code=ExitCode.INVALID,
        )


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _lines(path: Path) -> Iterator[str]:
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        for line in file:
            yield line.removesuffix("\n")


def _write(path: Path, document: dict[str, Any]) -> None:
    """Put a document in a file's place at once: a crash leaves the old one or the new one."""
    fresh = path.with_suffix(".new")
    with fresh.open("w") as file:
        json.dump(document, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Tell in one line which file the system refuses to read or write."""
    try:
        yield
    except gzip.BadGzipFile:
        raise
    except OSError as error:
        raise wrong_usage(f"{error.filename or path}: {error.strerror or error}") from error
