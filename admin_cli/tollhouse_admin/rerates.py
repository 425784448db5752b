"""Reports of what usage would have cost at other prices."""

from pathlib import Path

from tollhouse.admin.v1 import prices_pb2 as pb

from tollhouse_admin.amounts import dollars_of, dollars_text
from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.output import Format, Layout, note, write_csv, write_json, write_table
from tollhouse_admin.price_files import read_file
from tollhouse_admin.rendering import as_json

RATED = Layout(
    [
        *("model", "sku", "service_tier", "quantity", "unit", "booked_nanos_per_million"),
        *("rerated_nanos_per_million", "booked", "rerated"),
    ]
)


def set_prices(request: pb.GetRerateReportRequest, prices: str) -> None:
    """Ask with a version of the book, or with a price file.

    Raises:
        Failure: it is neither.
    """
    typed = prices.removeprefix("priceBooks/")
    if typed.isascii() and typed.isdigit():
        request.version = int(typed)
        return
    if not Path(prices).is_file():
        raise wrong_usage(f"{prices} is neither a version of the book nor a file")
    found = read_file(Path(prices))
    request.format, request.content = found.format, found.content


def show_rerated(form: Format, report: pb.RerateReport) -> None:
    """Write what a month cost and would have cost, by model and SKU."""
    for text in report.notes:
        note(text)
    if form is Format.JSON:
        write_json(as_json(report))
    elif form is Format.CSV:
        write_csv(RATED.titles, [RATED.row(line) for line in report.lines])
    else:
        write_table(
            RATED.titles,
            [RATED.row(line) for line in report.lines],
            caption=f"{report.parent or 'all tenants'}, {report.month}",
        )
    booked, rerated = dollars_of(report.booked), dollars_of(report.rerated)
    more = "more" if rerated > booked else "less"
    note(
        f"booked ${dollars_text(booked)}, would have been ${dollars_text(rerated)}: "
        f"${dollars_text(abs(rerated - booked))} {more}"
    )
