"""The runbook as a page that Grafana serves itself, so that every panel and alert can link to the line that helps."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt

SOURCE: Final = Path(__file__).resolve().parents[1] / "deploy" / "runbook.md"
ADDRESS: Final = "/public/tollhouse/runbook.html"
"""Where deployments mount the page: Grafana serves what lies in its directory `public`."""

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tollhouse: runbook</title><style>
body {{ max-width: 54rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.55 system-ui, sans-serif; color: #1d2733; }}
code {{ background: #eef1f4; padding: .1em .3em; border-radius: 3px; overflow-wrap: anywhere; }}
pre {{ background: #eef1f4; padding: .8rem; overflow-x: auto; }} pre code {{ padding: 0; }}
table {{ border-collapse: collapse; }} td, th {{ border: 1px solid #cfd6dd; padding: .3rem .6rem; text-align: left; }}
h3 {{ margin-top: 2.2rem; }} :target {{ background: #fff3c4; }}
</style></head><body>
{body}</body></html>
"""


def anchor(heading: str) -> str:
    """Return a heading's fragment as forges make it: lower case, hyphens for spaces, no other signs."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def headings() -> frozenset[str]:
    """Return the headings that there are."""
    return frozenset(re.findall(r"^#{2,3} (.+)$", SOURCE.read_text(encoding="utf-8"), re.MULTILINE))


def address_of(heading: str) -> str:
    """Return where the lines under a heading are read.

    Raises:
        ValueError: there is no such heading.
    """
    if heading not in headings():
        raise ValueError(f"{SOURCE.name} has no heading {heading!r}")
    return f"{ADDRESS}#{anchor(heading)}"


def page() -> str:
    """Return the runbook as one HTML page without anything to load."""
    parser = MarkdownIt("commonmark").enable("table")
    tokens = parser.parse(SOURCE.read_text(encoding="utf-8"))
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            opening.attrSet("id", anchor(inline.content))
    return _PAGE.format(body=parser.renderer.render(tokens, parser.options, {}))
