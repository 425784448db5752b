"""Statements as one self-contained HTML file: charts inline, nothing to load, nothing that runs."""

from functools import cache
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from tollhouse_server.chargeback.statement import Statement
from tollhouse_server.documents.language import Language
from tollhouse_server.documents.sections import outline_of

_ROOM: Final = "tollhouse_server.documents"


def render_html(statement: Statement, language: Language) -> bytes:
    """Return the document as UTF-8."""
    return _template().render(outline=outline_of(statement, language)).encode()


@cache
def _template() -> Template:
    # Names of departments and reasons are other people's text: everything is escaped.
    environment = Environment(
        loader=PackageLoader(_ROOM), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("statement.html")
