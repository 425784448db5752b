"""Statements as PDF on A4, laid out by typst from the outline that the HTML is made from; nothing is fetched."""

from dataclasses import asdict
from functools import cache
from importlib.resources import files
from typing import Final

import orjson
import typst

from tollhouse_server.chargeback.statement import Statement
from tollhouse_server.documents.language import Language
from tollhouse_server.documents.sections import outline_of
from tollhouse_server.errors import FontMissing

CHINESE: Final[tuple[str, ...]] = (
    *("Noto Sans CJK SC", "Source Han Sans SC", "Noto Sans SC", "PingFang SC"),
    *("WenQuanYi Micro Hei", "Droid Sans Fallback"),
)
"""Fonts that have the letters of Chinese, at least one of which must be installed for a document with such letters."""

_PREFERRED: Final[tuple[str, ...]] = (
    *("Inter", "Source Sans 3", "Noto Sans", *CHINESE[:3]),
    *("Liberation Sans", "DejaVu Sans", "Libertinus Serif"),
)
"""The first of these that is there is taken; the last one comes with typst."""


def render_pdf(statement: Statement, language: Language) -> bytes:
    """Return the document.

    Raises:
        FontMissing: it has letters of Chinese, and no font on this system has them.
    """
    outline = orjson.dumps(asdict(outline_of(statement, language))).decode()
    words = {
        "page": language.say("page_of", page="{page}", pages="{pages}"),
        "lang": language.locale.language,
        "script": language.locale.script or "Latn",
        "fonts": _families(outline),
    }
    inputs = {"outline": outline, "words": orjson.dumps(words).decode()}
    made = typst.compile(_source(), sys_inputs=inputs, font_paths=_fonts(), timestamp=statement.period.end)
    if not isinstance(made, bytes):
        raise TypeError("typst makes one file of a document")
    return made


def _families(text: str) -> list[str]:
    known = set(_fonts().families())
    families = [name for name in _PREFERRED if name in known][:1]
    chinese = [name for name in CHINESE if name in known][:1]
    if not chinese and any("\u3400" <= letter <= "\u9fff" for letter in text):
        raise FontMissing(fonts=CHINESE)
    return families + chinese


@cache
def _fonts() -> typst.Fonts:
    """Return the fonts of this system, which are looked for once."""
    return typst.Fonts()


@cache
def _source() -> bytes:
    return files(__package__).joinpath("templates", "statement.typ").read_bytes()
