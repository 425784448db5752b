"""Mistakes that comparable products made, planted in a copy of the server: each must be caught by a stated test."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

RESERVE = "tests/integration/ledger/test_reserve_and_settle.py"
RECOVERY = "tests/integration/ledger/test_recovery.py"
MODEL = "tests/integration/ledger/test_ledger_against_a_model.py"
NOTHING_LOST = "tests/integration/ledger/test_nothing_is_lost.py"
ALERTS = "tests/integration/ledger/test_alerts.py"
WINDOWS = "tests/integration/ledger/test_window_changes.py"
VERDICTS = "tests/unit/ledger/test_verdicts.py"


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake: `old` stands exactly once in `file` (below server/tollhouse_server) and becomes `new`."""

    name: str
    file: str
    old: str
    new: str
    caught_by: str

    @property
    def path(self) -> str:
        """Return the file's place in the repository."""
        return f"server/tollhouse_server/{self.file}"
