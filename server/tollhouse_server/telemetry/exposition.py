"""What Prometheus gets: the metrics of all processes added up, the leader's readings, and the supervisor's own.

Whoever else asks what the processes have counted reads it here too: `values_of` and `counts_of`.

Quick at any size: the keys in the files of the processes are parsed once, and lines of text are prepared once, so that
a scrape only adds doubles and joins strings.
"""

import threading
from bisect import insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Final

from tollhouse_server.telemetry.declarations import DECLARATIONS, Declaration, Kind
from tollhouse_server.telemetry.exemplars import Exemplar, all_exemplars, forget_exemplars
from tollhouse_server.telemetry.readings import Reading, published, withdraw_of
from tollhouse_server.telemetry.worker_files import ENDED, Key, WorkerFile, add_up, files_in

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_LEFT: Final = f"{ENDED}-"
"""Before the inode of a file whose counts could not be added to those of others that have ended."""

OwnReadings = Callable[[], Iterable[Reading]]
"""What the process that serves the metrics says itself."""


def nothing() -> Iterable[Reading]:
    """Say nothing of one's own."""
    return ()


Values = list[float | None]
"""The value of every series, None where no living process has it."""


@dataclass(slots=True)
class _Child:
    """One histogram of a family: the slots of its buckets, the lowest first, and of its sum."""

    labels: tuple[str, ...]
    text: str
    buckets: list[tuple[float, int]] = field(default_factory=list)
    sum_slot: int = -1
    # What was shown last, and of which values.
    counted: list[float | None] = field(default_factory=list)
    shown: str = ""


