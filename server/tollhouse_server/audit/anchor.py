"""The anchor: every checkpoint in append-only files outside PostgreSQL, a file for each trail, the public keys beside.

PostgreSQL has them too, but whoever can rewrite events there can rewrite those as well; he cannot take back what lies
here, on another disk or, copied by its owner, in an object store with a lock. A file lags behind the table by no more
than a round, and catches up after any crash; a table that contradicts a file is never written over it.
"""

import base64
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tollhouse_server.audit.checkpoints import content_of, hash_of_document
from tollhouse_server.audit.tables import AuditCheckpointRow
from tollhouse_server.vault.signing import ALGORITHM

_KEYS_FILE: Final = "keys.json"


class AnchorContradicted(Exception):
    """The checkpoints in the database do not go on where the anchor ends, or the anchor is not what was written."""


class AnchorUnusable(Exception):
    """The anchor cannot be read or written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorEnd:
    """Where the file of a trail ends: number and hash of its last checkpoint, and how long it is, in bytes."""

    number: int = 0
    document_hash: str = ""
    size_bytes: int = 0


class Anchor:
    """A directory of checkpoints. Its methods block; they are short, and belong in a thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ends: dict[str, AnchorEnd] = {}

    def trails(self) -> set[str]:
        """Return whose trails are anchored."""
        return {path.stem for path in self._directory.glob("*.jsonl")}

    def end_of(self, tenant: str) -> int:
        """Return the number of the last checkpoint in a trail's file, 0 where there is none.

        Raises:
            AnchorContradicted: the file is shorter than it was.
            AnchorUnusable: it cannot be read, or has something else in it.
        """
        return self._end(tenant).number

    def append(self, tenant: str, checkpoints: Sequence[AuditCheckpointRow]) -> None:
        """Write further checkpoints, durably, which go on where the file ends.

        Raises:
            AnchorContradicted: they do not, or the file is shorter than it was; nothing is written.
            AnchorUnusable: it cannot be written.
        """
        end = self._end(tenant)
        number, last = end.number, end.document_hash
        for one in checkpoints:
            if one.number != number + 1 or (last and content_of(one.document).get("previous") != last):
                raise AnchorContradicted(f"checkpoint {one.number} of {tenant} does not follow on {number}")
            number, last = one.number, hash_of_document(one.document)
        content = "".join(f"{anchor_line(one)}\n" for one in checkpoints).encode()
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with self._path(tenant).open("ab") as file:
                # What a crash left unfinished behind the last whole line.
                file.truncate(end.size_bytes)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if not end.number:
                _sync_directory(self._directory)
        except OSError as error:
            self._ends.pop(tenant, None)
            raise AnchorUnusable(f"{error.filename or self._directory}: {error.strerror}") from error
        self._ends[tenant] = AnchorEnd(number=number, document_hash=last, size_bytes=end.size_bytes + len(content))

    def write_keys(self, name: str, versions: Mapping[int, bytes]) -> None:
        """Write the public keys beside the checkpoints, as `tollhouse audit verify` takes them; once for each change.

        Raises:
            AnchorUnusable: they cannot be written.
        """
        keys = [
            {"key": name, "version": version, "algorithm": ALGORITHM, "publicKey": _base64(versions[version])}
            for version in sorted(versions)
        ]
        content = json.dumps({"tenant": "", "keys": keys}, indent=2) + "\n"
        path = self._directory / _KEYS_FILE
        try:
            if path.exists() and path.read_text() == content:
                return
            self._directory.mkdir(parents=True, exist_ok=True)
            fresh = path.with_suffix(".new")
            fresh.write_text(content)
            fresh.replace(path)
        except OSError as error:
            raise AnchorUnusable(f"{error.filename or path}: {error.strerror}") from error

    def hashes(self, tenant: str) -> dict[int, bytes]:
        """Return the hashes that a trail's file knows, by sequence; none where there is no file.

        Raises:
            AnchorUnusable: it cannot be read, or has something else in it.
        """
        with self._of_checkpoints(tenant):
            documents = [json.loads(_document(line)) for line in self._lines(tenant)]
            return {one["sequence"]: bytes.fromhex(one["hash"]) for one in documents if one["sequence"]}

    def _end(self, tenant: str) -> AnchorEnd:
        known = self._ends.get(tenant)
        if known is not None:
            if self._size(tenant) < known.size_bytes:
                raise AnchorContradicted(f"the file of {tenant} is shorter than it was")
            return known
        lines = self._lines(tenant)
        if not lines:
            return AnchorEnd()
        with self._of_checkpoints(tenant):
            document = _document(lines[-1])
            self._ends[tenant] = AnchorEnd(
                number=json.loads(document)["number"],
                document_hash=hash_of_document(document),
                size_bytes=sum(len(line) + 1 for line in lines),
            )
        return self._ends[tenant]

    @contextmanager
    def _of_checkpoints(self, tenant: str) -> Iterator[None]:
        """Say of what is no checkpoint that it is none."""
        try:
            yield
        except (ValueError, TypeError, KeyError) as error:
            raise AnchorUnusable(f"{self._path(tenant)}: has a line that is no checkpoint") from error

    def _size(self, tenant: str) -> int:
        try:
            return self._path(tenant).stat().st_size
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise AnchorUnusable(f"{error.filename}: {error.strerror}") from error

    def _lines(self, tenant: str) -> list[bytes]:
        """Return the whole lines of a trail's file."""
        try:
            *whole, _ = self._path(tenant).read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise AnchorUnusable(f"{error.filename}: {error.strerror}") from error
        return whole

    def _path(self, tenant: str) -> Path:
        return self._directory / f"{tenant}.jsonl"


def anchor_line(row: AuditCheckpointRow) -> str:
    """Return a checkpoint and its proof as one line of JSON."""
    members: dict[str, Any] = {
        "document": row.document,
        "treeSize": row.tree_size,
        "leafIndex": row.leaf_index,
        "path": [_base64(one) for one in row.path],
        "signature": {
            "algorithm": ALGORITHM,
            "key": row.key,
            "keyVersion": row.key_version,
            "value": _base64(row.signature),
        },
    }
    return json.dumps(members, separators=(",", ":"))


def _document(line: bytes) -> str:
    document: str = json.loads(line)["document"]
    return document


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _sync_directory(directory: Path) -> None:
    """A new file's name must outlast a crash, too."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
