"""The values of this process's metrics, each in its place in a file that other processes read (`worker_files.py`).

prometheus_client's own asks for the process id at each count, packs a number and looks up where it goes: with that the
metrics of a call took 16 us, and take 8 now. A process that counts never forks, and an entry never moves.
"""

import mmap
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from prometheus_client.mmap_dict import MmapedDict, mmap_key

from tollhouse_server.telemetry.worker_files import entry

_CELL_BYTES: Final = 16
_FIRST_BYTES: Final = 1 << 16


class OwnFiles:
    """Makes values for prometheus_client, in files that are named after the process."""

    def __init__(self, directory: Path, pid: int) -> None:
        self._directory = directory
        self._pid = pid
        self._files: dict[str, _File] = {}
        self._roomless: dict[str, _Roomless] = {}
        self._lock = threading.Lock()

    def __call__(  # noqa: PLR0917 - as prometheus_client calls it
        self,
        kind: str,
        metric: str,
        sample: str,
        label_names: Sequence[str],
        label_values: Sequence[str],
        meaning: str,
        multiprocess_mode: str = "",
        **_: object,
    ) -> "FileValue":
        """Return a value, 0 if its file does not have it yet."""
        name = f"{kind}_{multiprocess_mode}" if multiprocess_mode else kind
        key = mmap_key(metric, sample, list(label_names), list(label_values), meaning)
        with self._lock:
            roomless = self._roomless.setdefault(name, _Roomless(self._lock))
            if name not in self._files:
                try:
                    self._files[name] = _File(str(self._directory / f"{name}_{self._pid}.db"), roomless)
                except OSError:
                    # The disk is full already: no reason not to start.
                    return roomless.value(key)
            return self._files[name].value(key, self._lock)


class _Roomless(dict[str, "FileValue"]):
    """The values of a file, by their keys, that are in memory alone."""

    def __init__(self, lock: threading.Lock) -> None:
        super().__init__()
        self._lock = lock

    def value(self, key: str) -> "FileValue":
        """Return one of them, which is made if there is none."""
        if key not in self:
            self[key] = FileValue(memoryview(bytearray(_CELL_BYTES)).cast("d"), self._lock)
        return self[key]


class _File(MmapedDict):
    """A file whose room on the disk is taken before a page of it is touched.

    prometheus_client makes it longer without writing; on a full disk the kernel then ends the process (SIGBUS) at the
    next new series. Here a series for which there is no room is counted in memory alone, until another one finds room.
    """

    def __init__(self, filename: str, roomless: _Roomless) -> None:
        """Open it, and take in what has waited for it; raise OSError without room."""
        self._roomless = roomless
        with Path(filename).open("ab", buffering=0) as file:
            if file.tell() == 0:
                _lengthen(file.fileno(), 0, _FIRST_BYTES)
        super().__init__(filename)  # type: ignore[no-untyped-call]
        self._take_in()

    def value(self, key: str, lock: threading.Lock) -> "FileValue":
        """Return the value of an entry, which is made if there is none."""
        if key in self._roomless or (key not in self._positions and not self._has_room(key)):
            return self._roomless.value(key)
        return FileValue(self._cell(key), lock)

    def _cell(self, key: str) -> "memoryview[float]":
        """Return the place of an entry's two doubles, its value and when it was set.

        It stays good when the file grows: what is mapped already is the same file.
        """
        self.read_value(key)  # type: ignore[no-untyped-call]
        place = self._positions[key]
        # An aligned double is written whole: no reader sees half of it.
        return memoryview(self._m)[place : place + _CELL_BYTES].cast("d")

    def _has_room(self, key: str) -> bool:
        """Make the file longer where an entry needs it; tell whether there is room."""
        while not self._fits(key):
            try:
                _lengthen(self._f.fileno(), self._capacity, self._capacity)
            except OSError:
                return False
            self._capacity *= 2
            self._m = mmap.mmap(self._f.fileno(), self._capacity)
            self._take_in()
        return True

    def _take_in(self) -> None:
        """Put those into the file that had no room."""
        for key in list(self._roomless):
            if self._fits(key):
                self._roomless.pop(key).move(self._cell(key))

    def _fits(self, key: str) -> bool:
        return bool(self._used + len(entry(key, 0.0)) <= self._capacity)


class FileValue:
    """A number in a file; safe from any thread."""

    __slots__ = ("_cell", "_lock")

    _multiprocess = True

    def __init__(self, cell: "memoryview[float]", lock: threading.Lock) -> None:
        self._cell = cell
        self._lock = lock

    def move(self, cell: "memoryview[float]") -> None:
        """Be kept there from now on; whoever asks for it holds the lock."""
        cell[0], cell[1] = self._cell[0], self._cell[1]
        self._cell = cell

    def inc(self, amount: float) -> None:
        """Add to it."""
        with self._lock:
            self._cell[0] += amount

    def set(self, value: float, timestamp: float | None = None) -> None:
        """Make it another one; `timestamp` is kept beside it."""
        with self._lock:
            self._cell[0] = value
            self._cell[1] = timestamp or 0.0

    def get(self) -> float:
        """Return it."""
        return self._cell[0]

    def set_exemplar(self, exemplar: object) -> None:
        """Keep none: see `exemplars.py`."""

    def get_exemplar(self) -> None:
        """Return none."""


def _lengthen(descriptor: int, size: int, more: int) -> None:
    """Append zeros to a file that is open for appending; raise OSError, and leave it as it was, without room."""
    left = more
    try:
        while left:
            left -= os.write(descriptor, bytes(left))
    except OSError:
        os.ftruncate(descriptor, size)
        raise
