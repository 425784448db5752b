"""`tollhouse simulate`: a month replayed against limits, prices or routes that are not in force."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
import yaml
from tollhouse.admin.v1 import limits_pb2, prices_pb2
from tollhouse.admin.v1 import outlook_pb2 as pb
from tollhouse.admin.v1.outlook_pb2_grpc import OutlookServiceStub
from tollhouse.admin.v1.prices_pb2_grpc import RerateServiceStub

from tollhouse_admin.amounts import dollars_of, dollars_text, parse_month
from tollhouse_admin.command import READ, Session, command, single
from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.names import tenant_of
from tollhouse_admin.output import Format, note, write_csv, write_json, write_table
from tollhouse_admin.rendering import Cell, as_json, cells
from tollhouse_admin.rerates import set_prices, show_rerated
from tollhouse_admin.scopes import Department, Tenant, department_name, tenant_name
from tollhouse_admin.tree_files import read_text
from tollhouse_admin.tree_yaml import read_yaml

app = single("Replay a month against limits, prices or routes that are not in force.")

_TIMEOUT_SECONDS = 1800.0
_LIMIT_TITLES = ["limit", "scope", "metric", "window", "selector", "mode", "amount"]


@command(app, None, READ, timeout_seconds=_TIMEOUT_SECONDS)
def simulate(
    session: Session,
    *,
    month: Annotated[str, typer.Option(metavar="YYYY-MM", help="The month, `this` or `last`.")],
    limits: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", exists=True, dir_okay=False, help="Limits, in a file as `tollhouse export` writes it."
        ),
    ] = None,
    prices: Annotated[
        str | None, typer.Option(metavar="FILE|VERSION", help="A price file or a version of the price book.")
    ] = None,
    routing: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="A mapping of tiers/TIER or models/MODEL to a model, as YAML or JSON.",
        ),
    ] = None,
    tenant: Tenant = None,
    department: Department = None,
) -> None:
    """Report what a month would have been with --limits, --prices or --routing; nothing booked changes."""
    if sum(one is not None for one in (limits, prices, routing)) != 1:
        raise wrong_usage("One of --limits, --prices and --routing is needed", "Each is a question of its own.")
    parent = department_name(session, department, tenant) if department else tenant_name(session, tenant)
    named = parse_month(month, today=datetime.now(UTC).date())
    if prices is not None:
        _rerate(session, parent, named, prices)
        return
    request = pb.SimulateMonthRequest(parent=parent, month=named)
    if limits is not None:
        request.limits.extend(_limits(limits, tenant_of(parent)))
    if routing is not None:
        request.routes.extend(_routes(routing))
    _show(session.options.output, _report(session, request))


def _rerate(session: Session, parent: str, month: str, prices: str) -> None:
    request = prices_pb2.GetRerateReportRequest(parent=parent, month=month)
    set_prices(request, prices)
    stub = session.connection.stub(RerateServiceStub)
    show_rerated(session.options.output, session.connection.call(stub.GetRerateReport, request))


def _limits(file: Path, tenant: str) -> Iterator[limits_pb2.Limit]:
    """Yield the limits of a tree file.

    Raises:
        Failure: it is not one, or has none.
    """
    found = read_yaml(str(file), read_text(str(file)), tenant=tenant)
    if not found.tree.limits:
        raise wrong_usage(f"{file} has no limits", "They stand under `limits:`, as `tollhouse export` writes them.")
    for number, one in enumerate(found.tree.limits, start=1):
        yield limits_pb2.Limit(
            name=f"{tenant}/limits/{one.id or f'limit-{number}'}",
            scope=one.scope or tenant,
            metric=one.metric,
            window=one.window,
            selector=one.selector,
            mode=one.mode,
            amount=one.amount,
            overshoot=one.overshoot if one.HasField("overshoot") else None,
        )


def _routes(file: Path) -> Iterator[pb.SimulatedRoute]:
    """Yield the routes of a file.

    Raises:
        Failure: it is not a mapping of texts.
    """
    try:
        found = yaml.safe_load(read_text(str(file)))
    except yaml.YAMLError as error:
        raise wrong_usage(f"{file} is neither YAML nor JSON") from error
    if not isinstance(found, dict) or not found or not all(isinstance(one, str) for one in (*found, *found.values())):
        raise wrong_usage(f"{file} is no mapping of texts", "Write it like `tiers/pro: gemini-3.5-flash`.")
    for source, model in found.items():
        yield pb.SimulatedRoute(source=source, model=model.removeprefix("models/"))


def _report(session: Session, request: pb.SimulateMonthRequest) -> pb.SimulationReport:
    report = pb.SimulationReport()
    for answer in session.connection.stream(session.connection.stub(OutlookServiceStub).SimulateMonth, request):
        if answer.HasField("report"):
            report = answer.report
        else:
            at = answer.progress.at.ToDatetime()
            note(f"{answer.progress.records} records, until {at:%Y-%m-%d %H:%M} UTC")
    return report


def _show(form: Format, report: pb.SimulationReport) -> None:
    if form is Format.JSON:
        write_json(as_json(report))
        return
    titles, rows = _limit_rows(report) if report.limits else _move_rows(report)
    if form is Format.CSV:
        write_csv(titles, rows)
    else:
        write_table(titles, rows, caption=f"{report.parent}, {report.month}")
    booked, simulated = dollars_of(report.booked), dollars_of(report.simulated)
    refused = f", {report.refused_calls} calls refused" if report.limits else ""
    note(
        f"{report.records} records cost ${dollars_text(booked)}, and would have cost ${dollars_text(simulated)}: "
        f"${dollars_text(simulated - booked)}{refused}"
    )
    for one in report.notes:
        note(one)


def _limit_rows(report: pb.SimulationReport) -> tuple[list[str], list[list[Cell]]]:
    titles = [*_LIMIT_TITLES, "refused_calls", "refused_cost", "first_refusal_time", "peak"]
    rows: list[list[Cell]] = []
    for one in report.limits:
        found = cells(one)
        known = {name.removeprefix("limit."): value for name, value in found.items()}
        named = [known.get("name" if title == "limit" else title, "") for title in _LIMIT_TITLES]
        rows.append([*named, *(found.get(title, "") for title in titles[len(_LIMIT_TITLES) :])])
    return titles, rows


def _move_rows(report: pb.SimulationReport) -> tuple[list[str], list[list[Cell]]]:
    titles = ["from", "to", "calls", "booked", "simulated", "difference", "unpriced_calls"]
    rows: list[list[Cell]] = []
    for one in report.moves:
        booked, simulated = dollars_of(one.booked), dollars_of(one.simulated)
        moved: list[Cell] = [one.route.source, one.route.model, one.calls]
        rows.append([*moved, booked, simulated, simulated - booked, one.unpriced_calls])
    return titles, rows
