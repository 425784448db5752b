"""Formats of statements: each makes the bytes of a document from a statement and a language, and nothing else."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from tollhouse_server.chargeback.statement import Statement
from tollhouse_server.documents.focus import render_focus
from tollhouse_server.documents.language import Language, language_of
from tollhouse_server.documents.plain import render_csv, render_json
from tollhouse_server.names import invalid

_XLSX: Final = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"

Render: TypeAlias = Callable[[Statement, Language], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A format by the name that people ask for. `render` takes the processor for a while: call it in a thread."""

    name: str
    media_type: str
    suffix: str
    render: Render

    def document(self, statement: Statement, language: str = "") -> bytes:
        """Return the document in a language by its tag.

        Raises:
            InvalidRequest: there is no such language.
        """
        return self.render(statement, language_of(language))


# What these load takes 25 MB and a quarter of a second, which a worker that makes no documents is to be spared.


def _render_html(statement: Statement, language: Language) -> bytes:
    from tollhouse_server.documents.html import render_html  # noqa: PLC0415

    return render_html(statement, language)


def _render_pdf(statement: Statement, language: Language) -> bytes:
    from tollhouse_server.documents.pdf import render_pdf  # noqa: PLC0415

    return render_pdf(statement, language)


def _render_xlsx(statement: Statement, language: Language) -> bytes:
    from tollhouse_server.documents.xlsx import render_xlsx  # noqa: PLC0415

    return render_xlsx(statement, language)


def _formats() -> tuple[Format, ...]:
    return (
        Format(name="json", media_type="application/json", suffix=".json", render=render_json),
        Format(name="csv", media_type="text/csv", suffix=".csv", render=render_csv),
        Format(name="xlsx", media_type=_XLSX, suffix=".xlsx", render=_render_xlsx),
        Format(name="html", media_type="text/html; charset=utf-8", suffix=".html", render=_render_html),
        Format(name="pdf", media_type="application/pdf", suffix=".pdf", render=_render_pdf),
        Format(name="focus", media_type="text/csv; charset=utf-8", suffix=".focus.csv", render=render_focus),
    )


FORMATS: Final[Mapping[str, Format]] = {each.name: each for each in _formats()}


def format_of(name: str, field: str = "format") -> Format:
    """Return a format by its name.

    Raises:
        InvalidRequest: there is none of the name that came in the request's `field`.
    """
    if name not in FORMATS:
        raise invalid(field, f"is not a format of statements; there are {', '.join(FORMATS)}")
    return FORMATS[name]


def file_name(statement: Statement, wanted: Format, language: str = "") -> str:
    """Return a name for the document's file: tenant, department, month and language, safe on every system."""
    ids = str(statement.scope).split("/")[1::2]
    return f"statement-{'-'.join(ids)}-{statement.month}-{language_of(language).tag}{wanted.suffix}"
