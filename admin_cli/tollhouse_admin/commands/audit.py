"""`tollhouse audit`: who did what, searched, followed, taken out, and proved to be whole."""

import hashlib
import json
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.progress import Progress
from tollhouse.admin.v1 import audit_pb2 as pb
from tollhouse.admin.v1.audit_pb2_grpc import AuditServiceStub

from tollhouse_admin.amounts import parse_moment
from tollhouse_admin.audit_files import TrailFile, read_lines, reported, write_lines
from tollhouse_admin.audit_proofs import Part, Report, verified_checkpoints, verify_trail
from tollhouse_admin.command import LIST, READ, Options, Session, command, local_command, noun
from tollhouse_admin.failures import ExitCode, Failure
from tollhouse_admin.names import last_id, named
from tollhouse_admin.output import (
    Format,
    Layout,
    note,
    show_list,
    write_csv,
    write_csv_rows,
    write_fields,
    write_json,
    write_table,
)
from tollhouse_admin.plain_text import one_line
from tollhouse_admin.receipt_proofs import read_keys
from tollhouse_admin.rendering import as_json
from tollhouse_admin.scopes import complete_tenants, tenant_name

app = noun("Audit: who did what, searched, followed, taken out, and proved to be whole.")

_LONG_SECONDS = 3600.0
_AGAIN_SECONDS = 1.0


class Why(StrEnum):
    """Why there is an event."""

    ACT = "act"
    AUTHENTICATION_FAILURE = "authentication-failure"
    PERMISSION_DENIED = "permission-denied"


Trail = Annotated[
    str | None,
    typer.Option(
        "--tenant",
        "-t",
        metavar="ID",
        callback=named,
        help="Whose trail; `platform` for the platform's; absent: TOLLHOUSE_TENANT, the profile's, or the only one.",
        autocompletion=complete_tenants,
    ),
]
Since = Annotated[str, typer.Option("--since", metavar="WHEN", help="From when: 7d (ago), 2026-11-01.")]
Until = Annotated[str, typer.Option("--until", metavar="WHEN", help="Until when, exclusive; absent: now.")]


def _stub(session: Session) -> AuditServiceStub:
    return session.connection.stub(AuditServiceStub)


def _parent(session: Session, tenant: str | None) -> str:
    return "platform" if tenant in ("platform", "tenants/platform") else tenant_name(session, tenant)


def _moment(text: str) -> Timestamp | None:
    return parse_moment(text, now=datetime.now(UTC), past=True) if text else None


def _who(event: Any) -> str:
    return str(event.actor or event.source_address)


EVENTS = Layout(
    [
        *("sequence", "time", "kind"),
        ("who", _who),
        ("what", lambda event: last_id(event.method).rpartition(".")[2]),
        *("resource", "reason", "count", "source_address"),
    ]
)


@command(app, "search", LIST)
def search(
    session: Session,
    *,
    actor: Annotated[str | None, typer.Option(metavar="PRINCIPAL", callback=named, help="Who did it, in full.")] = None,
    method: Annotated[str, typer.Option(metavar="RPC", help="What was called, such as CreateTenant.")] = "",
    resource: Annotated[str, typer.Option(metavar="NAME", help="What it was done to, or lies below.")] = "",
    kind: Annotated[Why | None, typer.Option(help="Why there is an event.")] = None,
    since: Since = "",
    until: Until = "",
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="The oldest first.")] = False,
    tenant: Trail = None,
) -> None:
    """Search a trail, the newest event first; `-o json` shows what was changed, from what to what."""
    request = pb.SearchAuditEventsRequest(
        parent=_parent(session, tenant),
        actor=actor or "",
        method=method,
        resource=resource,
        kind=pb.AuditEvent.Kind.Value(f"KIND_{kind.name}") if kind else pb.AuditEvent.KIND_UNSPECIFIED,
        start_time=_moment(since),
        end_time=_moment(until),
        oldest_first=oldest_first,
    )
    pages = session.connection.pages(
        _stub(session).SearchAuditEvents, request, "audit_events", limit=session.options.limit
    )
    show_list(session.options.output, EVENTS, pages)


