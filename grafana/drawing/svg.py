"""The few shapes of SVG that a board needs, and how wide a text is."""

from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape, quoteattr

INK: Final = "#1b2733"
QUIET: Final = "#5a6b78"
PAGE: Final = "#f4f6f8"
CARD: Final = "#ffffff"
RULE: Final = "#dde4e9"
TRACK: Final = "#e8eef2"
BRAND: Final = "#17506b"
"""As on the statements (documents/templates/statement.css)."""

NAMED: Final = {"green": "#2c7a55", "orange": "#c2740c", "red": "#b3452f", "blue": "#2f6fb3", "purple": "#7a4fa8"}
LINES: Final = (
    "#17506b",
    "#d98a2b",
    "#4c9a6d",
    "#b3452f",
    "#7a5ea8",
    "#4c8fae",
    "#9a8f1e",
    "#c0568f",
    "#5a6b78",
    "#8a5a2b",
)
FONT: Final = "Inter, 'Segoe UI', 'Helvetica Neue', Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"

_NARROW, _WIDE = frozenset("iljtfrI.,:;|!'()[] -/"), frozenset("mwMW%@_")


@dataclass(frozen=True, slots=True)
class Box:
    """A place in the picture, in its units."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """The right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """The lower edge."""
        return self.y + self.height

    def inside(self, *, left: float = 0, top: float = 0, right: float = 0, bottom: float = 0) -> "Box":
        """Return the box without its margins."""
        return Box(self.x + left, self.y + top, self.width - left - right, self.height - top - bottom)


def number(value: float) -> str:
    """Return a coordinate, as short as it can be."""
    return f"{value:.1f}".removesuffix(".0")


def text(
    x: float, y: float, words: str, *, size: float = 12, fill: str = QUIET, anchor: str = "", bold: bool = False
) -> str:
    """Write a line of text on the baseline `y`; `anchor` is middle or end."""
    more = (f' text-anchor="{anchor}"' if anchor else "") + (' font-weight="600"' if bold else "")
    return (
        f'<text x="{number(x)}" y="{number(y)}" font-size="{number(size)}" fill="{fill}"{more}>{escape(words)}</text>'
    )


def rect(box: Box, fill: str, *, stroke: str = "", rounding: float = 0) -> str:
    """Draw a rectangle."""
    more = (f' stroke="{stroke}"' if stroke else "") + (f' rx="{number(rounding)}"' if rounding else "")
    place = f'x="{number(box.x)}" y="{number(box.y)}" width="{number(box.width)}" height="{number(box.height)}"'
    return f'<rect {place} fill="{fill}"{more}/>'


def line(x1: float, y1: float, x2: float, y2: float, stroke: str, *, dashes: str = "", width: float = 1) -> str:
    """Draw a straight line."""
    more = f' stroke-dasharray="{dashes}"' if dashes else ""
    ends = f'x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}"'
    return f'<line {ends} stroke="{stroke}" stroke-width="{number(width)}"{more}/>'


def group(parts: list[str], title: str) -> str:
    """Put parts together under a title that a reader's pointer, or screen reader, finds."""
    return f"<g><title>{escape(title)}</title>{''.join(parts)}</g>"


def document(width: float, height: float, parts: list[str], *, title: str, means: str) -> str:
    """Return a whole picture that needs nothing beside it."""
    size = f'width="{number(width)}" height="{number(height)}" viewBox="0 0 {number(width)} {number(height)}"'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label={quoteattr(title)} font-family="{FONT}">'
    )
    return "\n".join([head, f"<title>{escape(title)}</title>", f"<desc>{escape(means)}</desc>", *parts, "</svg>", ""])


def width_of(words: str, size: float, *, bold: bool = False) -> float:
    """Return about how wide a text is: fonts differ, so rather too much."""
    return (
        (1.15 if bold else 1.0)
        * size
        * sum(0.37 if c in _NARROW else 0.9 if c in _WIDE else 0.7 if c.isupper() else 0.6 for c in words)
    )


def cut(words: str, size: float, width: float) -> str:
    """Return the text, with an ellipsis where it has no room."""
    if width_of(words, size) <= width:
        return words
    while words and width_of(words + "…", size) > width:
        words = words[:-1]
    return words.rstrip() + "…"


def wrapped(words: str, size: float, width: float) -> list[str]:
    """Return the lines of a bold text that is so wide at most; a single word may be wider."""
    lines = [""]
    for word in words.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and width_of(longer, size, bold=True) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