class Exposition:
    """The metrics of one server, from the files in a directory. Blocking, and safe from any thread."""

    def __init__(self, directory: Path, own: OwnReadings = nothing) -> None:
        self._directory = directory
        self._own = own
        self._lock = threading.Lock()
        self._files: dict[Path, WorkerFile] = {}
        self._slots: dict[Key, int] = {}
        # By slot: what it is, the line up to its value, the value shown last, and the whole line with it. From one
        # scrape to the next most stays as it was, and to write a number costs more than all the rest.
        self._keys: list[Key] = []
        self._lines: list[str] = []
        self._last: Values = []
        self._shown: list[str] = []
        self._simple: dict[str, list[int]] = {}
        self._histograms: dict[str, dict[tuple[tuple[str, str], ...], _Child]] = {}

    def render(self, *, openmetrics: bool = False) -> bytes:
        """Return the metrics of now in the text format, or in OpenMetrics with exemplars."""
        with self._lock:
            values = self._values()
            readings = {one.declaration.name: one for one in (*published(self._directory), *self._own())}
            exemplars = all_exemplars(self._directory) if openmetrics else {}
            parts: list[str] = []
            for declaration in DECLARATIONS:
                if declaration.kind is Kind.HISTOGRAM:
                    lines = self._histogram_lines(declaration, values, exemplars)
                else:
                    lines = self._simple_lines(declaration, values, readings)
                if lines:
                    parts.append(_head(declaration, openmetrics=openmetrics))
                    parts += lines
        return ("".join(parts) + ("# EOF\n" if openmetrics else "")).encode()

    def end(self, pid: int) -> None:
        """Take the gauges of a process that ended out of the picture; what it counted stays, and its files go."""
        with self._lock:
            self._open_files()
            for file in [one for one in self._files.values() if one.pid == str(pid) or one.pid.startswith(_LEFT)]:
                self._end(file)
            forget_exemplars(self._directory, pid)
            withdraw_of(self._directory, pid)

    def _end(self, file: WorkerFile) -> None:
        """Add what is in a file to what others counted that have ended."""
        archive = file.path.with_name(f"{file.kind}_{ENDED}.db")
        self._drop(file)
        if not file.kind.startswith("gauge"):
            try:
                add_up([archive, file.path], archive)
            except OSError:
                # A full disk. It is read as it is until there is room, by a name that no other gets: another process,
                # or one more after it, may have the id.
                file.path.rename(file.path.with_name(f"{file.kind}_{_LEFT}{file.inode}.db"))
                return
        file.path.unlink(missing_ok=True)

    def values_of(self, declaration: Declaration) -> dict[tuple[str, ...], float]:
        """Return what the processes say of a counter or gauge together, by the values of its labels."""
        with self._lock:
            values = self._values(_kind_of(declaration))
            told = {
                slot: value for slot in self._simple.get(declaration.name, ()) if (value := values[slot]) is not None
            }
            return {_in_order(declaration, self._keys[slot].labels): value for slot, value in told.items()}

    def counts_of(self, declaration: Declaration) -> dict[tuple[str, ...], list[float]]:
        """Return what the processes counted in each bucket of a histogram, the infinite one last, by its labels."""
        with self._lock:
            values = self._values(_kind_of(declaration))
            return {
                _in_order(declaration, labels): [values[slot] or 0.0 for _, slot in child.buckets]
                for labels, child in self._histograms.get(declaration.name, {}).items()
            }

    # --- files ---

    def _open_files(self) -> None:
        found = files_in(self._directory)
        for file in [one for one in self._files.values() if found.get(one.path) != one.inode]:
            self._drop(file)
        for path, inode in found.items():
            file = self._files.setdefault(path, WorkerFile(path, inode))
            try:
                for key in file.refresh():
                    file.slots.append(self._slot(key))
            except FileNotFoundError:
                self._drop(file)

    def _drop(self, file: WorkerFile) -> None:
        file.close()
        del self._files[file.path]

    def _slot(self, key: Key) -> int:
        if key not in self._slots:
            self._slots[key] = len(self._lines)
            self._keys.append(key)
            self._lines.append(f"{key.sample}{_labels(key.labels)} ")
            self._last.append(None)
            self._shown.append("")
            self._sort_in(key, self._slots[key])
        return self._slots[key]

    def _sort_in(self, key: Key, slot: int) -> None:
        """Remember what a series is a part of."""
        if key.sample.endswith(("_bucket", "_sum")):
            labels = tuple((label, value) for label, value in key.labels if label != "le")
            made = _Child(tuple(value for _, value in labels), _labels(labels))
            child = self._histograms.setdefault(key.metric, {}).setdefault(labels, made)
            if key.sample.endswith("_sum"):
                child.sum_slot = slot
            else:
                insort(child.buckets, (float(dict(key.labels)["le"]), slot))
        else:
            self._simple.setdefault(key.sample, []).append(slot)

    def _values(self, kind: str | None = None) -> Values:
        """Return the values of all series, or of those alone that are in files of one kind."""
        self._open_files()
        values: Values = [None] * len(self._lines)
        times: dict[int, float] = {}
        for file in self._files.values():
            if kind is None or file.kind == kind:
                _ADD[file.kind](file, values, times)
        return values

    # --- lines ---

    def _simple_lines(self, declaration: Declaration, values: Values, readings: dict[str, Reading]) -> list[str]:
        if one := readings.get(declaration.name):
            return _reading_lines(self._with_counts(one, values))
        last, shown, lines = self._last, self._shown, []
        for slot in self._simple.get(declaration.name, ()):
            value = values[slot]
            if value is None:
                continue
            if value != last[slot]:
                last[slot], shown[slot] = value, f"{self._lines[slot]}{value!r}\n"
            lines.append(shown[slot])
        return lines

    def _with_counts(self, one: Reading, values: Values) -> Reading:
        """Add to a counter that its reader keeps for himself what the processes counted."""
        slots = self._simple.get(one.declaration.name, ())
        if not slots or one.declaration.kind is not Kind.COUNTER:
            return one
        sums = dict(one.values)
        for slot in slots:
            labels = _in_order(one.declaration, self._keys[slot].labels)
            sums[labels] = sums.get(labels, 0.0) + (values[slot] or 0.0)
        return Reading(declaration=one.declaration, values=sums)

    def _histogram_lines(
        self,
        declaration: Declaration,
        values: Values,
        exemplars: dict[tuple[str, tuple[str, ...], int], Exemplar],
    ) -> list[str]:
        lines: list[str] = []
        for child in self._histograms.get(declaration.name, {}).values():
            counted = [values[child.sum_slot], *[values[slot] for _, slot in child.buckets]]
            told = (
                [exemplars.get((declaration.name, child.labels, at)) for at in range(len(counted))] if exemplars else []
            )
            if any(told):
                lines.append(self._histogram(declaration, child, counted, told))
                continue
            if counted != child.counted:
                child.counted, child.shown = counted, self._histogram(declaration, child, counted, told)
            lines.append(child.shown)
        return lines

    def _histogram(self, declaration: Declaration, child: _Child, counted: Values, told: list[Exemplar | None]) -> str:
        counts = list(accumulate(value or 0.0 for value in counted[1:]))
        suffixes = [_suffix(one) for one in told[: len(counts)]] or [""] * len(counts)
        lines = [
            f"{self._lines[slot]}{count!r}{suffix}\n"
            for (_, slot), count, suffix in zip(child.buckets, counts, suffixes, strict=True)
        ]
        lines.append(f"{declaration.name}_count{child.text} {counts[-1]!r}\n")
        lines.append(f"{self._lines[child.sum_slot]}{counted[0] or 0.0!r}\n")
        return "".join(lines)


