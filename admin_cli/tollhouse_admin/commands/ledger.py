"""`tollhouse ledger`: attempts whose outcome is unknown, and the proof that the ledger adds up."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import Annotated
from uuid import NAMESPACE_OID, uuid5

import typer
from tollhouse.admin.v1 import ledger_pb2 as pb
from tollhouse.admin.v1.ledger_pb2_grpc import LedgerServiceStub

from tollhouse_admin.amounts import dollars_of, dollars_text, money_of, parse_count, parse_dollars, parse_moment
from tollhouse_admin.command import DESTROY, LIST, READ, Session, command, noun
from tollhouse_admin.dry_run import Change, carry_out, confirm
from tollhouse_admin.failures import ExitCode, Failure, wrong_usage
from tollhouse_admin.names import last_id, named
from tollhouse_admin.output import Format, Layout, note, show_list, show_one, write_csv, write_json, write_table
from tollhouse_admin.rendering import as_json, enum_number, enum_text
from tollhouse_admin.scopes import Department, Project, Scope, Tenant, in_tenant, scope_of, tenant_name

app = noun("The ledger: attempts whose outcome is unknown, and the proof that it adds up.")
suspense = noun("Attempts whose outcome is unknown: booked, listed, and resolved by whoever knows.")
app.add_typer(suspense, name="suspense")

_VERIFY_TIMEOUT_SECONDS = 3600.0
_PROGRESS_SECONDS = 2.0

AttemptId = Annotated[str, typer.Argument(metavar="ATTEMPT", help="Id of the attempt, or name.")]
Cause = Annotated[str, typer.Option(metavar="CAUSE", help="Only this cause: worker_died, interrupted, broken.")]
OlderThan = Annotated[
    str | None,
    typer.Option("--older-than", metavar="WHEN", help="Only what is suspended since before: 7d, 2026-11-01."),
]


class Resolution(StrEnum):
    """How suspense can be resolved."""

    ACCEPT = "accept"
    VOID = "void"
    ACTUAL = "actual"


def _stub(session: Session) -> LedgerServiceStub:
    return session.connection.stub(LedgerServiceStub)


def _read(session: Session, name: str) -> pb.Suspense:
    return session.connection.call(_stub(session).GetSuspense, pb.GetSuspenseRequest(name=name))


SUSPENSE = Layout(
    [
        ("attempt", lambda message: last_id(message.name)),
        *("suspend_time", "cause", "worker_epoch", "project", "model"),
        *("booked.cost", "ceiling", "resolution", "outcome.cost"),
    ]
)
RESOLVED = Layout(
    [
        ("attempt", lambda answer: last_id(answer.suspense.name)),
        ("cause", lambda answer: answer.suspense.cause),
        ("resolution", lambda answer: enum_text(pb.SuspenseResolution.DESCRIPTOR, answer.suspense.resolution)),
        ("booked", lambda answer: dollars_of(answer.suspense.booked.cost)),
        ("adjustment", lambda answer: dollars_of(answer.adjustment.cost)),
        ("outcome", lambda answer: dollars_of(answer.suspense.outcome.cost)),
        ("counters", lambda answer: len(answer.counters)),
    ]
)


# --- suspense ---------------------------------------------------------------------------------------------------------


@command(suspense, "list", LIST)
def list_suspense(
    session: Session,
    *,
    cause: Cause = "",
    older_than: OlderThan = None,
    show_resolved: Annotated[bool, typer.Option("--show-resolved", help="Resolved ones too.")] = False,
    scope: Scope = None,
    tenant: Tenant = None,
    department: Department = None,
    project: Project = None,
) -> None:
    """List attempts whose outcome is unknown, the oldest first."""
    where = scope_of(session, scope=scope, tenant=tenant, department=department, project=project)
    request = _list_request(where, cause=cause, older_than=older_than)
    request.show_resolved = show_resolved
    stub = _stub(session)
    pages = session.connection.pages(stub.ListSuspense, request, "suspense", limit=session.options.limit)
    show_list(session.options.output, SUSPENSE, pages)


def _list_request(parent: str, *, cause: str, older_than: str | None) -> pb.ListSuspenseRequest:
    before = parse_moment(older_than, now=datetime.now(UTC), past=True) if older_than else None
    return pb.ListSuspenseRequest(parent=parent, cause=cause.upper().replace("-", "_"), suspended_before=before)


@command(suspense, "show", READ)
def show(session: Session, attempt: AttemptId, *, tenant: Tenant = None) -> None:
    """Show one attempt, with what is booked for it and the most that it can have cost."""
    name = in_tenant(session, attempt.lower(), "suspense", tenant)
    show_one(session.options.output, SUSPENSE, _read(session, name))


@command(suspense, "resolve", DESTROY)
def resolve(
    session: Session,
    resolution: Annotated[
        Resolution, typer.Option("--as", help="What is booked stands, it cost nothing, or it cost what --cost says.")
    ],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="How you know; it is kept.")],
    *,
    attempt: Annotated[str | None, typer.Argument(metavar="ATTEMPT", help="Id or name; or --all.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All open ones that the other options leave.")] = False,
    cost: Annotated[str | None, typer.Option(metavar="AMOUNT", help="What it cost, in US dollars: 0.0123.")] = None,
    input_tokens: Annotated[str | None, typer.Option(metavar="N", help="Absent: as booked.")] = None,
    output_tokens: Annotated[str | None, typer.Option(metavar="N", help="Absent: as booked.")] = None,
    images: Annotated[str | None, typer.Option(metavar="N", help="Absent: as booked.")] = None,
    cause: Cause = "",
    older_than: OlderThan = None,
    scope: Scope = None,
    tenant: Tenant = None,
    department: Department = None,
    project: Project = None,
) -> None:
    """Say what became of attempts; each is corrected by an adjustment on every limit that it counts in, for good."""
    counts = {"input_tokens": input_tokens, "output_tokens": output_tokens, "images": images}
    ruling = pb.ResolveSuspenseRequest(
        resolution=pb.SuspenseResolution.ValueType(enum_number(pb.SuspenseResolution.DESCRIPTOR, resolution.value)),
        actual=_actual(resolution, cost, counts, every=every),
        reason=reason,
    )
    narrowed = (cause, older_than, scope, department, project)
    if every:
        _require(attempt is None, "--all goes with filters, not with an attempt")
        where = scope_of(session, scope=scope, tenant=tenant, department=department, project=project)
        _resolve_all(session, _list_request(where, cause=cause, older_than=older_than), ruling)
        return
    _require(attempt is not None and not any(narrowed), "Give one attempt, or --all with filters")
    _resolve_one(session, in_tenant(session, str(attempt).lower(), "suspense", tenant), ruling)


def _require(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - an assertion
    if not holds:
        raise wrong_usage(otherwise)


def _actual(
    resolution: Resolution, cost: str | None, counts: dict[str, str | None], *, every: bool
) -> pb.ActualUsage | None:
    if resolution is not Resolution.ACTUAL:
        _require(cost is None and not any(counts.values()), "--cost and counts go with --as actual only")
        return None
    _require(not every, "Attempts do not all cost the same: resolve them one by one with --as actual")
    _require(cost is not None, "--as actual needs --cost")
    given = {name: parse_count(text) for name, text in counts.items() if text is not None}
    return pb.ActualUsage(cost=money_of(parse_dollars(str(cost))), **given)


def _resolve_one(session: Session, name: str, ruling: pb.ResolveSuspenseRequest) -> None:
    ruling.name = name
    change = Change(
        verb="resolve",
        subject=name,
        method=_stub(session).ResolveSuspense,
        request=ruling,
        layout=RESOLVED,
        before=partial(_before, session, name),
        warning=f"The suspense of {last_id(name)} is resolved for good.",
    )
    carry_out(session, change)


def _before(session: Session, name: str) -> pb.ResolveSuspenseResponse:
    """Return the attempt in the shape of the answer, so that a dry run can show what differs."""
    return pb.ResolveSuspenseResponse(suspense=_read(session, name))


@dataclass(slots=True)
class _Bulk:
    """What came of many resolutions."""

    answers: list[pb.ResolveSuspenseResponse] = field(default_factory=list)
    resolved_meanwhile: int = 0


def _resolve_all(session: Session, which: pb.ListSuspenseRequest, ruling: pb.ResolveSuspenseRequest) -> None:
    """Resolve all that are open now, each as a request of its own that can be repeated."""
    found = list(session.connection.pages(_stub(session).ListSuspense, which, "suspense"))
    if not found:
        note("nothing is in suspense there")
        return
    booked = sum((dollars_of(one.booked.cost) for one in found), start=dollars_of(pb.SuspenseAmounts().cost))
    if not (session.options.dry_run or session.options.yes):
        confirm("resolve --all", f"{len(found)} attempts, ${dollars_text(booked)} booked, are resolved for good.")
    bulk = _Bulk()
    said_at = time.monotonic()
    for number, one in enumerate(found, start=1):
        _resolve_of_many(session, one.name, ruling, bulk)
        if time.monotonic() - said_at > _PROGRESS_SECONDS:
            note(f"{number} of {len(found)}")
            said_at = time.monotonic()
    show_list(session.options.output, RESOLVED, bulk.answers)
    _tell(bulk, dry_run=session.options.dry_run)


def _resolve_of_many(session: Session, name: str, ruling: pb.ResolveSuspenseRequest, bulk: _Bulk) -> None:
    request = pb.ResolveSuspenseRequest()
    request.CopyFrom(ruling)
    request.name = name
    request.validate_only = session.options.dry_run
    # The same for the same ruling: the whole command can be repeated, with --request-id as a new beginning.
    seed = request.SerializeToString(deterministic=True)
    request.request_id = str(uuid5(NAMESPACE_OID, f"{session.options.request_id}{seed.hex()}"))
    try:
        bulk.answers.append(session.connection.call(_stub(session).ResolveSuspense, request))
    except Failure as failure:
        # A worker that was only slow, or a colleague, was faster: that attempt is done.
        if failure.reason != "WRONG_STATE":
            raise
        bulk.resolved_meanwhile += 1


def _tell(bulk: _Bulk, *, dry_run: bool) -> None:
    zero = dollars_of(pb.SuspenseAmounts().cost)
    total = sum((dollars_of(answer.adjustment.cost) for answer in bulk.answers), start=zero)
    sign = "-" if total < 0 else ""
    text = f"{len(bulk.answers)} resolved, adjusted by {sign}${dollars_text(abs(total))}"
    if bulk.resolved_meanwhile:
        text += f"; {bulk.resolved_meanwhile} were resolved meanwhile"
    note(f"dry run: {text}; nothing was changed" if dry_run else text)


# --- verification -----------------------------------------------------------------------------------------------------

FINDINGS = Layout(["tenant", "check", "table", "key", "field", "expected", "found"])


@command(app, "verify", READ, timeout_seconds=_VERIFY_TIMEOUT_SECONDS)
def verify(
    session: Session,
    *,
    tenant: Annotated[
        str | None,
        typer.Option(
            "--tenant", "-t", metavar="ID", callback=named, help="Only this tenant; absent: the whole platform."
        ),
    ] = None,
    month: Annotated[str, typer.Option(metavar="YYYY-MM", help="Only what was sent in a month.")] = "",
) -> None:
    """Work the ledger out a second time from its records; exit code 0 only when it adds up to the nano-dollar."""
    parent = tenant_name(session, tenant) if tenant else ""
    request = pb.VerifyLedgerRequest(parent=parent, month=month)
    findings, summary = _follow(session.connection.stream(_stub(session).VerifyLedger, request))
    _show(session.options.output, findings, summary)
    if summary.finding_count:
        more = " or more" if summary.truncated else ""
        raise Failure(
            reason="LEDGER_DOES_NOT_ADD_UP",
            message=f"{summary.finding_count}{more} findings",
            advice="Each names its table and row; nothing was changed",
            exit_code=ExitCode.GENERAL,
        )


def _follow(
    answers: Iterable[pb.VerifyLedgerResponse],
) -> tuple[list[pb.VerificationFinding], pb.VerificationSummary]:
    findings: list[pb.VerificationFinding] = []
    summary: pb.VerificationSummary | None = None
    said_at = time.monotonic()
    for answer in answers:
        if answer.HasField("finding"):
            findings.append(answer.finding)
        elif answer.HasField("summary"):
            summary = answer.summary
        elif time.monotonic() - said_at > _PROGRESS_SECONDS:
            note(_progress(answer.progress))
            said_at = time.monotonic()
    if summary is None:
        raise Failure(
            reason="CUT_OFF", message="The verification ended without a verdict", exit_code=ExitCode.UNAVAILABLE
        )
    return findings, summary


def _progress(progress: pb.VerificationProgress) -> str:
    check = enum_text(pb.VerificationCheck.DESCRIPTOR, progress.check)
    return (
        f"step {progress.done_steps} of {progress.total_steps}: {last_id(progress.tenant)}, {check}; "
        f"{progress.record_count} records"
    )


def _show(form: Format, findings: list[pb.VerificationFinding], summary: pb.VerificationSummary) -> None:
    if form is Format.JSON:
        write_json({"findings": [as_json(finding) for finding in findings], "summary": as_json(summary)})
        return
    rows = [FINDINGS.row(finding) for finding in findings]
    if form is Format.CSV:
        write_csv(FINDINGS.titles, rows)
    elif rows:
        write_table(FINDINGS.titles, rows)
    note(
        f"{summary.record_count} records of {summary.tenant_count} tenants, {summary.counter_count} counters, "
        f"{summary.suspense_count} that are or were in suspense, {summary.attempt_count} in flight, "
        f"{summary.rollup_day_count} days of roll-ups, as of {summary.snapshot_time.ToJsonString()}"
    )
    if summary.unchecked_counter_count:
        note(
            f"{summary.unchecked_counter_count} counters are not checkable: records of their windows were dropped "
            "after an export, or are from before records named their counters"
        )
    if not summary.finding_count:
        note("the ledger adds up")
