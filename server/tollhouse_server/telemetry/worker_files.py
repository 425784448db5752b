"""The files in which prometheus_client keeps the metrics of each process, read again and again without parsing twice.

A file is a count of the bytes in use, then entries: the length of a key, the key (JSON of names, labels and help),
padding to 8 bytes, the value and the time of its last change, as doubles. An entry never moves, so each is parsed once,
and a scrape reads only the doubles.
"""

import json
import mmap
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from prometheus_client.mmap_dict import MmapedDict

ENDED: Final = 0
"""The process id under which there is what processes counted that have ended."""

_FIRST_ENTRY: Final = 8
_DOUBLE_BYTES: Final = 8
_HEAD: Final = struct.Struct("i4x")
_length = struct.Struct("i").unpack_from


@dataclass(frozen=True, slots=True)
class Key:
    """What an entry is: a sample of a metric. `labels` are in the order of their names."""

    metric: str
    sample: str
    labels: tuple[tuple[str, str], ...]


@dataclass(slots=True)
class WorkerFile:
    """One file: `slots` says to which series each of its values belongs, in the order of `places`.

    `inode` tells it from another one that has taken its place.
    """

    path: Path
    inode: int
    slots: list[int] = field(default_factory=list)
    _places: list[int] = field(default_factory=list)
    _used: int = _FIRST_ENTRY
    _map: mmap.mmap | None = None
    _reader: struct.Struct | None = None
    _time_reader: struct.Struct | None = None

    @property
    def kind(self) -> str:
        """Return counter, histogram, or gauge_ with the way in which gauges become one."""
        return self.path.stem.rpartition("_")[0]

    @property
    def pid(self) -> str:
        """Return whose file it is."""
        return self.path.stem.rpartition("_")[2]

    def refresh(self) -> Iterator[Key]:
        """Yield the keys of the entries that are new; to each the caller appends its slot.

        Raises:
            FileNotFoundError: the process has ended, and the file is gone.
        """
        content = self._content()
        used = _length(content, 0)[0]
        while self._used < used:
            (length,) = _length(content, self._used)
            start = self._used + 4
            value = start + length + (8 - (length + 4) % 8)
            self._places.append(value)
            self._reader = self._time_reader = None
            self._used = value + 2 * _DOUBLE_BYTES
            yield _key(content[start : start + length])

    def values(self) -> tuple[float, ...]:
        """Return the values of all entries that were seen."""
        if self._reader is None:
            self._reader = _reader(self._places)
        return self._reader.unpack_from(self._content())

    def times(self) -> tuple[float, ...]:
        """Return when the values were set, since 1970; 0 for those that keep no time."""
        if self._time_reader is None:
            self._time_reader = _reader([place + _DOUBLE_BYTES for place in self._places])
        return self._time_reader.unpack_from(self._content())

    def close(self) -> None:
        """Let go of the file."""
        if self._map is not None:
            self._map.close()
            self._map = None

    def _content(self) -> mmap.mmap:
        if self._map is None or _length(self._map, 0)[0] > len(self._map):
            self.close()
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._map


def _reader(places: Iterable[int]) -> struct.Struct:
    """Return what reads the doubles at these places, in ascending order, in one go: a tenth of the time of a loop."""
    form, behind = ["="], 0
    for place in places:
        form.append(f"{place - behind}xd")
        behind = place + _DOUBLE_BYTES
    return struct.Struct("".join(form))


def _key(text: bytes) -> Key:
    metric, sample, labels, _help = json.loads(text)
    return Key(metric, sample, tuple(sorted(labels.items())))


def files_in(directory: Path) -> dict[Path, int]:
    """Return the files of all processes and their inodes, without those that were opened just now and hold nothing."""
    with os.scandir(directory) as entries:
        found = {Path(one.path): one.inode() for one in entries if one.name.endswith(".db") and one.stat().st_size}
    return dict(sorted(found.items()))


def add_up(paths: Iterable[Path], total: Path) -> None:
    """Add the values of files, where there are such, and put the sums in the place of `total`.

    Raises:
        OSError: there is no room; everything is as it was.
    """
    sums: dict[str, float] = {}
    for path in paths:
        if path.exists():
            for key, value, *_ in MmapedDict.read_all_values_from_file(str(path)):  # type: ignore[no-untyped-call]
                sums[key] = sums.get(key, 0.0) + value
    entries = b"".join([entry(key, value) for key, value in sums.items()])
    draft = total.with_suffix(".draft")
    try:
        # Written, not mapped: where the disk is full, a write fails, and to touch a mapped page ends the process.
        draft.write_bytes(_HEAD.pack(_FIRST_ENTRY + len(entries)) + entries)
        draft.replace(total)
    except OSError:
        # Half of it takes the room that is wanted.
        draft.unlink(missing_ok=True)
        raise


def entry(key: str, value: float) -> bytes:
    """Return an entry as prometheus_client writes it."""
    encoded = key.encode()
    padded = encoded + b" " * (8 - (len(encoded) + 4) % 8)
    return struct.pack(f"i{len(padded)}sdd", len(encoded), padded, value, 0.0)
