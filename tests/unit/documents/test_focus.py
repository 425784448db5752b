import csv
import os
import re
import shutil
import subprocess
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from tollhouse_server.chargeback.statement import Statement
from tollhouse_server.documents.formats import format_of
from tollhouse_server.money import dollars_to_nanos

from tests.unit.documents.sample import bare_statement, statement

# In an environment of its own, since it wants older libraries: docs say how. It needs Python 3.12.
_VALIDATOR = os.environ.get("FOCUS_VALIDATOR") or shutil.which("focus-validator")
_WHAT_TOLLHOUSE_HAS = "SUB_ACCOUNT_SUPPORTED,USAGE_MEASUREMENT_SUPPORTED,ACCOUNT_NAMING_SUPPORTED"

# InvoiceId-C-003-C is "null, or not null", as charges have an invoice or have none. The validator counts each of the
# two on its own as well, over all rows, so that one of them fails whatever is in the column.
_ALTERNATIVES = {"InvoiceId-C-004-C": "InvoiceId-C-003-C"}


def _rows(written: Statement) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(format_of("focus").document(written).decode(), newline="")))


def test_billed_cost_adds_up_to_the_charge() -> None:
    """Who loads the file into another tool arrives at the statement's total, to the nano-dollar."""
    rows = _rows(statement())

    assert sum(dollars_to_nanos(row["BilledCost"]) for row in rows) == statement().totals.charge_nanos
    used = [row for row in rows if row["ChargeCategory"] == "Usage"]
    assert sum(dollars_to_nanos(row["ListCost"]) for row in used) == statement().totals.cost_nanos


def test_a_correction_of_an_earlier_month_is_marked_as_one() -> None:
    """FOCUS tells corrections of invoiced periods from what is new."""
    credit = next(row for row in _rows(statement()) if row["x_ForMonth"])

    assert (credit["ChargeCategory"], credit["ChargeClass"], credit["x_ForMonth"]) == (
        "Credit",
        "Correction",
        "2026-09",
    )


def test_names_that_are_not_ascii_stand_beside_what_the_validator_takes() -> None:
    """A department's Chinese name is not lost."""
    shanghai = next(row for row in _rows(statement()) if row["x_DepartmentName"] == "上海分公司")

    assert shanghai["SubAccountName"] == "shanghai"


def test_a_reason_that_looks_like_a_formula_is_quoted() -> None:
    """The file will be opened in a spreadsheet."""
    evil = replace(statement().entries[0], reason="=cmd|' /C calc'!A0")

    row = next(row for row in _rows(statement(entries=(evil,))) if row["x_EntryKind"])

    assert row["ChargeDescription"] == row["x_Reason"] == "'=cmd|' /C calc'!A0"


def test_a_month_without_use_has_the_header_alone() -> None:
    """What loads the files of all months needs no exception for one."""
    assert _rows(bare_statement()) == []


@pytest.mark.skipif(_VALIDATOR is None, reason="focus-validator is not installed")
def test_the_foundations_validator_finds_no_violation(tmp_path: Path) -> None:
    """It exits with 0 whatever it finds, so what it prints is read."""
    source = tmp_path / "focus.csv"
    source.write_bytes(format_of("focus").document(statement()))

    printed = _validated(source)

    failed = set(re.findall(r"❌ (\S+): FAIL", printed))
    passed = set(re.findall(r"✅ (\S+): PASS", printed))
    assert len(passed) > 100, printed[-3000:]
    assert {rule for rule in failed if _ALTERNATIVES.get(rule) not in passed} == set(), printed[-3000:]


def _validated(source: Path) -> str:
    """Return what the validator prints; it reads files of its own by names relative to where it is installed."""
    python = Path(str(_VALIDATOR)).with_name("python")
    where = subprocess.run(
        [
            python,
            "-c",
            "import importlib.util as u; print(u.find_spec('focus_validator').submodule_search_locations[0])",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    command = [str(_VALIDATOR), "--data-file", str(source), "--validate-version", "1.2", "--block-download"]
    command += ["--applicability-criteria", _WHAT_TOLLHOUSE_HAS]
    home = Path(where.stdout.strip()).parent
    return subprocess.run(command, capture_output=True, text=True, cwd=home, check=False, timeout=300).stdout
