"""`tollhouse content`: prompts and answers that a tenant has kept, for those who may read them."""

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp
from tollhouse.admin.v1 import contents_pb2 as pb
from tollhouse.admin.v1.contents_pb2_grpc import ContentServiceStub

from tollhouse_admin.amounts import parse_moment
from tollhouse_admin.command import CHANGE, DESTROY, LIST, READ, Session, command, noun
from tollhouse_admin.dry_run import Change, carry_out, confirm
from tollhouse_admin.failures import ExitCode, Failure, wrong_usage
from tollhouse_admin.names import last_id, named, scope_name
from tollhouse_admin.output import Layout, note, show_one
from tollhouse_admin.rendering import enum_number
from tollhouse_admin.resource import Etag, Kind, changed, mask
from tollhouse_admin.scopes import Department, Project, Tenant, in_tenant, scope_of, tenant_name

app = noun("Prompts and answers, where a tenant has them kept: sealed, for a time, for readers of content alone.")


class Keep(StrEnum):
    """How much of a call is kept."""

    NONE = "none"
    PROMPTS = "prompts"
    PROMPTS_AND_ANSWERS = "prompts-and-answers"


class Part(StrEnum):
    """What of a call is wanted."""

    PROMPT = "prompt"
    ANSWER = "answer"


CallId = Annotated[str, typer.Argument(metavar="CALL", help="The attempt's id, as in the call's outcome; or the name.")]
Principal = Annotated[
    str | None, typer.Option("--principal", metavar="ID", callback=named, help="Only calls of this principal.")
]
Since = Annotated[str, typer.Option("--since", metavar="WHEN", help="Calls from then on: 7d (ago), 2026-11-01.")]
Until = Annotated[str, typer.Option("--until", metavar="WHEN", help="Calls before then.")]


def _stub(session: Session) -> ContentServiceStub:
    return session.connection.stub(ContentServiceStub)


def _read_policy(session: Session, name: str) -> pb.ContentPolicy:
    return session.connection.call(_stub(session).GetContentPolicy, pb.GetContentPolicyRequest(name=name))


POLICY = Kind(Layout(["name", "keep", "retention_days", "scopes", "must_keep", "update_time", "etag"]), _read_policy)
CONTENT = Layout(
    [
        *("name", "create_time", "project", "principal", "method", "model", "prompt_bytes", "answer_bytes"),
        *("answer_truncated", "expire_time"),
    ]
)
COUNT = Layout(["deleted_count", "has_more"])
ERASURE = Layout(["erased_count", "destroyed_keys"])


@command(app, "policy", READ)
def policy(session: Session, *, tenant: Tenant = None) -> None:
    """Show what of a tenant's calls is kept; nothing, unless somebody has said so."""
    POLICY.show(session, f"{tenant_name(session, tenant)}/contentPolicy")


@command(app, "set-policy", CHANGE)
def set_policy(
    session: Session,
    *,
    tenant: Tenant = None,
    keep: Annotated[Keep | None, typer.Option(help="How much of each call is kept.")] = None,
    retention_days: Annotated[
        int | None, typer.Option(min=1, max=3650, metavar="N", help="Days for which it is kept; 30 at first.")
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(metavar="SCOPE", help="Only calls of this department or project; repeatable; `tenant` for all."),
    ] = None,
    must_keep: Annotated[
        bool | None,
        typer.Option("--must-keep/--may-drop", help="Refuse calls that cannot be kept, or serve them all the same?"),
    ] = None,
    etag: Etag = None,
) -> None:
    """Change what of a tenant's calls is kept from now on; what is not given stays."""
    owner = tenant_name(session, tenant)
    scopes = None if scope is None else [name for one in scope if (name := scope_name(owner, one)) != owner]
    number = None if keep is None else enum_number(pb.ContentKeep.DESCRIPTOR, keep.value)
    fields = changed(keep=number, retention_days=retention_days, scopes=scopes, must_keep=must_keep)
    name = f"{owner}/contentPolicy"
    resource = pb.ContentPolicy(name=name, etag=etag or "", **fields)
    request = pb.UpdateContentPolicyRequest(content_policy=resource, update_mask=mask(fields))
    POLICY.change(session, "set", name, _stub(session).UpdateContentPolicy, request)


@command(app, "list", LIST)
def list_contents(
    session: Session,
    *,
    tenant: Tenant = None,
    department: Department = None,
    project: Project = None,
    principal: Principal = None,
    since: Since = "",
    until: Until = "",
) -> None:
    """List of which calls content is kept, the newest first, without the content."""
    parent = scope_of(session, scope=None, tenant=tenant, department=department, project=project)
    request = pb.ListContentsRequest(
        parent=parent,
        principal=_principal(session, principal, parent),
        start_time=_moment(since),
        end_time=_moment(until),
    )
    Kind(CONTENT, _read_policy).show_pages(session, _stub(session).ListContents, request, "contents")