@command(app, "tail", READ, timeout_seconds=_LONG_SECONDS)
def tail(
    session: Session,
    *,
    after: Annotated[
        int | None, typer.Option("--after", min=0, metavar="N", help="Behind event N; 0 shows all.")
    ] = None,
    tenant: Trail = None,
) -> None:
    """Follow a trail until Ctrl-C; goes on by itself when the connection is lost."""
    request = pb.TailAuditEventsRequest(parent=_parent(session, tenant), after_sequence=after)
    if session.options.output is Format.CSV:
        write_csv(EVENTS.titles, [])
    while True:
        try:
            for answer in session.connection.stream(_stub(session).TailAuditEvents, request):
                for event in answer.audit_events:
                    _write_event(session.options.output, event)
                    request.after_sequence = event.sequence
        except Failure as failure:
            if failure.exit_code is not ExitCode.UNAVAILABLE:
                raise
            note(f"{failure.message}; going on")
            time.sleep(_AGAIN_SECONDS)


def _write_event(form: Format, event: pb.AuditEvent) -> None:
    if form is Format.JSON:
        sys.stdout.write(json.dumps(as_json(event), ensure_ascii=False) + "\n")
    elif form is Format.CSV:
        write_csv_rows([EVENTS.row(event)])
    else:
        cells = (one_line(str(cell)) for cell in EVENTS.row(event))
        sys.stdout.write("  ".join(cell for cell in cells if cell) + "\n")
    sys.stdout.flush()


# --- files ------------------------------------------------------------------------------------------------------------


@command(app, "export", READ, timeout_seconds=_LONG_SECONDS)
def export(
    session: Session,
    *,
    file: Annotated[Path, typer.Option(dir_okay=False, metavar="FILE", help="Where to write, one event a line.")],
    since: Since = "",
    until: Until = "",
    tenant: Trail = None,
) -> None:
    """Write a trail to a file for safe keeping; a second start goes on where the file ends, also days later."""
    parent, target = _parent(session, tenant), TrailFile(file)
    after = target.resume(last_id(parent))
    if after:
        note(f"going on behind event {after}")
    request = pb.ExportAuditEventsRequest(
        parent=parent,
        after_sequence=after,
        start_time=None if after else _moment(since),
        end_time=_moment(until),
    )
    count = 0
    with _progress() as bar:
        task = bar.add_task("events", total=None)
        for piece in session.connection.stream(_stub(session).ExportAuditEvents, request):
            target.append(piece.lines)
            count += len(piece.lines)
            bar.update(task, completed=count, total=count + piece.end_sequence - piece.last_sequence)
    note(f"{file}: {count} events more; check it with 'tollhouse audit verify'")


CHECKPOINTS = Layout(
    [
        *(
            (name, lambda one, name=name: json.loads(one.document)[name])
            for name in ("number", "sequence", "first_sequence", "time", "hash")
        ),
        ("key", lambda one: f"{one.signature.key} {one.signature.key_version}"),
    ]
)


@command(app, "checkpoints", LIST)
def checkpoints(
    session: Session,
    *,
    file: Annotated[
        Path | None, typer.Option(dir_okay=False, metavar="FILE", help="Write them as an anchor of your own.")
    ] = None,
    tenant: Trail = None,
) -> None:
    """List what was signed of a trail; with --file keep it, so that `verify` needs nobody else's anchor."""
    request = pb.ListAuditCheckpointsRequest(parent=_parent(session, tenant))
    pages = session.connection.pages(
        _stub(session).ListAuditCheckpoints, request, "audit_checkpoints", limit=session.options.limit
    )
    if file is None:
        show_list(session.options.output, CHECKPOINTS, pages)
        return
    count = write_lines(file, (json.dumps(as_json(one), ensure_ascii=False, separators=(",", ":")) for one in pages))
    note(f"{file}: {count} checkpoints")


KEYS = Layout(
    ["key", "version", "algorithm", ("fingerprint", lambda key: hashlib.sha256(key.public_key).hexdigest()[:32])]
)


@command(app, "keys", READ)
def keys(session: Session) -> None:
    """Show the public keys that checkpoints are signed with; `-o json > keys.json` writes what `verify` takes."""
    answer = session.connection.call(_stub(session).GetAuditKeys, pb.GetAuditKeysRequest())
    if session.options.output is Format.JSON:
        write_json(as_json(answer))
    else:
        show_list(session.options.output, KEYS, answer.keys)


# --- verification -----------------------------------------------------------------------------------------------------


