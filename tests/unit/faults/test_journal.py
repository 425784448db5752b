"""The journal of the fault suite."""

from pathlib import Path

from tests.faults.journal import Journal
from tests.faults.report import table


def test_only_a_case_that_was_struck_and_left_nothing_wrong_has_passed(tmp_path: Path) -> None:
    """It is read back as it was written; what has not passed is run again."""
    journal = Journal.open(tmp_path / "faults.jsonl")
    journal.add("boundaries", "struck", [], struck=True)
    journal.add("boundaries", "not struck", [], struck=False)
    journal.add("boundaries", "wrong", ["a call was booked twice"], struck=True)
    journal.add("vault", "without a trap", [])

    read = Journal.open(tmp_path / "faults.jsonl")

    names = ("struck", "not struck", "wrong", "without a trap", "never run")
    assert [name for name in names if read.has_passed(name)] == ["struck", "without a trap"]
    told = {line.split()[0]: line.split()[1:5] for line in table(read).splitlines() if line[:1].isalpha()}
    assert told["boundaries"] == ["3", "1", "1", "1"]
    assert told["vault"] == ["1", "1", "0", "0"]
