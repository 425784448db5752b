"""One way to report: every bench gives its figures to a Recorder, which writes build/bench.json and build/bench.md.

A key is a path such as `governed_unary/grpcio/c64/cpu_us_per_call`: the suite, what was measured, and the figure with
its unit last. In the tables the first part is the title, the last one a column, what lies between a row.
"""

import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.machine import commit, machine

DIRECTORY = Path(__file__).parents[2] / "build"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What several rounds have found."""

    median: float
    min: float
    max: float
    rounds: int


@dataclass(slots=True)
class Recorder:
    """Collects the rounds of each figure, and what could not be measured with the reason."""

    directory: Path = DIRECTORY
    facts: Mapping[str, Any] = field(default_factory=lambda: {"commit": commit(), "machine": asdict(machine())})
    found: dict[str, list[float]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def record(self, key: str, *rounds: float) -> None:
        """Add what one or more rounds have found."""
        self.found.setdefault(key, []).extend(rounds)

    def record_all(self, prefix: str, figures: Mapping[str, float]) -> None:
        """Add one round of several figures of the same thing."""
        for name, value in figures.items():
            self.record(f"{prefix}/{name}", value)

    def record_ratios(self, key: str, dividends: Sequence[float], divisors: Sequence[float]) -> None:
        """Add what one is of the other, round by round: those of a round were taken in the same minute."""
        self.record(key, *(one / other for one, other in zip(dividends, divisors, strict=True) if other))

    def skip(self, what: str, reason: str) -> None:
        """Note what was not measured."""
        self.skipped[what] = reason

    def figures(self) -> dict[str, Figure]:
        """Return what was found so far, in the order in which it came."""
        return {key: _figure(rounds) for key, rounds in self.found.items() if rounds}

    def save(self) -> None:
        """Write both files; figures that an earlier run of the same commit on this machine has found are kept."""
        self.directory.mkdir(exist_ok=True)
        path = self.directory / "bench.json"
        known = _earlier(path, self.facts)
        skipped = {**known.get("skipped", {}), **self.skipped}
        figures = {**known.get("figures", {}), **{key: asdict(one) for key, one in self.figures().items()}}
        skipped = {what: why for what, why in skipped.items() if not any(key.startswith(f"{what}/") for key in figures)}
        said = {**self.facts, "taken_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "figures": figures, "skipped": skipped}
        path.write_text(json.dumps(said, indent=1) + "\n")
        path.with_suffix(".md").write_text(document(said))


def _figure(rounds: Sequence[float]) -> Figure:
    return Figure(median=statistics.median(rounds), min=min(rounds), max=max(rounds), rounds=len(rounds))


def _earlier(path: Path, facts: Mapping[str, Any]) -> Mapping[str, Any]:
    if not path.exists():
        return {}
    known: Mapping[str, Any] = json.loads(path.read_text())
    return known if all(known.get(name) == fact for name, fact in facts.items()) else {}


def document(said: Mapping[str, Any]) -> str:
    """Return all of it as Markdown."""
    facts = ", ".join(f"{name} {value}" for name, value in said["machine"].items())
    parts = [
        f"# make bench\n\nCommit {said['commit']}, {said['taken_at']}; {facts}.\nMedians, with min–max of the rounds."
    ]
    parts += tables(said["figures"])
    if said["skipped"]:
        parts.append("## Not measured\n\n" + "\n".join(f"- {what}: {why}" for what, why in said["skipped"].items()))
    return "\n\n".join(parts) + "\n"


def tables(figures: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """Return a Markdown table for each suite."""
    suites: dict[str, dict[str, dict[str, Mapping[str, float]]]] = {}
    for key, figure in figures.items():
        suite, *row, column = key.split("/")
        suites.setdefault(suite, {}).setdefault("/".join(row), {})[column] = figure
    for suite, each in suites.items():
        columns = list(dict.fromkeys(column for row in each.values() for column in row))
        lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
        for name, found in each.items():
            cells = (_cell(found[column]) if column in found else "" for column in columns)
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        yield f"## {suite}\n\n" + "\n".join(lines)


def _cell(figure: Mapping[str, float]) -> str:
    middle = _number(figure["median"])
    if figure["rounds"] == 1:
        return middle
    return f"{middle} ({_number(figure['min'])}–{_number(figure['max'])})"


def _number(value: float) -> str:
    """Return three digits at least; what is large has no fraction."""
    size = abs(value)
    return (
        f"{value:,.0f}"
        if size >= 100
        else f"{value:.1f}"
        if size >= 10
        else f"{value:.2f}"
        if size >= 0.1
        else f"{value:.4f}"
    )