def _add(file: WorkerFile, values: Values, _: dict[int, float]) -> None:
    for slot, value in zip(file.slots, file.values(), strict=True):
        values[slot] = value + (values[slot] or 0.0)


def _highest(file: WorkerFile, values: Values, _: dict[int, float]) -> None:
    for slot, value in zip(file.slots, file.values(), strict=True):
        before = values[slot]
        values[slot] = value if before is None or value > before else before


def _lowest(file: WorkerFile, values: Values, _: dict[int, float]) -> None:
    for slot, value in zip(file.slots, file.values(), strict=True):
        before = values[slot]
        values[slot] = value if before is None or value < before else before


def _newest(file: WorkerFile, values: Values, times: dict[int, float]) -> None:
    for slot, value, at in zip(file.slots, file.values(), file.times(), strict=True):
        # 0: never set, but there because the gauge has no labels.
        if at > times.get(slot, 0.0):
            values[slot], times[slot] = value, at


_ADD: Final = {
    "counter": _add,
    "histogram": _add,
    "gauge_livesum": _add,
    "gauge_livemax": _highest,
    "gauge_livemin": _lowest,
    "gauge_livemostrecent": _newest,
}


def _kind_of(declaration: Declaration) -> str:
    """Return the kind of the files that hold a metric."""
    return f"{declaration.kind}_{declaration.aggregation}" if declaration.kind is Kind.GAUGE else declaration.kind


def _in_order(declaration: Declaration, labels: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Return the values of labels as they are declared; files have them in the order of their names."""
    by_name = dict(labels)
    return tuple(by_name[name] for name in declaration.labels)


def _head(declaration: Declaration, *, openmetrics: bool) -> str:
    name = declaration.name
    if openmetrics and declaration.kind is Kind.COUNTER:
        # There the type is of the metric, and `_total` belongs to its samples.
        name = name.removesuffix("_total")
    meaning = declaration.meaning.replace("\\", r"\\").replace("\n", r"\n")
    if openmetrics:
        meaning = meaning.replace('"', r"\"")
    return f"# HELP {name} {meaning}\n# TYPE {name} {declaration.kind}\n"


def _reading_lines(reading: Reading) -> list[str]:
    labels = reading.declaration.labels
    if not labels:
        return [f"{reading.declaration.name} {float(value)!r}\n" for value in reading.values.values()]
    form = reading.declaration.name + "{" + ",".join(f'{label}="%s"' for label in labels) + "} %r\n"
    return [
        form % (*(values if _is_plain("".join(values)) else map(_escaped, values)), float(value))
        for values, value in reading.values.items()
    ]


def _is_plain(text: str) -> bool:
    return not ('"' in text or "\\" in text or "\n" in text)


def _labels(labels: Iterable[tuple[str, str]]) -> str:
    text = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)
    return f"{{{text}}}" if text else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _suffix(exemplar: Exemplar | None) -> str:
    if exemplar is None:
        return ""
    return f' # {{trace_id="{_escaped(exemplar.trace_id)}"}} {exemplar.value!r} {exemplar.at_seconds:.3f}'
