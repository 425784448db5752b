"""`tollhouse reconcile`: Google's bill, held against the ledger line by line."""

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import uuid4

import typer
from tollhouse.admin.v1 import reconciliation_pb2 as pb
from tollhouse.admin.v1.reconciliation_pb2_grpc import ReconciliationServiceStub

from tollhouse_admin.amounts import dollars_of, dollars_text, money_of, parse_dollars, parse_month
from tollhouse_admin.bill_files import Notation, Piece, notation_of, read_pieces
from tollhouse_admin.charge_options import parse_day
from tollhouse_admin.command import CHANGE, DESTROY, LIST, READ, Session, command, noun
from tollhouse_admin.dry_run import Change, carry_out
from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.metric_files import read_metrics
from tollhouse_admin.names import named
from tollhouse_admin.output import Format, Layout, note, show_list, show_one, write_json
from tollhouse_admin.rendering import as_json, enum_number, enum_text
from tollhouse_admin.resource import Etag, Kind, changed
from tollhouse_admin.tree_files import read_text

app = noun("Google's bill, held against what the ledger booked; days and months are those of US Pacific time.")

_LONG_SECONDS: Final = 1800.0
_TELL_EVERY_LINES: Final = 50_000


class State(StrEnum):
    """What was decided on a difference."""

    OPEN = "open"
    ACCEPTED = "accepted"


Why = StrEnum(  # type: ignore[misc]  # the values are those of the proto
    "Why",
    [
        (value.name.removeprefix("REASON_"), value.name.removeprefix("REASON_").lower().replace("_", "-"))
        for value in pb.BillVariance.Reason.DESCRIPTOR.values
        if value.number
    ],
)

Month = Annotated[str, typer.Argument(metavar="YYYY-MM", help="The month; `last` is the one before this.")]
Difference = Annotated[str, typer.Argument(metavar="VARIANCE", help="Id or name of the difference.")]
_FILE_HELP = "The Cloud Billing export: JSON lines or CSV, .gz as well, or Parquet."


def _stub(session: Session) -> ReconciliationServiceStub:
    return session.connection.stub(ReconciliationServiceStub)


def _month(text: str) -> str:
    return parse_month(text.removeprefix("billReconciliations/"), today=datetime.now(UTC).date())


def _reasons(variance: Any) -> str:
    kind = pb.BillVariance.Reason.DESCRIPTOR
    return ", ".join(
        f"{enum_text(kind, one.reason)} {dollars_text(dollars_of(one.amount))}" for one in variance.findings
    )


def _read_result(session: Session, name: str) -> pb.BillReconciliation:
    request = pb.GetBillReconciliationRequest(name=name)
    return session.connection.call(_stub(session).GetBillReconciliation, request)


def _read_variance(session: Session, name: str) -> pb.BillVariance:
    return session.connection.call(_stub(session).GetBillVariance, pb.GetBillVarianceRequest(name=name))


def _read_policy(session: Session, _: str = "") -> pb.ReconciliationPolicy:
    return session.connection.call(_stub(session).GetReconciliationPolicy, pb.GetReconciliationPolicyRequest())


_IMPORTS = Layout(
    [
        *("name", "file_name", "state", "line_count", "new_line_count", "cost", "credits", "first_day", "last_day"),
        *("currencies", "complete_time", "creator"),
    ]
)
RESULT = Kind(
    Layout(
        [
            *("month", "booked", "billed", "credits", "unexplained", "compared_count", "variance_count"),
            *("blocking_count", "newest_export_time", "run_time", "runner"),
        ]
    ),
    _read_result,
)
VARIANCE = Kind(
    Layout(
        [
            *("name", "day", "google_project", "model", "sku", "booked", "billed", "credits", "variance"),
            *(("reasons", _reasons), "unexplained", "blocking", "state", "accepter", "acceptance_reason"),
        ]
    ),
    _read_variance,
)
POLICY = Kind(Layout(["absolute", "percent", "rounding_per_line", "etag"]), _read_policy)


# --- imports ----------------------------------------------------------------------------------------------------------


@command(app, "import", CHANGE, timeout_seconds=_LONG_SECONDS)
def import_bill(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help=_FILE_HELP)],
    *,
    notation: Annotated[Notation | None, typer.Option("--format", help="Absent: by the file's ending.")] = None,
) -> None:
    """Import a file of Google's bill, all of it or nothing; lines that are known already are not taken again."""
    notation = notation or notation_of(file)
    import_id, sent, told = session.options.request_id or str(uuid4()), 0, 0
    waiting: Piece | None = None
    answer = pb.BillImport()
    for piece in read_pieces(file, notation):
        if waiting is not None:
            answer = _send(session, import_id, file, notation, waiting, offset=sent, last=False)
            sent += waiting.lines
            told = _tell(sent, told)
        waiting = piece
    if waiting is None:
        raise wrong_usage(f"{file.name} has no line", "Is it a billing export?")
    answer = _send(session, import_id, file, notation, waiting, offset=sent, last=True)
    _show_import(session, answer, sent + waiting.lines)


