"""Statements as XLSX. The same statement in the same language is the same bytes every time."""

from datetime import UTC, date, datetime
from io import BytesIO
from typing import Any, Final

from xlsxwriter import Workbook
from xlsxwriter.format import Format as CellFormat
from xlsxwriter.worksheet import Worksheet

from tollhouse_server.chargeback.statement import Statement
from tollhouse_server.documents.language import Language
from tollhouse_server.documents.sheets import Cell, ColumnKind, Sheet, exact, sheets
from tollhouse_server.documents.summary_sheet import SummaryRow, summary_rows
from tollhouse_server.money import NANOS_PER_DOLLAR

_INK, _BRAND, _BAND, _RULE = "#1B2733", "#17506B", "#EAF1F5", "#C9D3DA"
_FONT: Final = {"font_name": "Calibri", "font_size": 10, "font_color": _INK, "valign": "top"}
_FORMATS: Final[dict[ColumnKind, dict[str, Any]]] = {
    ColumnKind.TEXT: {},
    ColumnKind.LONG_TEXT: {"text_wrap": True},
    ColumnKind.NUMBER: {"num_format": "#,##0"},
    ColumnKind.DAY: {"num_format": "yyyy-mm-dd", "align": "left"},
    ColumnKind.DOLLARS: {"num_format": '#,##0.00;[Red]-#,##0.00;"–"'},
    ColumnKind.EXACT: {"align": "right", "indent": 1, "font_color": "#5A6B78", "font_size": 9},
    ColumnKind.PERCENT: {"num_format": "0.0%"},
}
_WIDTHS: Final = {
    ColumnKind.TEXT: 20,
    ColumnKind.LONG_TEXT: 44,
    ColumnKind.NUMBER: 14,
    ColumnKind.DAY: 12,
    ColumnKind.DOLLARS: 15,
    ColumnKind.EXACT: 17,
    ColumnKind.PERCENT: 11,
}
_TEXTS: Final = (ColumnKind.TEXT, ColumnKind.LONG_TEXT)
_A4: Final = 9
_WIDEST: Final = 40


def render_xlsx(statement: Statement, language: Language) -> bytes:
    """Return a workbook: a summary, then a sheet for each table."""
    target = BytesIO()
    # In memory and not "constant_memory": the order of what is in the file must not hang on anything else.
    book = Workbook(target, {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False})
    # What is drawn from the clock otherwise; the statement's end is the same each time, its generation is not.
    created = statement.period.end.astimezone(UTC).replace(tzinfo=None)
    book.set_properties({"title": _title(statement, language), "company": statement.display_name, "created": created})
    _write_summary(book, statement, language)
    for sheet in sheets(statement, language):
        _write_sheet(book, sheet, statement, language)
    book.close()
    return target.getvalue()


def _title(statement: Statement, language: Language) -> str:
    return f"{statement.display_name} · {language.say('title_of', month=language.month(statement.month))}"


def _write_summary(book: Workbook, statement: Statement, language: Language) -> None:
    page = book.add_worksheet(language.say("sheet_summary"))
    _set_up(page, statement, language, is_wide=False)
    page.set_column(0, 0, 38)
    page.set_column(1, 1, 24)
    page.set_column(2, 2, 26)
    big = book.add_format({**_FONT, "font_size": 18, "bold": True, "font_color": _BRAND})
    page.set_row(0, 30)
    page.write_string(0, 0, statement.display_name, big)
    page.write_string(1, 0, language.say("title_of", month=language.month(statement.month)), _bold(book, 12))
    for row, entry in enumerate(summary_rows(statement, language), start=3):
        _write_summary_row(book, page, row, entry)