@command(app, "show", READ)
def show(
    session: Session,
    call: CallId,
    *,
    part: Annotated[Part | None, typer.Option(help="Write the JSON of this alone, as it is.")] = None,
    tenant: Tenant = None,
    department: Annotated[
        str | None,
        typer.Option(
            "--department", "-d", metavar="ID", callback=named, help="Where you may read, if not on the whole tenant."
        ),
    ] = None,
) -> None:
    """Show the prompt and the answer of one call. That you have read it is written to the trail."""
    scope = ""
    if department:
        scope = scope_of(session, scope=None, tenant=tenant, department=department, project=None)
    request = pb.GetContentRequest(name=in_tenant(session, call, "contents", tenant), scope=scope)
    content = session.connection.call(_stub(session).GetContent, request)
    if part is None:
        show_one(session.options.output, CONTENT, content)
        return
    sys.stdout.write((content.prompt_json if part is Part.PROMPT else content.answer_json) + "\n")


@command(app, "text", READ)
def text(session: Session, call: CallId, *, tenant: Tenant = None) -> None:
    """Write what was said and answered in one call as plain text; media and calls of functions are left out."""
    request = pb.GetContentRequest(name=in_tenant(session, call, "contents", tenant))
    content = session.connection.call(_stub(session).GetContent, request)
    for title, document in (("prompt", content.prompt_json), ("answer", content.answer_json)):
        if document:
            note(f"{title}:")
            sys.stdout.write("".join(_texts(json.loads(document))) + "\n")


@command(app, "delete", DESTROY)
def delete(session: Session, call: CallId, *, tenant: Tenant = None) -> None:
    """Delete what is kept of one call."""
    name = in_tenant(session, call, "contents", tenant)
    carry_out(
        session,
        Change(
            verb="delete",
            subject=name,
            method=_stub(session).DeleteContent,
            request=pb.DeleteContentRequest(name=name),
            layout=CONTENT,
            warning=f"What is kept of {name} will be gone.",
        ),
    )


@command(app, "delete-all", DESTROY, timeout_seconds=120.0)
def delete_all(
    session: Session,
    *,
    tenant: Tenant = None,
    department: Department = None,
    project: Project = None,
    principal: Principal = None,
    since: Since = "",
    until: Until = "",
) -> None:
    """Delete what is kept of a person, a project, a department or a time, 10,000 calls at once; --dry-run counts."""
    parent = scope_of(session, scope=None, tenant=tenant, department=department, project=project)
    whose = _principal(session, principal, parent)
    what = f"content of {whose or parent}"
    carry_out(
        session,
        Change(
            verb="delete",
            subject=what,
            method=_stub(session).DeleteContents,
            request=pb.DeleteContentsRequest(
                parent=parent, principal=whose, start_time=_moment(since), end_time=_moment(until)
            ),
            layout=COUNT,
            warning=f"All kept {what} will be gone.",
        ),
    )


@command(app, "erase", DESTROY, timeout_seconds=120.0)
def erase(
    session: Session,
    tenant: Annotated[str, typer.Argument(metavar="TENANT", help="Whose content is erased: id or name.")],
    *,
    really: Annotated[
        str,
        typer.Option("--really", metavar="TENANT", help="Its id again, in place of the second question."),
    ] = "",
) -> None:
    """Destroy a tenant's data key: all kept content, and personal fields of its audit trail, unreadable for ever."""
    name = tenant_name(session, tenant)
    warning = f"Whatever was sealed for {name} can never be read again, by nobody, from no backup."
    if not session.options.dry_run:
        if not session.options.yes:
            confirm(f"erase {name}", warning)
        _ask_again(last_id(name), really)
    carry_out(
        session,
        Change(
            verb="erase the content of",
            subject=name,
            method=_stub(session).EraseTenantContent,
            request=pb.EraseTenantContentRequest(name=name),
            layout=ERASURE,
        ),
    )


def _ask_again(tenant: str, typed: str) -> None:
    """Have the tenant's id typed once more.

    Raises:
        Failure: it is another one, or nobody is there to type it.
    """
    if not typed:
        if not sys.stdin.isatty():
            raise wrong_usage("An erasure needs a second confirmation", f"Add --really {tenant}.")
        typed = typer.prompt("Type the tenant's id once more", err=True)
    if typed.removeprefix("tenants/") != tenant:
        raise Failure(reason="NOT_CONFIRMED", message="Nothing was erased", exit_code=ExitCode.GENERAL)


def _principal(session: Session, typed: str | None, parent: str) -> str:
    return in_tenant(session, typed, "principals", parent.split("/")[1]) if typed else ""


def _moment(typed: str) -> Timestamp | None:
    return parse_moment(typed, now=datetime.now(UTC), past=True) if typed else None


def _texts(document: object) -> Iterator[str]:
    """Yield every text of a request or an answer, in order."""
    if isinstance(document, list):
        for item in document:
            yield from _texts(item)
    elif isinstance(document, dict):
        for name, member in document.items():
            if name == "text" and isinstance(member, str):
                yield member
            else:
                yield from _texts(member)
