"""Every board has its picture in the docs, of the panels that it has now."""

import xml.etree.ElementTree as ET

import pytest

from grafana import pictures
from tests.architecture.tree import ROOT

BOARDS = pictures.rendered_boards()
MOST_BYTES = 150_000


def test_page_of_boards_is_current() -> None:
    """It shows each board's picture, lists its questions, and says who drew it; `make pictures` writes it."""
    page = pictures.PAGE.read_text(encoding="utf-8")

    assert page == pictures.page()
    assert all(f"](boards/{uid}.svg)" in page for uid in BOARDS)
    assert "not by Grafana" in page


def test_no_picture_is_left_of_a_board_that_is_gone() -> None:
    """Nobody would draw it again."""
    assert {path.stem for path in pictures.PICTURES.iterdir()} == set(BOARDS)


@pytest.mark.parametrize("uid", BOARDS)
def test_every_panel_is_in_its_boards_picture(uid: str) -> None:
    """With its title, whole; a picture of panels that are gone misleads: `make pictures` draws it anew."""
    text = (ROOT / "docs" / "boards" / f"{uid}.svg").read_text(encoding="utf-8")
    # A long title stands on two lines.
    words = " ".join(part.strip() for part in ET.fromstring(text).itertext() if part.strip())  # noqa: S314 - our own

    assert len(text.encode()) < MOST_BYTES
    assert [panel["title"] for panel in BOARDS[uid]["panels"] if panel["title"] not in words] == []
    assert words.count("No data") < len(BOARDS[uid]["panels"]) / 2
