import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tollhouse_server.chargeback.statement import Statement
from tollhouse_server.documents.formats import format_of
from tollhouse_server.documents.language import languages
from tollhouse_server.reporting.sums import Dimension

from tests.unit.documents.sample import bare_statement, sealed_statement, statement

_CHROMIUM = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
_CHROMIUM += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
_EMPTY = frozenset({"meta"})


class _Reader(HTMLParser):
    """Knows the elements of a page, what they carry, and whether each is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in _EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def _page(written: Statement, language: str = "en") -> str:
    return format_of("html").document(written, language).decode()


@pytest.mark.parametrize("tag", sorted(languages()))
@pytest.mark.parametrize("build", [statement, sealed_statement, bare_statement])
def test_a_page_is_whole_and_needs_nothing_else(tag: str, build: Callable[[], Statement]) -> None:
    """It is forwarded by mail and opened anywhere: nothing is loaded, nothing runs."""
    page = _page(build(), tag)

    reader = _Reader(page)
    assert reader.open == []
    assert not reader.tags & {"script", "link", "img", "iframe", "object"}
    assert not reader.attributes & {"src", "href", "onload", "onclick"}
    assert not re.search(r"https?://|url\(|@import", page)
    assert f'<html lang="{tag}">' in page


def test_names_and_reasons_of_others_are_shown_and_not_run() -> None:
    """A department's name or a reason may say anything."""
    evil = replace(statement().entries[0], reason="<script>alert(1)</script>")

    page = _page(statement(entries=(evil,), display_name='"><img src=x>'))

    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script" not in page
    assert "<img" not in page
    assert "Research &lt;R&amp;D&gt;" in page


def test_a_page_says_what_was_charged_what_was_saved_and_what_is_over_budget() -> None:
    """The figures that a reader looks for first are there in words."""
    page = _page(statement())

    for text in ("$1,708.14", "$1,397.03", "$326.00", "over budget", "Credit for the outage of 12 September", "$61.30"):
        assert text in page


def test_only_a_closed_month_shows_a_seal_and_how_to_check_it() -> None:
    """Nobody takes a preview for the final word."""
    sealed, preview = _page(sealed_statement()), _page(statement())

    assert sealed_statement().seal.sha256 in sealed  # type: ignore[union-attr]  # it is sealed
    assert "closed on Nov 4, 2026" in sealed
    assert "This statement is not sealed" in preview
    assert 'id="forecast"' in preview
    assert 'id="forecast"' not in sealed


def test_a_division_with_very_many_values_is_cut_with_the_rest_in_one_row() -> None:
    """A page stays one that people read; the total is still that of all."""
    wanted = statement()
    projects = tuple(
        replace(part, key=f"tenants/halden/departments/x/projects/p{number}")
        for dimension, parts in wanted.breakdowns.items()
        for number, part in enumerate(parts * 9)
        if dimension == "project"
    )

    page = _page(replace(wanted, breakdowns={**wanted.breakdowns, "project": projects}))  # type: ignore[dict-item]

    assert f"Other ({len(projects) - 40})" in page


@pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [1280, 390])
def test_chromium_paints_the_page(tmp_path: Path, width: int) -> None:
    """On a screen and on a telephone something is to be seen."""
    source, picture = tmp_path / "statement.html", tmp_path / "statement.png"
    source.write_bytes(format_of("html").document(statement(), "zh-Hans"))

    place = [f"--user-data-dir={tmp_path}/profile", f"--window-size={width},2000", f"--screenshot={picture}"]
    subprocess.run([*_CHROMIUM, *place, source.as_uri()], check=True, capture_output=True, timeout=60)

    assert picture.stat().st_size > 50_000


def _with_days(count: int) -> str:
    days = statement().breakdowns[Dimension.DAY][1 : 1 + count]
    return _page(statement(breakdowns=dict(statement().breakdowns) | {Dimension.DAY: days}))


@pytest.mark.parametrize(("days", "places"), [(1, 14), (2, 14), (20, 20)])
def test_a_month_of_a_day_or_two_has_columns_and_no_walls(days: int, places: int) -> None:
    """A column is as wide as those of a fortnight, or as there is room for."""
    page = _with_days(days)

    assert f'viewBox="0 0 {places * 20} 100"' in page
    assert f"grid-template-columns: repeat({places}, 1fr)" in page
    assert page.count('width="16"') == days