def _write_summary_row(book: Workbook, page: Worksheet, row: int, entry: SummaryRow) -> None:
    if entry.is_heading:
        for column, text in enumerate((entry.label, entry.text, entry.note)):
            page.write_string(row, column, text, _header(book, is_number=column > 0 and bool(text)))
        return
    if entry.is_note:
        page.merge_range(row, 0, row, 2, entry.label, _cell_format(book, ColumnKind.LONG_TEXT))
        page.set_row(row, 42)
        return
    weight: dict[str, Any] = {"bold": entry.is_strong, "bottom": 1, "bottom_color": _RULE}
    page.write_string(row, 0, entry.label, _cell_format(book, ColumnKind.LONG_TEXT, **weight))
    if entry.nanos is not None:
        page.write_number(row, 1, entry.nanos / NANOS_PER_DOLLAR, _cell_format(book, ColumnKind.DOLLARS, **weight))
        page.write_string(row, 2, exact(entry.nanos), _cell_format(book, ColumnKind.EXACT, **weight))
    elif entry.number is not None:
        page.write_number(row, 1, entry.number, _cell_format(book, ColumnKind.NUMBER, **weight))
        page.write_string(row, 2, entry.note, _cell_format(book, ColumnKind.LONG_TEXT, **weight))
    else:
        page.merge_range(row, 1, row, 2, entry.text, _cell_format(book, ColumnKind.LONG_TEXT, **weight))
        page.set_row(row, 13 * (1 + len(entry.text) // 52) + 2)


def _write_sheet(book: Workbook, sheet: Sheet, statement: Statement, language: Language) -> None:
    page = book.add_worksheet(sheet.title)
    _set_up(page, statement, language, is_wide=True)
    page.freeze_panes(1, 1)
    page.repeat_rows(0)
    page.set_row(0, 30)
    for place, column in enumerate(sheet.columns):
        width = _width(sheet, place)
        page.set_column(place, place, width)
        page.write_string(0, place, column.label, _header(book, is_number=column.kind not in _TEXTS))
    formats = [_cell_format(book, column.kind, bottom=1, bottom_color=_RULE) for column in sheet.columns]
    for row, cells in enumerate(sheet.rows, start=1):
        _write_cells(page, row, sheet, cells, formats)
    last = len(sheet.rows)
    if last:
        page.autofilter(0, 0, last, len(sheet.columns) - 1)
    if sheet.total:
        strong: dict[str, Any] = {"bold": True, "bg_color": _BAND, "top": 2, "top_color": _BRAND}
        _write_cells(page, last + 1, sheet, sheet.total, [_cell_format(book, c.kind, **strong) for c in sheet.columns])
    if sheet.printed is not None:
        # On paper the digits behind the cents and the names for programs would make the rest too small to read.
        page.print_area(0, 0, last + len(sheet.total[:1]), sheet.printed)
    if sheet.bars is not None and last:
        # Solid bars beside the numbers; they show what is large without a chart.
        bar = {"type": "data_bar", "bar_color": "#9CC3D5", "bar_solid": True, "min_type": "num", "min_value": 0}
        page.conditional_format(1, sheet.bars, last, sheet.bars, bar)


def _write_cells(page: Worksheet, row: int, sheet: Sheet, cells: tuple[Cell, ...], formats: list[CellFormat]) -> None:
    for place, (cell, column, style) in enumerate(zip(cells, sheet.columns, formats, strict=True)):
        _write_cell(page, (row, place), cell, column.kind, style)


def _write_cell(page: Worksheet, place: tuple[int, int], cell: Cell, kind: ColumnKind, style: CellFormat) -> None:
    if cell is None:
        page.write_blank(*place, None, style)
    elif isinstance(cell, str):
        # Always as a string: a reason that begins with "=" is a text, never a formula.
        page.write_string(*place, cell, style)
    elif isinstance(cell, date):
        page.write_datetime(*place, datetime(cell.year, cell.month, cell.day), style)  # a cell has no zone
    elif kind is ColumnKind.EXACT:
        page.write_string(*place, exact(cell), style)
    else:
        divisor = {ColumnKind.DOLLARS: NANOS_PER_DOLLAR, ColumnKind.PERCENT: 1_000_000}.get(kind, 1)
        page.write_number(*place, cell / divisor, style)


def _set_up(page: Worksheet, statement: Statement, language: Language, *, is_wide: bool) -> None:
    page.hide_gridlines(2)
    page.set_paper(_A4)
    page.fit_to_pages(1, 0)
    page.set_margins(left=0.5, right=0.5, top=0.7, bottom=0.7)
    if is_wide:
        page.set_landscape()
    name = _title(statement, language).replace("&", "&&")
    page.set_footer(f"&L&8{name}&R&8{language.say('page_of', page='&P', pages='&N')}")


def _width(sheet: Sheet, place: int) -> float:
    """Return a width at which nothing is cut off, up to a bound; letters of Chinese take two places."""
    column = sheet.columns[place]
    if column.kind not in _TEXTS:
        return max(_WIDTHS[column.kind], _places(column.label) + 3)
    longest = max((_places(str(row[place] or "")) for row in sheet.rows), default=0)
    return min(_WIDEST, max(longest + 2, _places(column.label) + 4))


def _places(text: str) -> int:
    return sum(2 if ord(letter) > 0x2E80 else 1 for letter in text)


def _cell_format(book: Workbook, kind: ColumnKind, **more: Any) -> CellFormat:
    return book.add_format({**_FONT, **_FORMATS[kind], **more})


def _header(book: Workbook, *, is_number: bool) -> CellFormat:
    align = "right" if is_number else "left"
    look = {"bold": True, "bg_color": _BRAND, "font_color": "#FFFFFF", "text_wrap": True, "valign": "vcenter"}
    return book.add_format({**_FONT, **look, "align": align})


def _bold(book: Workbook, size: int) -> CellFormat:
    return book.add_format({**_FONT, "font_size": size, "bold": True})
