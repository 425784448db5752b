"""`tollhouse receipts`: what the ledger keeps of calls, signed, and checked without Tollhouse."""

import csv
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.timestamp_pb2 import Timestamp
from tollhouse.v1 import receipts_pb2 as pb
from tollhouse.v1 import usage_pb2
from tollhouse.v1.receipts_pb2_grpc import ReceiptServiceStub
from tollhouse.v1.usage_pb2_grpc import UsageServiceStub

from tollhouse_admin.amounts import dollars_of_nanos, dollars_text, month_moments, parse_moment, parse_month
from tollhouse_admin.command import READ, Options, Session, command, local_command, noun
from tollhouse_admin.failures import ExitCode, Failure, wrong_usage
from tollhouse_admin.names import last_id
from tollhouse_admin.output import Format, Layout, note, show_list, write_csv, write_fields, write_json, write_table
from tollhouse_admin.plain_text import one_line
from tollhouse_admin.receipt_files import Progress, ReceiptsFile, read_receipts
from tollhouse_admin.receipt_proofs import Finding, Verdict, Verifier, read_keys
from tollhouse_admin.rendering import Cell, as_json
from tollhouse_admin.scopes import Department, Project, Scope, Tenant, scope_of

app = noun("Receipts: what the ledger keeps of calls, signed, and checked without Tollhouse.")

_PAGE_RECORDS = 1000
_PAGE_TIMEOUT_SECONDS = 60.0
_FINGERPRINT_DIGITS = 32

File = Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="Receipts, one a line.")]


def _stub(session: Session) -> ReceiptServiceStub:
    return session.connection.stub(ReceiptServiceStub)


def _parent(
    session: Session, scope: str | None, tenant: str | None, department: str | None, project: str | None
) -> str | None:
    """Return the scope that was asked for; None leaves it to the server to take the credential's own project."""
    if not (scope or tenant or department or project):
        return None
    return scope_of(session, scope=scope, tenant=tenant, department=department, project=project)


# --- one receipt, and the keys ----------------------------------------------------------------------------------------


@command(app, "get", READ, as_caller=True)
def get(
    session: Session,
    call_id: Annotated[
        str, typer.Argument(metavar="ATTEMPT_OR_REQUEST_ID", help="The attempt; for a day the request.")
    ],
    *,
    scope: Scope = None,
    tenant: Tenant = None,
    department: Department = None,
    project: Project = None,
) -> None:
    """Show the signed receipt of one call; `-o json` writes what can be verified."""
    request = pb.GetCallReceiptRequest(parent=_parent(session, scope, tenant, department, project), call_id=call_id)
    receipt = session.connection.call(_stub(session).GetCallReceipt, request)
    if session.options.output is Format.JSON:
        write_json(as_json(receipt))
    else:
        _show_receipt(session.options.output, receipt)


def _show_receipt(form: Format, receipt: pb.CallReceipt) -> None:
    document = json.loads(receipt.document)
    last = [document["booking"], *document["corrections"]][-1]
    fields: dict[str, Cell] = {
        **{name: document[name] or "" for name in ("attempt_id", "request_id", "project", "credential", "model")},
        "cost": dollars_of_nanos(document["cost_nanos"]),
        "price_version": document["price_version"],
        "settled_at": document["settled_at"] or "",
        "corrections": len(document["corrections"]),
        "signed_by": f"version {receipt.signature.key_version} of {receipt.signature.key}",
    }
    if form is Format.CSV:
        write_csv(list(fields), [list(fields.values())])
        return
    write_fields(fields)
    if last["lines"]:
        titles = ["sku", "quantity", "unit", "per_million_units", "cost"]
        write_table(titles, [_line_row(line) for line in last["lines"]], caption="\nlines:")


def _line_row(line: dict[str, Any]) -> list[Cell]:
    rate, cost = (dollars_of_nanos(line[name]) for name in ("nanos_per_million_units", "cost_nanos"))
    return [line["sku"], line["quantity"], line["unit"], rate, cost]


KEYS = Layout(
    ["key", "version", "algorithm", ("fingerprint", lambda key: _fingerprint(key.public_key))],
)


