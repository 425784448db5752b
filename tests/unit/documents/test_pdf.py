import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import typst
from tollhouse_server.chargeback.statement import Statement
from tollhouse_server.documents import pdf
from tollhouse_server.documents.formats import format_of
from tollhouse_server.errors import FontMissing

from tests.unit.documents.sample import bare_statement, sealed_statement, statement

_has_chinese = bool(set(pdf.CHINESE) & set(typst.Fonts().families()))
needs_chinese = pytest.mark.skipif(not _has_chinese, reason="no font has the letters of Chinese")

# The sample has a department with a Chinese name; without such a font it is built without its names.
_SAMPLE = statement if _has_chinese else bare_statement


def test_a_pdf_is_the_same_bytes_every_time() -> None:
    """A document that was sent once can be made again and compared."""
    document = format_of("pdf").document

    assert document(_SAMPLE()) == document(_SAMPLE())


@pytest.mark.parametrize("build", [statement, sealed_statement, bare_statement])
@needs_chinese
def test_a_pdf_can_be_made_in_chinese(build: Callable[[], Statement]) -> None:
    """Its letters are in the file, so that it looks the same everywhere."""
    made = format_of("pdf").document(build(), "zh-Hans")

    assert made.startswith(b"%PDF-1.7")
    assert len(made) > 30_000


def test_a_pdf_whose_letters_no_font_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody gets a page of empty squares."""
    alone = typst.Fonts(include_system_fonts=False)
    monkeypatch.setattr(pdf, "_fonts", lambda: alone)

    assert format_of("pdf").document(bare_statement(), "en").startswith(b"%PDF")
    with pytest.raises(FontMissing, match="Noto Sans CJK SC"):
        format_of("pdf").document(bare_statement(), "zh-Hans")


@needs_chinese
@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="poppler's programs are not installed")
def test_a_pdf_says_what_the_statement_says(tmp_path: Path) -> None:
    """Figures, reasons, seal and page numbers can be read and searched for."""
    source = tmp_path / "statement.pdf"
    source.write_bytes(format_of("pdf").document(sealed_statement()))

    printed = subprocess.run(["pdftotext", "-layout", source, "-"], check=True, capture_output=True, text=True).stdout

    for text in ("$1,708.14", "Credit for the outage", "上海分公司", "Page 1 of", "closed on Nov 4, 2026"):
        assert text in printed
    assert "8c1f8c1f" in re.sub(r"[\s\u200b]", "", printed)
