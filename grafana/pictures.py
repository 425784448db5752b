"""Draws the boards with real answers: `python grafana/pictures.py [--minutes 6] [--keep FILE | --answers FILE]`.

A company runs under the simulator's load, with some troubles, watched by a real Prometheus; that is asked what the
boards ask. With --keep the answers are written down too, and with --answers they are drawn again without a run.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from grafana.drawing.asking import Answer, Window, ask, from_json, to_json  # noqa: E402
from grafana.drawing.picture import picture  # noqa: E402
from grafana.render import BOARDS, RENDERED  # noqa: E402

PICTURES: Final = ROOT / "docs" / "boards"
PAGE: Final = ROOT / "docs" / "boards.md"
_STEPS: Final = 120
_INTRODUCTION: Final = """\
# The boards

The seven boards of `grafana/`, and what they show of a company of three departments in some minutes of mixed load,
with troubles in between. **They are drawn from the boards' own queries, asked of a real Prometheus that watched two
real servers under the simulator's load, and not by Grafana**: panels, titles, units, thresholds and marks are those
of the JSON in `grafana/rendered/`, while Grafana's own drawing looks different. `make pictures` runs the company and
draws them anew (`grafana/pictures.py`, `tests/drivers/showing.py`).

All values of each variable are chosen; lines are as long as the run was, not as the board's own span of time; rates
are over 20 seconds. The troubles are chosen to be seen: a budget is spent, a bill differs, calls come faster than
they are served, a key is rotated, the upstream refuses, an operator opens breakers, credentials are tried, a server
is replaced and a worker killed; traces go to a collector that is not there. "No data" is the answer to a question
about what did not happen in the run: `tests/drivers/questions.py` lists which queries are empty as long as all is
well, and the trouble that fills each of them, and `make faults ARGS="tests"` sees them filled.

Each panel of a board in Grafana has its description and leads to its line of the [runbook](../deploy/runbook.md).
"""


def rendered_boards() -> dict[str, dict[str, Any]]:
    """Return the JSON of each board by the name of its file, in the boards' order."""
    return {one.uid: json.loads((RENDERED / f"{one.uid}.json").read_text(encoding="utf-8")) for one in BOARDS}


def page() -> str:
    """Return the page that shows the pictures, and says what each board answers."""
    sections = [_section(uid, board) for uid, board in rendered_boards().items()]
    return "\n".join([_INTRODUCTION, *sections])


def _section(uid: str, board: Mapping[str, Any]) -> str:
    title = board["title"].removeprefix("Tollhouse: ")
    asked: dict[str, list[str]] = {}
    for panel in board["panels"]:
        if panel["type"] == "row":
            asked[panel["title"]] = []
        else:
            asked[list(asked)[-1]].append(panel["title"])
    answers = "".join(f"- {row.rstrip('?')}: {' '.join(titles)}\n" for row, titles in asked.items())
    heading = title[0].upper() + title[1:]
    return f"## {heading}\n{board['description']}\n\n{answers}\n![{board['title']}](boards/{uid}.svg)\n"


def asked_of_a_company(minutes: float) -> dict[str, Answer]:
    """Run a company for so long, and return what each board was told."""
    from tests.drivers.showing import shown_company  # noqa: PLC0415 - needs no servers

    with shown_company(minutes * 60) as (prometheus, start, end):
        window = Window(start=start, end=end, step_seconds=max(1.0, (end - start) / _STEPS))
        return {uid: ask(prometheus.url, board, window) for uid, board in rendered_boards().items()}


def main() -> int:
    """Ask or read, draw, and return the exit status."""
    parser = argparse.ArgumentParser(description="Draw the boards with real answers.")
    parser.add_argument("--minutes", type=float, default=6, help="how long the company runs at least")
    parser.add_argument("--keep", type=Path, help="write the answers down here too")
    parser.add_argument("--answers", type=Path, help="draw what was written down, without a run")
    chosen = parser.parse_args()
    kept = chosen.answers
    answers = from_json(kept.read_text("utf-8")) if kept else asked_of_a_company(chosen.minutes)
    if chosen.keep:
        chosen.keep.write_text(to_json(answers), encoding="utf-8")
    PICTURES.mkdir(exist_ok=True)
    for uid, board in rendered_boards().items():
        (PICTURES / f"{uid}.svg").write_text(picture(board, answers[uid]), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