def _fingerprint(public_key: bytes) -> str:
    """Return what two people can compare by telephone: the beginning of the key's SHA-256."""
    return hashlib.sha256(public_key).hexdigest()[:_FINGERPRINT_DIGITS]


@command(app, "keys", READ, as_caller=True)
def keys(session: Session) -> None:
    """Show the public keys that receipts are signed with; `-o json > keys.json` writes what `verify` takes."""
    answer = session.connection.call(_stub(session).GetReceiptKeys, pb.GetReceiptKeysRequest())
    if session.options.output is Format.JSON:
        write_json(as_json(answer))
        return
    show_list(session.options.output, KEYS, answer.keys)
    note(f"for receipts of {answer.tenant or 'every tenant'}")


# --- the receipts of a period -----------------------------------------------------------------------------------------


@command(app, "export", READ, as_caller=True, timeout_seconds=_PAGE_TIMEOUT_SECONDS)
def export(
    session: Session,
    *,
    file: Annotated[Path, typer.Option(dir_okay=False, metavar="FILE", help="Where to write, one receipt a line.")],
    month: Annotated[str, typer.Option(metavar="YYYY-MM", help="The month, of UTC; `this` or `last`.")] = "",
    since: Annotated[
        str, typer.Option("--since", "--from", metavar="WHEN", help="From when: 7d (ago), 2026-11-01.")
    ] = "",
    until: Annotated[
        str, typer.Option("--until", "--to", metavar="WHEN", help="Until when, exclusive; absent: now.")
    ] = "",
    scope: Scope = None,
    tenant: Tenant = None,
    department: Department = None,
    project: Project = None,
) -> None:
    """Write the signed receipts of all calls booked in a period; a second start goes on where one stopped."""
    if bool(month) == bool(since):
        raise wrong_usage("Say which receipts", "Give --month, or --from and perhaps --to.")
    if month and until:
        raise wrong_usage("--month says it all; it does not go with --to")
    question = {
        "parent": _parent(session, scope, tenant, department, project) or "",
        "asked": f"{month or since} {until}",
        **_period(month, since, until),
    }
    target = ReceiptsFile(file)
    progress = target.resume(question, asked=("parent", "asked"))
    if progress.receipts:
        note(f"going on behind {progress.receipts} receipts")
    while not progress.finished:
        progress = _export_page(session, target, progress)
    target.finish()
    note(f"{file}: {progress.receipts} receipts; check them with 'tollhouse receipts verify'")


def _period(month: str, since: str, until: str) -> dict[str, str]:
    """Return the first and last moment as texts; kept, so that `7d` means the same when an export goes on."""
    now = datetime.now(UTC)
    if month:
        start, end = month_moments(parse_month(month, today=now.date()))
        return {"start": start.ToJsonString(), "end": end.ToJsonString()}
    end = parse_moment(until, now=now, past=True) if until else parse_moment("0s", now=now, past=True)
    return {"start": parse_moment(since, now=now, past=True).ToJsonString(), "end": end.ToJsonString()}


def _export_page(session: Session, target: ReceiptsFile, progress: Progress) -> Progress:
    question = progress.question
    request = usage_pb2.ListUsageRecordsRequest(
        parent=question["parent"] or None,
        start_time=_timestamp(question["start"]),
        end_time=_timestamp(question["end"]),
        page_size=_PAGE_RECORDS,
        page_token=progress.page_token,
    )
    usage = session.connection.stub(UsageServiceStub)
    page = session.connection.call(usage.ListUsageRecords, request)
    receipts, corrected = _receipts_of(session, question["parent"], page.usage_records, progress.corrected)
    lines = [json.dumps(as_json(receipt), ensure_ascii=False, separators=(",", ":")) for receipt in receipts]
    progress = target.append(progress, lines, corrected=corrected, page_token=page.next_page_token)
    if page.usage_records:
        note(f"{progress.receipts} receipts, back to {page.usage_records[-1].settled_at.ToJsonString()}")
    return progress