@local_command(app, "verify")
def verify(
    options: Options,
    file: Annotated[
        Path, typer.Argument(metavar="EXPORT", dir_okay=False, help="A trail, as `audit export` wrote it.")
    ],
    *,
    anchor: Annotated[Path, typer.Option(metavar="FILE", dir_okay=False, help="Its checkpoints, kept elsewhere.")],
    keys: Annotated[Path, typer.Option(metavar="FILE", dir_okay=False, help="Public keys: keys.json of the anchor.")],
    first: Annotated[
        int | None, typer.Option("--from", min=1, metavar="N", help="It is a part only, from event N on.")
    ] = None,
    last: Annotated[
        int | None, typer.Option("--to", min=1, metavar="N", help="It is a part only, up to event N.")
    ] = None,
) -> None:
    """Check an exported trail without any server: nothing changed, missing, added or moved, by what was signed."""
    report, public_keys = Report(), read_keys(keys)
    known = verified_checkpoints(read_lines(anchor), public_keys, report)
    with reported(file):
        size = file.stat().st_size
    with _progress() as bar:
        task, done = bar.add_task("verifying", total=size), [0]
        lines = _counted(read_lines(file), done)
        for _ in verify_trail(lines, known, report, part=Part(first_sequence=first, last_sequence=last)):
            bar.update(task, completed=done[0])
    _show_report(options.output, report)


def _counted(lines: Iterable[bytes], done: list[int]) -> Iterator[bytes]:
    for line in lines:
        done[0] += len(line)
        yield line


def _show_report(form: Format, report: Report) -> None:
    fields: dict[str, Any] = {
        "tenant": report.tenant,
        "events": report.events,
        "first_sequence": report.first_sequence,
        "last_sequence": report.last_sequence,
        "signed_sequence": report.signed_sequence,
        "checkpoints": report.checkpoints,
    }
    findings = [[finding.place, finding.problem] for finding in report.findings]
    if form is Format.JSON:
        write_json({**fields, "findings": [{"place": place, "problem": problem} for place, problem in findings]})
    elif form is Format.CSV:
        write_csv(["place", "problem"], findings)
    else:
        write_fields(fields)
        if findings:
            write_table(["place", "problem"], findings, caption="\nfindings:")
    unsigned = report.last_sequence - report.signed_sequence
    if unsigned > 0:
        note(f"no checkpoint vouches yet for the last {unsigned} events")
    _fail_on(len(findings), "the trail, or its anchor, is not what it was")


def _fail_on(findings: int, message: str) -> None:
    if findings:
        raise Failure(
            reason="AUDIT_NOT_GENUINE",
            message=f"{findings} findings: {message}",
            advice="Each is named with what is wrong; keep the files as they are",
            exit_code=ExitCode.GENERAL,
        )


@command(app, "verify-stored", READ, timeout_seconds=_LONG_SECONDS)
def verify_stored(session: Session, *, tenant: Trail = None) -> None:
    """Let the server compare a stored trail with its links, its checkpoints, and the anchor outside its database."""
    request = pb.VerifyAuditTrailRequest(parent=_parent(session, tenant))
    findings: list[list[Any]] = []
    last = pb.VerifyAuditTrailResponse()
    with _progress() as bar:
        task = bar.add_task("verifying", total=None)
        for last in session.connection.stream(_stub(session).VerifyAuditTrail, request):
            findings += [[one.sequence, one.problem] for one in last.findings]
            bar.update(task, completed=last.sequence)
    fields = {
        "first_sequence": last.first_sequence,
        "last_sequence": last.sequence,
        "signed_sequence": last.signed_sequence,
        "checkpoints": last.checkpoint_count,
        "anchored": last.anchored,
    }
    if session.options.output is Format.JSON:
        write_json({**fields, "findings": [{"sequence": place, "problem": problem} for place, problem in findings]})
    elif session.options.output is Format.CSV:
        write_csv(["sequence", "problem"], findings)
    else:
        write_fields(fields)
        if findings:
            write_table(["sequence", "problem"], findings, caption="\nfindings:")
    if not last.anchored:
        note("the server that answered has no anchor of this trail: only the database was compared with itself")
    _fail_on(len(findings), "the stored trail is not what it was")


def _progress() -> Progress:
    """Return a bar on standard error, where a person looks."""
    return Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
