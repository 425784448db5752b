"""Files of receipts: one a line, written page by page so that an export that was cut off goes on where it stopped."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tollhouse_admin.failures import wrong_usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where an export stands: what was asked for, how much of the file is complete, and the token that goes on.

    `corrected` are the attempts that have been met by their correction; their bookings come later and are left out.
    """

    question: Mapping[str, str]
    size: int = 0
    receipts: int = 0
    corrected: Sequence[str] = ()
    page_token: str = ""
    finished: bool = False


class ReceiptsFile:
    """A file of receipts as it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = path.with_name(f"{path.name}.part")
        self._state = path.with_name(f"{path.name}.export.json")

    def resume(self, question: Mapping[str, str], *, asked: Sequence[str]) -> Progress:
        """Return where an earlier export of the same stopped, else a new one; cut off what was not finished.

        The members of the question that are in `asked` make it the same.

        Raises:
            Failure: the file is there already, something else was being exported to it, or it cannot be written.
        """
        if self.path.exists():
            raise wrong_usage(f"{self.path} is there already", "Choose another --file.")
        with _reported(self._partial):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            progress = self._stored() or Progress(question=question)
            if any(progress.question.get(name) != question.get(name) for name in asked):
                advice = f"Finish it with the same options, or delete {self._state} to begin anew."
                raise wrong_usage(f"{self.path} is the unfinished export of something else", advice)
            with self._partial.open("ab") as file:
                file.truncate(progress.size)
        return progress

    def _stored(self) -> Progress | None:
        if not (self._state.exists() and self._partial.exists()):
            return None
        try:
            progress = Progress(**json.loads(self._state.read_text()))
        except (ValueError, TypeError) as error:
            raise wrong_usage(f"{self._state} is not the state of an export", "Delete it to begin anew.") from error
        return progress if progress.size <= self._partial.stat().st_size else None

    def append(
        self, progress: Progress, lines: Sequence[str], *, corrected: Sequence[str], page_token: str
    ) -> Progress:
        """Write receipts behind what is there, durably, and return where the export stands then."""
        with _reported(self._partial):
            with self._partial.open("ab") as file:
                file.write("".join(f"{line}\n" for line in lines).encode())
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
            further = replace(
                progress,
                size=size,
                receipts=progress.receipts + len(lines),
                corrected=corrected,
                page_token=page_token,
                finished=not page_token,
            )
            fresh = self._state.with_suffix(".new")
            fresh.write_text(json.dumps(asdict(further)))
            fresh.replace(self._state)
        return further

    def finish(self) -> None:
        """Give the file its name."""
        with _reported(self.path):
            self._partial.replace(self.path)
            self._state.unlink(missing_ok=True)


def read_receipts(path: Path) -> Iterator[bytes]:
    """Yield the receipts of a file: one a line, or the whole file where it is one receipt over several lines.

    Raises:
        Failure: it cannot be read.
    """
    with _reported(path), path.open("rb") as file:
        first = file.readline()
        if first.strip() == b"{":
            yield first + file.read()
            return
        if first.strip():
            yield first
        yield from (line for line in file if line.strip())


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Tell in one line which file the system refuses to read or write."""
    try:
        yield
    except OSError as error:
        raise wrong_usage(f"{error.filename or path}: {error.strerror or error}") from error