def _receipts_of(
    session: Session, parent: str, records: Iterable[usage_pb2.UsageRecord], corrected: Iterable[str]
) -> tuple[list[pb.CallReceipt], list[str]]:
    """Return the receipts of a page's calls, each once, and the attempts met by their correction until now."""
    known = dict.fromkeys(corrected)
    wanted: list[str] = []
    for record in records:
        attempt_id = last_id(record.name)
        if record.state == usage_pb2.USAGE_RECORD_STATE_REFUSED or attempt_id in known:
            continue
        if record.state == usage_pb2.USAGE_RECORD_STATE_ADJUSTMENT:
            known[attempt_id] = None
        wanted.append(attempt_id)
    if not wanted:
        return [], list(known)
    request = pb.SignReceiptsRequest(parent=parent or None, attempt_ids=wanted)
    answer = session.connection.call(_stub(session).SignReceipts, request)
    if answer.missing_attempt_ids:
        note(f"no receipt any more, as their bookings were dropped: {', '.join(answer.missing_attempt_ids)}")
    return list(answer.receipts), list(known)


def _timestamp(text: str) -> Timestamp:
    moment = Timestamp()
    moment.FromJsonString(text)
    return moment


# --- verification -----------------------------------------------------------------------------------------------------

FINDINGS = ["receipt", "verdict", "attempt_id", "cost", "detail"]


@local_command(app, "verify")
def verify(
    options: Options,
    file: File,
    *,
    keys: Annotated[Path, typer.Option(metavar="FILE", help="Public keys, as `receipts keys -o json` wrote them.")],
) -> None:
    """Check receipts without any server: signatures, lines, sums; exit code 0 only when every one is valid."""
    verifier = Verifier(read_keys(keys))
    counts: Counter[Verdict] = Counter()
    cost_nanos = 0
    with _findings_writer(options.output, counts) as write:
        for number, receipt in enumerate(read_receipts(file), start=1):
            finding = verifier.verify(receipt)
            counts[finding.verdict] += 1
            cost_nanos += finding.cost_nanos
            write(number, finding)
    told = ", ".join(f"{count} {verdict.value}" for verdict, count in sorted(counts.items())) or "no receipts"
    note(f"{told}; the valid ones come to ${dollars_text(dollars_of_nanos(cost_nanos))}")
    wrong = counts.total() - counts[Verdict.VALID]
    if wrong:
        raise Failure(
            reason="RECEIPTS_NOT_VALID",
            message=f"{wrong} of {counts.total()} receipts are not valid",
            advice="Each is named with what is wrong",
            exit_code=ExitCode.GENERAL,
        )


Write = Callable[[int, Finding], None]


@contextmanager
def _findings_writer(form: Format, counts: Counter[Verdict]) -> Iterator[Write]:
    """Give a function that writes one finding; nothing is collected, as there may be millions of them."""
    if form is Format.JSON:
        sys.stdout.write('{"findings": [')
        yield _write_as_json
        summary = {verdict.value: counts[verdict] for verdict in Verdict}
        sys.stdout.write(f'\n], "summary": {json.dumps(summary)}}}\n')
    elif form is Format.CSV:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(FINDINGS)
        yield lambda number, found: writer.writerow(
            [number, found.verdict.value, one_line(found.attempt_id), _dollars(found), one_line(found.detail)]
        )
    else:
        yield _write_as_text


def _write_as_json(number: int, finding: Finding) -> None:
    entry = {
        "receipt": number,
        "verdict": finding.verdict.value,
        "attemptId": finding.attempt_id,
        "costNanos": str(finding.cost_nanos) if finding.verdict is Verdict.VALID else None,
        "detail": finding.detail,
    }
    sys.stdout.write(f"{',' if number > 1 else ''}\n  {json.dumps(entry, ensure_ascii=False)}")


def _write_as_text(number: int, finding: Finding) -> None:
    said = f"${_dollars(finding)}" if finding.verdict is Verdict.VALID else one_line(finding.detail)
    sys.stdout.write(f"{number:>8}  {finding.verdict.value:<11}  {one_line(finding.attempt_id):<36}  {said}\n")


def _dollars(finding: Finding) -> str:
    return dollars_text(dollars_of_nanos(finding.cost_nanos)) if finding.verdict is Verdict.VALID else ""
