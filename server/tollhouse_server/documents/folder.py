"""Statements into a directory of the deployment's: others may read from it and write to it, as it may be a share."""

import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from tollhouse_server.documents.document import Document

_ENTER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# A name that somebody else has been quicker to take, be it as a link, is never written through.
_BEGIN: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DRAFT: Final = ".part"
_LEFT_SECONDS: Final = 3600.0


class FolderFailed(OSError):
    """The directory is not there, or cannot be written to."""


def write_files(folder: Path, place: Sequence[str], documents: Sequence[Document]) -> None:
    """Write documents below a directory that is there, at a place made of ids.

    Each is whole or not there, also for those who read meanwhile, and again the same. No link below the directory is
    followed.

    Raises:
        FolderFailed: the directory is not there, or cannot be written to.
    """
    with ExitStack() as stack:
        with _told("the deployment's directory"):
            at = _entered(stack, str(folder))
        with _told("/".join(place)):
            for one in place:
                with suppress(FileExistsError):
                    os.mkdir(one, dir_fd=at)
                # Also where it was there: who made it may have ended before he came to this.
                os.fsync(at)
                at = _entered(stack, one, os.O_NOFOLLOW, within=at)
            for document in documents:
                _clear(at, document.file_name)
                _write(at, document)
            # The names too are to be there after an outage, once the delivery is noted.
            os.fsync(at)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Let an error name what tenants may know of: not where the directory is."""
    try:
        yield
    except OSError as error:
        raise FolderFailed(f"{what}: {error.strerror}") from error


def _entered(stack: ExitStack, name: str, flags: int = 0, *, within: int | None = None) -> int:
    directory = os.open(name, _ENTER | flags, dir_fd=within)
    stack.callback(os.close, directory)
    return directory


def _write(at: int, document: Document) -> None:
    # Unlike any name of a document, so that whoever collects files by their endings never takes half of one; and of
    # this writer alone, as another may be at the same document.
    draft = f".{document.file_name}.{secrets.token_hex(6)}{_DRAFT}"
    try:
        with os.fdopen(os.open(draft, _BEGIN, 0o666, dir_fd=at), "wb") as file:
            file.write(document.content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, document.file_name, src_dir_fd=at, dst_dir_fd=at)
    except BaseException:
        with suppress(OSError):
            os.unlink(draft, dir_fd=at)
        raise


def _clear(at: int, file_name: str) -> None:
    """Remove drafts of a document that nobody writes on any more, as their process was killed."""
    begin, long_ago = f".{file_name}.", time.time() - _LEFT_SECONDS
    for name in os.listdir(at):
        if name.startswith(begin) and name.endswith(_DRAFT):
            # Another writer may have been quicker.
            with suppress(FileNotFoundError):
                if os.stat(name, dir_fd=at, follow_symlinks=False).st_mtime < long_ago:
                    os.unlink(name, dir_fd=at)
