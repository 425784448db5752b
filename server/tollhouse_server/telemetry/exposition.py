"""What Prometheus gets: the metrics of all processes added up, the leader's readings, and the supervisor's own.

Quick at any size: the keys in the files of the processes are parsed once, and lines of text are prepared once, so that
a scrape only adds doubles and joins strings.
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tollhouse_server.telemetry.declarations import DECLARATIONS, Declaration, Kind
from tollhouse_server.telemetry.exemplars import Exemplar, all_exemplars, forget_exemplars
from tollhouse_server.telemetry.readings import Reading, published, withdraw_of
from tollhouse_server.telemetry.worker_files import ENDED, Key, WorkerFile, add_up, files_in

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

OwnReadings = Callable[[], Iterable[Reading]]
"""What the process that serves the metrics says itself."""


def nothing() -> Iterable[Reading]:
    """Say nothing of one's own."""
    return ()


Values = list[float | None]
"""The value of every series, None where no living process has it."""


@dataclass(slots=True)
class _Histogram:
    """The children of a histogram: where their sums are, and their buckets by upper bound."""

    sums: dict[tuple[tuple[str, str], ...], int] = field(default_factory=dict)
    buckets: dict[tuple[tuple[str, str], ...], dict[float, int]] = field(default_factory=dict)


class Exposition:
    """The metrics of one server, from the files in a directory. Blocking, and safe from any thread."""

    def __init__(self, directory: Path, own: OwnReadings = nothing) -> None:
        self._directory = directory
        self._own = own
        self._lock = threading.Lock()
        self._files: dict[Path, WorkerFile] = {}
        self._slots: dict[Key, int] = {}
        # By slot: the line up to its value.
        self._lines: list[str] = []
        self._simple: dict[str, list[int]] = {}
        self._histograms: dict[str, _Histogram] = {}

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
            for file in [one for one in self._files.values() if one.pid == str(pid)]:
                archive = file.path.with_name(f"{file.kind}_{ENDED}.db")
                if not file.kind.startswith("gauge"):
                    add_up([archive, file.path], archive)
                for path in (archive, file.path):
                    if path in self._files:
                        self._drop(self._files[path])
                file.path.unlink(missing_ok=True)
            forget_exemplars(self._directory, pid)
            withdraw_of(self._directory, pid)

    def lowest(self, declaration: Declaration) -> dict[tuple[str, ...], float]:
        """Return the values of a gauge by its labels, the lowest over the living processes."""
        with self._lock:
            self._open_files()
            found: dict[tuple[str, ...], float] = {}
            wanted = set(self._simple.get(declaration.name, ()))
            keys = {slot: key for key, slot in self._slots.items() if slot in wanted}
            for file in (one for one in self._files.values() if one.kind == "gauge_livemin"):
                for slot, value in zip(file.slots, file.values(), strict=True):
                    if slot in wanted:
                        labels = tuple(text for _, text in keys[slot].labels)
                        found[labels] = min(value, found.get(labels, value))
        return found

    # --- files ---

    def _open_files(self) -> None:
        paths = files_in(self._directory)
        for gone in self._files.keys() - set(paths):
            self._drop(self._files[gone])
        for path in paths:
            file = self._files.setdefault(path, WorkerFile(path))
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
            self._lines.append(f"{key.sample}{_labels(key.labels)} ")
            self._sort_in(key, self._slots[key])
        return self._slots[key]

    def _sort_in(self, key: Key, slot: int) -> None:
        """Remember what a series is a part of."""
        if key.sample.endswith(("_bucket", "_sum")):
            histogram = self._histograms.setdefault(key.metric, _Histogram())
            child = tuple((label, value) for label, value in key.labels if label != "le")
            if key.sample.endswith("_sum"):
                histogram.sums[child] = slot
            else:
                histogram.buckets.setdefault(child, {})[float(dict(key.labels)["le"])] = slot
        else:
            self._simple.setdefault(key.sample, []).append(slot)

    def _values(self) -> Values:
        self._open_files()
        values: Values = [None] * len(self._lines)
        times: dict[int, float] = {}
        for file in self._files.values():
            _ADD[file.kind](file, values, times)
        return values

    # --- lines ---

    def _simple_lines(self, declaration: Declaration, values: Values, readings: dict[str, Reading]) -> list[str]:
        if one := readings.get(declaration.name):
            return [
                f"{declaration.name}{_labels(tuple(zip(declaration.labels, labels, strict=True)))} {_number(value)}\n"
                for labels, value in one.values.items()
            ]
        lines = self._lines
        return [
            f"{lines[slot]}{value!r}\n"
            for slot in self._simple.get(declaration.name, ())
            if (value := values[slot]) is not None
        ]

    def _histogram_lines(
        self,
        declaration: Declaration,
        values: Values,
        exemplars: dict[tuple[str, tuple[str, ...], int], Exemplar],
    ) -> list[str]:
        found = self._histograms.get(declaration.name, _Histogram())
        lines: list[str] = []
        for child, buckets in found.buckets.items():
            labels = tuple(value for _, value in child)
            count = 0.0
            for number, (_, slot) in enumerate(sorted(buckets.items())):
                count += values[slot] or 0.0
                exemplar = exemplars.get((declaration.name, labels, number)) if exemplars else None
                lines.append(f"{self._lines[slot]}{count!r}{_suffix(exemplar)}\n")
            text = _labels(child)
            lines.append(f"{declaration.name}_count{text} {count!r}\n")
            lines.append(f"{declaration.name}_sum{text} {values[found.sums[child]] or 0.0!r}\n")
        return lines


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


def _head(declaration: Declaration, *, openmetrics: bool) -> str:
    name = declaration.name
    if openmetrics and declaration.kind is Kind.COUNTER:
        # There the type is of the metric, and `_total` belongs to its samples.
        name = name.removesuffix("_total")
    meaning = declaration.meaning.replace("\\", r"\\").replace("\n", r"\n")
    if openmetrics:
        meaning = meaning.replace('"', r"\"")
    return f"# HELP {name} {meaning}\n# TYPE {name} {declaration.kind}\n"


def _labels(labels: Iterable[tuple[str, str]]) -> str:
    text = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)
    return f"{{{text}}}" if text else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    return repr(float(value))


def _suffix(exemplar: Exemplar | None) -> str:
    if exemplar is None:
        return ""
    return f' # {{trace_id="{_escaped(exemplar.trace_id)}"}} {exemplar.value!r} {exemplar.at_seconds:.3f}'
