import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC
from io import BytesIO
from pathlib import Path

import pytest
from openpyxl import Workbook, load_workbook
from tollhouse_server.chargeback.statement import Statement
from tollhouse_server.documents.formats import format_of
from tollhouse_server.documents.language import languages
from tollhouse_server.money import dollars_to_nanos

from tests.unit.documents.sample import bare_statement, sealed_statement, statement

_SHEETS = ["Summary", "Departments", "Models", "Days", "Lines", "Entries", "Budgets"]

# openpyxl leaves out the bars in cells when it reads a workbook, and says so.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:openpyxl")


def _opened(written: Statement, language: str = "en") -> Workbook:
    return load_workbook(BytesIO(format_of("xlsx").document(written, language)))


def _column(book: Workbook, sheet: str, label: str) -> list[object]:
    page = book[sheet]
    place = [cell.value for cell in page[1]].index(label)
    return [row[place].value for row in page.iter_rows(min_row=2)]


def test_a_workbook_has_a_sheet_for_each_table_with_its_header_frozen() -> None:
    """Who scrolls through a thousand lines still sees what the columns are."""
    book = _opened(statement())

    assert book.sheetnames == _SHEETS
    assert {book[name].freeze_panes for name in _SHEETS[1:]} == {"B2"}


@pytest.mark.parametrize(("sheet", "label"), [("Lines", "Cost, exact"), ("Departments", "Charge, exact")])
def test_exact_columns_add_up_to_the_nano_dollar(sheet: str, label: str) -> None:
    """A spreadsheet's numbers cannot hold every amount; the text beside them does."""
    book = _opened(statement())

    *parts, total = [dollars_to_nanos(str(text)) for text in _column(book, sheet, label)]

    totals = statement().totals
    assert sum(parts) == total == (totals.cost_nanos if sheet == "Lines" else totals.charge_nanos)


def test_entries_say_what_they_are_for_and_what_they_were_reckoned_from() -> None:
    """The way from cost to charge can be followed by whoever pays."""
    book = _opened(statement())

    assert "Credit for the outage of 12 September" in _column(book, "Entries", "Reason")
    assert "2026-09" in _column(book, "Entries", "Corrects")
    assert 420.0 in _column(book, "Entries", "Reckoned from, USD")


def test_a_reason_that_looks_like_a_formula_stays_a_text() -> None:
    """Whoever writes a reason must not reckon in the spreadsheet of whoever reads it."""
    evil = replace(statement().entries[0], reason='=HYPERLINK("http://evil.example","click")')

    book = _opened(statement(entries=(evil, *statement().entries[1:])))

    cells = [cell for row in book["Entries"].iter_rows() for cell in row if str(cell.value).startswith("=")]
    assert [cell.data_type for cell in cells] == ["s"]


def test_the_same_statement_is_the_same_bytes_however_late_it_is_written() -> None:
    """A document that was sent once can be made again and compared."""
    book = format_of("xlsx")

    first = book.document(sealed_statement())

    assert book.document(sealed_statement()) == first
    created = load_workbook(BytesIO(first)).properties.created
    assert created == sealed_statement().period.end.astimezone(UTC).replace(tzinfo=None)


@pytest.mark.parametrize("tag", sorted(languages()))
@pytest.mark.parametrize("build", [statement, sealed_statement, bare_statement])
def test_a_workbook_can_be_opened_in_every_language(tag: str, build: Callable[[], Statement]) -> None:
    """A month without any use has a document too."""
    book = _opened(build(), tag)

    assert book.sheetnames[0] == languages()[tag].say("sheet_summary")


@pytest.mark.skipif(shutil.which("soffice") is None, reason="LibreOffice is not installed")
def test_libreoffice_opens_the_workbook(tmp_path: Path) -> None:
    """What another spreadsheet makes of it is a document with all of its pages."""
    source = tmp_path / "statement.xlsx"
    source.write_bytes(format_of("xlsx").document(statement(), "zh-Hans"))

    home = f"-env:UserInstallation=file://{tmp_path}/profile"
    command = ["soffice", home, "--headless", "--convert-to", "pdf", "--outdir", str(tmp_path), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)

    assert (tmp_path / "statement.pdf").read_bytes().startswith(b"%PDF")
