"""Results that outlive a run: one JSON line each in build/faults.jsonl. What stands there is not done again."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parents[2] / "build" / "faults.jsonl"


@dataclass(slots=True)
class Journal:
    """The results so far, by case."""

    path: Path = FILE
    results: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path = FILE, *, fresh: bool = False) -> "Journal":
        """Read what earlier runs left, or put it away."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if fresh and path.exists():
            path.replace(path.with_suffix(".before.jsonl"))
        lines = path.read_text().splitlines() if path.exists() else []
        return cls(path, {result["case"]: result for result in map(json.loads, lines)})

    def has_passed(self, case: str) -> bool:
        """Tell whether a case was run, its fault came to pass, and nothing was wrong."""
        result = self.results.get(case)
        return result is not None and not result["findings"] and bool(result.get("struck", True))

    def of(self, campaign: str) -> list[Mapping[str, Any]]:
        """Return the results of one campaign."""
        return [result for result in self.results.values() if result["campaign"] == campaign]

    def add(self, campaign: str, case: str, findings: Iterable[object], **measured: Any) -> None:
        """Append a result; it is on disk on return."""
        result = {"campaign": campaign, "case": case, "findings": [str(one) for one in findings], **measured}
        self.results[case] = result
        with self.path.open("a") as file:
            file.write(json.dumps(result) + "\n")
