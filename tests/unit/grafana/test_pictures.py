"""A board's picture is drawn from what Prometheus answered, whatever that was."""

import json
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from grafana.drawing.asking import Answer, Series, Window, expanded, from_json, to_json
from grafana.drawing.picture import picture
from grafana.drawing.svg import cut, width_of
from grafana.pictures import rendered_boards

WINDOW = Window(start=1_800_000_000, end=1_800_000_240, step_seconds=2)
BOARDS = rendered_boards()


def answered(board: dict[str, Any], *series: Series) -> Answer:
    """Return an answer in which each panel was told the same."""
    marks = {"Deploys": [WINDOW.start + 60]}
    return Answer(window=WINDOW, panels=[list(series) for _ in board["panels"]], marks=marks)


def words_of(svg: str) -> str:
    return " ".join(part for part in ET.fromstring(svg).itertext() if part.strip())  # noqa: S314 - our own


def line(legend: str, *values: float) -> Series:
    return Series(legend, [(WINDOW.start + 2 * place, value) for place, value in enumerate(values)])


@pytest.mark.parametrize("uid", BOARDS)
def test_board_without_answers_is_drawn_with_all_its_questions(uid: str) -> None:
    """Prometheus leaves out what never happened."""
    drawn = words_of(picture(BOARDS[uid], answered(BOARDS[uid])))

    assert drawn.count("No data") == sum(panel["type"] != "row" for panel in BOARDS[uid]["panels"])


def test_hostile_legend_is_drawn_as_text() -> None:
    """A department may be called as it likes."""
    board = BOARDS["costs"]

    drawn = picture(board, answered(board, line('<script>&"', 1, 2, float("inf"), 3)))

    assert "<script>" not in drawn
    assert '<script>&"' in words_of(drawn)


def test_many_lines_are_counted_where_the_legend_has_no_room() -> None:
    """The largest are named."""
    board = BOARDS["upstream"]
    series = [line(f"a rather long name of a model, the {place}th", place) for place in range(40)]

    drawn = words_of(picture(board, answered(board, *series)))

    assert "the 39th" in drawn
    assert " more" in drawn


def test_line_is_broken_where_there_was_no_answer() -> None:
    """A gap that is drawn over looks like a measurement."""
    board = BOARDS["capacity"]
    gap = Series("gap", [(WINDOW.start + at, 1.0 + at) for at in (0, 2, 4, 40, 42, 100)])

    drawn = picture(board, answered(board, gap))

    path = next(found for found in drawn.split('<path d="')[1:] if found)
    assert path.partition('"')[0].count("M") == 2
    assert "<circle" in drawn


def test_answers_that_were_written_down_draw_the_same() -> None:
    """So that a change to the drawing needs no run."""
    board = BOARDS["overview"]
    answer = answered(board, line("one", 1, 2, 3))

    [again] = from_json(to_json({"overview": answer})).values()

    assert picture(board, again) == picture(board, answer)


def test_queries_are_asked_with_everything_chosen() -> None:
    """No variable of Grafana's reaches Prometheus."""
    asked = [
        expanded(target["expr"], board)
        for board in BOARDS.values()
        for panel in board["panels"]
        for target in panel.get("targets", [])
    ]

    assert [query for query in asked if "$" in query] == []
    assert any('environment=~".*"' in query for query in asked), json.dumps(asked[:3])


def test_text_without_room_ends_in_an_ellipsis() -> None:
    """It never runs into its neighbour."""
    shortened = cut("departments/research research-monthly-budget", 12, 120)

    assert shortened.endswith("…")
    assert width_of(shortened, 12) <= 120