def _send(
    session: Session, import_id: str, file: Path, notation: Notation, piece: Piece, *, offset: int, last: bool
) -> pb.BillImport:
    is_csv = notation is Notation.CSV
    request = pb.ImportBillRequest(
        import_id=import_id,
        file_name=file.name,
        format=pb.BILL_FORMAT_CSV if is_csv else pb.BILL_FORMAT_JSONL,
        content=piece.content,
        line_offset=offset,
        first_line=piece.first_line,
        last=last,
        request_id=str(uuid4()),
        validate_only=session.options.dry_run,
    )
    return session.connection.call(_stub(session).ImportBill, request)


def _tell(sent: int, told: int) -> int:
    if sent - told < _TELL_EVERY_LINES:
        return told
    note(f"{sent} lines")
    return sent


def _show_import(session: Session, answer: pb.BillImport, lines: int) -> None:
    if session.options.dry_run:
        note(f"dry run: the import of {lines} lines would be accepted; nothing was changed")
        if session.options.output is Format.JSON:
            write_json({"dryRun": True, "lines": lines})
        return
    note(f"{answer.line_count} lines, {answer.new_line_count} of them new; compare with `tollhouse reconcile run`")
    show_one(session.options.output, _IMPORTS, answer)


@command(app, "imports", LIST)
def list_imports(session: Session) -> None:
    """List the files of Google's bill, the oldest first."""
    kind = Kind(_IMPORTS, lambda _, name: pb.BillImport(name=name))
    kind.show_pages(session, _stub(session).ListBillImports, pb.ListBillImportsRequest(), "bill_imports")


# --- comparisons ------------------------------------------------------------------------------------------------------


@command(app, "run", CHANGE, timeout_seconds=_LONG_SECONDS)
def run(session: Session, month: Month) -> None:
    """Compare a month of the bill with the ledger; what was accepted before stays accepted."""
    request = pb.ReconcileBillRequest(month=_month(month))
    RESULT.create(session, f"the comparison of {request.month}", _stub(session).ReconcileBill, request)


@command(app, "list", LIST)
def list_results(session: Session) -> None:
    """List the months that were compared, the oldest first."""
    request = pb.ListBillReconciliationsRequest()
    RESULT.show_pages(session, _stub(session).ListBillReconciliations, request, "bill_reconciliations")


@command(app, "show", READ)
def show(session: Session, month: Month) -> None:
    """Show how a month of the bill compares to the ledger."""
    RESULT.show(session, f"billReconciliations/{_month(month)}")


