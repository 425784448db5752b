"""What a check of `tollhouse doctor` found, wherever it was made, and how it is shown."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rich.table import Table
from rich.text import Text

from tollhouse_admin.failures import without_keys
from tollhouse_admin.output import write_drawn
from tollhouse_admin.plain_text import one_line


class Outcome(StrEnum):
    """What came of a check."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"
    SKIPPED = "skipped"


_STYLES = {Outcome.OK: "green", Outcome.WARNING: "yellow", Outcome.FAILURE: "bold red", Outcome.SKIPPED: "dim"}
_MARKS = {Outcome.OK: "ok", Outcome.WARNING: "WARN", Outcome.FAILURE: "FAIL", Outcome.SKIPPED: "-"}
_PLURALS = {Outcome.WARNING: "warnings", Outcome.FAILURE: "failures"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check saw, and what to type, each in one line."""

    name: str
    outcome: Outcome
    seen: str
    advice: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {"name": self.name, "outcome": self.outcome.value, "seen": self.seen, "advice": self.advice}


def fine(name: str, seen: str) -> Finding:
    """Return that all is as it should be."""
    return Finding(name, Outcome.OK, seen)


def warning(name: str, seen: str, advice: str) -> Finding:
    """Return that somebody should look."""
    return Finding(name, Outcome.WARNING, seen, advice)


def failure(name: str, seen: str, advice: str) -> Finding:
    """Return that something does not work."""
    return Finding(name, Outcome.FAILURE, seen, advice)


def skipped(name: str, seen: str) -> Finding:
    """Return why there was nothing to look at."""
    return Finding(name, Outcome.SKIPPED, seen)


def summary(findings: Iterable[Finding]) -> str:
    """Return one line about all of them."""
    counts = Counter(one.outcome for one in findings)
    parts = [f"{counts[outcome]} {_word(outcome, counts[outcome])}" for outcome in Outcome if counts[outcome]]
    return ", ".join(parts) or "nothing was checked"


def _word(outcome: Outcome, count: int) -> str:
    return outcome.value if count == 1 else _PLURALS.get(outcome, outcome.value)


def write_findings(findings: Sequence[Finding]) -> None:
    """Write a line for each finding and one for its advice; what a terminal is too narrow for is folded."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for one in findings:
        seen = Text(_shown(one.seen))
        if one.advice:
            seen.append(f"\n-> {_shown(one.advice)}", style="bold")
        table.add_row(Text(_MARKS[one.outcome], style=_STYLES[one.outcome]), Text(_shown(one.name)), seen)
    write_drawn(table)


def _shown(text: str) -> str:
    return one_line(without_keys(text))