@command(app, "variances", LIST)
def variances(
    session: Session,
    month: Month,
    *,
    project: Annotated[
        str | None, typer.Option(metavar="ID", callback=named, help="Only of this Google project.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="MODEL", callback=named, help="Only of this model.")] = None,
    reason: Annotated[Why | None, typer.Option(help="Only with this reason.")] = None,
    state: Annotated[State | None, typer.Option(help="Only in this state.")] = None,
    blocking: Annotated[bool, typer.Option("--blocking", help="Only those that block a close.")] = False,
) -> None:
    """List the differences of a month with their likely reasons, by day."""
    request = pb.ListBillVariancesRequest(
        month=_month(month), google_project=project or "", model=model or "", blocking_only=blocking
    )
    if reason is not None:
        request.reason = enum_number(pb.BillVariance.Reason.DESCRIPTOR, reason)  # type: ignore[assignment]
    if state is not None:
        request.state = enum_number(pb.BillVariance.State.DESCRIPTOR, state)  # type: ignore[assignment]
    VARIANCE.show_pages(session, _stub(session).ListBillVariances, request, "bill_variances")


@command(app, "variance", READ)
def variance(session: Session, difference: Difference) -> None:
    """Show one difference with all that was found."""
    VARIANCE.show(session, _variance_name(difference))


def _variance_name(text: str) -> str:
    return f"billVariances/{text.removeprefix('billVariances/')}"


@command(app, "accept", DESTROY)
def accept(
    session: Session,
    difference: Difference,
    *,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for whoever reads the statements.")],
    borne_by_platform: Annotated[
        bool, typer.Option("--borne-by-platform", help="Charge no tenant; the platform bears it.")
    ] = False,
    effective: Annotated[
        str, typer.Option(metavar="YYYY-MM-DD", help="Charge it in the month of this day; absent: in that of the use.")
    ] = "",
    etag: Etag = None,
) -> None:
    """Accept a difference under your name; tenants are charged for it in proportion to their use."""
    name = _variance_name(difference)
    effective_date = parse_day(effective) if effective else ""
    request = pb.AcceptBillVarianceRequest(
        name=name, reason=reason, borne_by_platform=borne_by_platform, effective_date=effective_date, etag=etag or ""
    )
    whose = "The platform bears it" if borne_by_platform else "Tenants are charged for it"
    change = Change(
        verb="accept",
        subject=name,
        method=_stub(session).AcceptBillVariance,
        request=request,
        layout=Layout(["bill_variance.name", "bill_variance.accepted", "bill_variance.state", "true_ups"]),
        warning=f"{whose}, and what was charged is never changed afterwards.",
    )
    carry_out(session, change)


# --- bounds and rules -------------------------------------------------------------------------------------------------


@command(app, "policy", READ)
def policy(session: Session) -> None:
    """Show above which difference a month cannot be closed without somebody who accepts it."""
    POLICY.show(session, "")


@command(app, "set-policy", CHANGE)
def set_policy(
    session: Session,
    *,
    absolute: Annotated[
        str | None, typer.Option(metavar="USD", help="It blocks above this amount, if it is above --percent, too.")
    ] = None,
    percent: Annotated[
        str | None,
        typer.Option(metavar="N", help="It blocks above this part of the larger side, if it is above --absolute, too."),
    ] = None,
    rounding_per_line: Annotated[
        str | None, typer.Option(metavar="USD", help="How much rounding one line of the bill can make.")
    ] = None,
    etag: Etag = None,
) -> None:
    """Change the bounds; they count from the next comparison on."""
    given = changed(absolute=absolute, percent=percent, rounding_per_line=rounding_per_line)
    wanted = _read_policy(session)
    for field in given.keys() - {"percent"}:
        getattr(wanted, field).CopyFrom(money_of(parse_dollars(given[field])))
    wanted.percent = given.get("percent", wanted.percent)
    wanted.etag = etag or wanted.etag
    request = pb.UpdateReconciliationPolicyRequest(reconciliation_policy=wanted)
    POLICY.change(session, "update", "reconciliationPolicy", _stub(session).UpdateReconciliationPolicy, request)


@command(app, "map", READ)
def sku_map(session: Session) -> None:
    """Write the file of rules that says what Google's SKUs are; the packaged rules come behind it."""
    found = session.connection.call(_stub(session).GetSkuMap, pb.GetSkuMapRequest())
    if session.options.output is Format.JSON:
        write_json(as_json(found))
    else:
        typer.echo(found.content, nl=False)


@command(app, "import-map", CHANGE)
def import_map(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="Rules, TOML.")],
) -> None:
    """Put a file of rules for Google's SKUs in place of the one before."""
    request = pb.ImportSkuMapRequest(content=read_text(str(file)))
    kind = Kind(Layout(["version", "rule_count", "create_time", "creator"]), lambda *_: pb.SkuMap())
    kind.create(session, "the SKU map", _stub(session).ImportSkuMap, request)


# --- Google's own counts ----------------------------------------------------------------------------------------------

COUNTS = Layout(
    [
        *(("day", lambda one: one.counted.day), ("google_project", lambda one: one.counted.google_project)),
        *(("model", lambda one: one.counted.model), ("requests", lambda one: one.counted.requests), "attempts"),
        *(
            "refused_attempts",
            "unknown_attempts",
            ("tokens", lambda one: one.counted.tokens),
            "booked_tokens",
            "reason",
        ),
    ]
)


@command(app, "metrics", READ, timeout_seconds=_LONG_SECONDS)
def compare_metrics(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="CSV or JSON lines.")],
    *,
    notation: Annotated[Notation | None, typer.Option("--format", help="Absent: by the file's ending.")] = None,
) -> None:
    """Hold Google's counts of requests and tokens (Cloud Monitoring) against the ledger's attempts; keep nothing."""
    request = pb.VerifyUsageMetricsRequest(usage_metrics=read_metrics(file, notation or notation_of(file)))
    answer = session.connection.call(_stub(session).VerifyUsageMetrics, request)
    show_list(session.options.output, COUNTS, answer.differences)
    note(
        f"{answer.compared_count} compared, {len(answer.differences)} differ: Google counts {answer.counted_requests} "
        f"requests, the ledger {answer.attempts} attempts"
    )
