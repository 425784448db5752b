"""`tollhouse data-policies`: what tenants and departments let pass, hide or refuse in prompts and answers."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.json_format import Parse, ParseError
from tollhouse.admin.v1 import data_policies_pb2 as pb
from tollhouse.admin.v1.data_policies_pb2_grpc import DataPolicyServiceStub

from tollhouse_admin.command import CHANGE, DESTROY, LIST, READ, Session, command, noun
from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.output import Layout, show_list, show_one
from tollhouse_admin.rendering import enum_number
from tollhouse_admin.resource import Etag, Kind, mask
from tollhouse_admin.scopes import Department, Scope, Tenant, scope_of

app = noun("What is looked for in prompts and answers, and what is done with it; without a scope, the tenant's.")


class Direction(StrEnum):
    """The way a text travels."""

    PROMPT = "prompt"
    ANSWER = "answer"
    BOTH = "both"


class Field(StrEnum):
    """The fields of a policy that can be cleared."""

    RULES = "rules"
    PATTERNS = "patterns"
    EXCEPTIONS = "exceptions"


_RULE_FORM = "email,payment_card=mask or national_id@prompt=block"


def _stub(session: Session) -> DataPolicyServiceStub:
    return session.connection.stub(DataPolicyServiceStub)


def _read(session: Session, name: str) -> pb.DataPolicy:
    return session.connection.call(_stub(session).GetDataPolicy, pb.GetDataPolicyRequest(name=name))


POLICY = Kind(Layout(["name", *(one.value for one in Field), "etag", "update_time"]), _read)


@command(app, "get", READ)
def get(session: Session, *, scope: Scope = None, tenant: Tenant = None, department: Department = None) -> None:
    """Show what a scope says. Values of exceptions are shown nowhere, only their digests."""
    POLICY.show(session, _name(session, scope, tenant, department))


@command(app, "set", CHANGE)
def set_policy(
    session: Session,
    *,
    rule: Annotated[
        list[str] | None,
        typer.Option(metavar="DETECTORS[@DIRECTION]=ACTION", help=f"Such as {_RULE_FORM}; repeatable."),
    ] = None,
    pattern: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATTERN", help="A pattern of one's own, custom:NAME in rules; repeatable."),
    ] = None,
    exceptions_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Values to let pass, one a line, beside those that there are; - is stdin."),
    ] = None,
    clear: Annotated[list[Field] | None, typer.Option(help="Say nothing of this any more; repeatable.")] = None,
    from_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON of a policy as get writes it: all that it has is set; - is stdin."),
    ] = None,
    scope: Scope = None,
    tenant: Tenant = None,
    department: Department = None,
    etag: Etag = None,
) -> None:
    """Change what a scope says; rules and patterns replace what there was, what is not given stays."""
    policy = _policy(from_file) if from_file else pb.DataPolicy()
    policy.MergeFrom(pb.DataPolicy(rules=map(read_rule, rule or []), patterns=map(read_pattern, pattern or [])))
    name = _name(session, scope, tenant, department)
    if exceptions_file:
        policy.exceptions.extend(() if from_file else _read(session, name).exceptions)
        policy.exceptions.extend(pb.DataException(value=one) for one in _lines(exceptions_file))
    fields = {descriptor.name for descriptor, _ in policy.ListFields()} & {one.value for one in Field}
    cleared = {one.value for one in clear or []}
    if twice := sorted(fields & cleared):
        raise wrong_usage(f"{twice[0]} is both set and cleared", "Give one of them.")
    if not fields and not cleared:
        raise wrong_usage("Nothing to change was given", "Give at least one option, --clear or --from-file.")
    policy.name, policy.etag = name, etag or ""
    request = pb.UpdateDataPolicyRequest(data_policy=policy, update_mask=mask(sorted(fields | cleared)))
    POLICY.change(session, "set", name, _stub(session).UpdateDataPolicy, request)


@command(app, "delete", DESTROY)
def delete(
    session: Session,
    *,
    scope: Scope = None,
    tenant: Tenant = None,
    department: Department = None,
    etag: Etag = None,
) -> None:
    """Let a scope say nothing any more; what the scopes above it say stays in force."""
    name = _name(session, scope, tenant, department)
    request = pb.DeleteDataPolicyRequest(name=name, etag=etag or "")
    warning = f"What {name} hides or blocks will be sent as it is, as far as the scopes above it let it pass."
    POLICY.change(session, "delete", name, _stub(session).DeleteDataPolicy, request, warning=warning)


@command(app, "test", READ)
def test(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The text; - is stdin.")] = Path("-"),
    *,
    direction: Annotated[Direction, typer.Option(help="As part of a prompt, or of an answer.")] = Direction.PROMPT,
    scope: Scope = None,
    tenant: Tenant = None,
    department: Department = None,
) -> None:
    """Show what would be found in a text and what would become of it; it is sent to no model and not stored."""
    if direction is Direction.BOTH:
        raise wrong_usage("A text travels one way", "Give --direction prompt or answer.")
    request = pb.TestDataPolicyRequest(
        name=_name(session, scope, tenant, department),
        text=_text(file),
        direction=pb.DataDirection.ValueType(enum_number(pb.DataDirection.DESCRIPTOR, direction.value)),
    )
    answer = session.connection.call(_stub(session).TestDataPolicy, request)
    show_one(session.options.output, Layout(["blocked", "matches", "masked_text"]), answer)


@command(app, "detectors", LIST)
def list_detectors(session: Session) -> None:
    """List what can be looked for, with the groups that rules may name instead."""
    pages = session.connection.pages(
        _stub(session).ListDataDetectors,
        pb.ListDataDetectorsRequest(),
        "data_detectors",
        limit=session.options.limit,
    )
    show_list(session.options.output, Layout(["name", "group", "description", "example"]), pages)


@command(app, "findings", LIST)
def list_findings(
    session: Session, *, scope: Scope = None, tenant: Tenant = None, department: Department = None
) -> None:
    """List what was found in calls, the newest first: how often and what was done, never the values."""
    where = scope_of(session, scope=scope, tenant=tenant, department=department, project=None)
    request = pb.ListDataFindingsRequest(parent=where)
    columns = ["find_time", "department", "direction", "detector", "action", "count", "request_id"]
    pages = session.connection.pages(
        _stub(session).ListDataFindings, request, "data_findings", limit=session.options.limit
    )
    show_list(session.options.output, Layout(columns), pages)


def _name(session: Session, scope: str | None, tenant: str | None, department: str | None) -> str:
    return f"{scope_of(session, scope=scope, tenant=tenant, department=department, project=None)}/dataPolicy"


def read_rule(text: str) -> pb.DataRule:
    """Return a rule typed as `DETECTORS[@DIRECTION]=ACTION`, detectors with commas between them.

    Raises:
        Failure: it is not of this form.
    """
    what, sign, action = text.rpartition("=")
    detectors, _, direction = what.partition("@")
    directions = {"prompt": [1], "answer": [2], "both": [1, 2], "": [1, 2]}.get(direction.lower())
    actions = {"allow": pb.DATA_ACTION_ALLOW, "mask": pb.DATA_ACTION_MASK, "block": pb.DATA_ACTION_BLOCK}
    if not sign or not detectors or directions is None or action.lower() not in actions:
        raise wrong_usage(f"{text!r} is not a rule", f"Write it like {_RULE_FORM}.")
    names = [one if one.startswith("custom:") else one.upper().replace("-", "_") for one in detectors.split(",")]
    return pb.DataRule(
        detectors=names,
        directions=[pb.DataDirection.ValueType(number) for number in directions],
        action=actions[action.lower()],
    )


def read_pattern(text: str) -> pb.DataPattern:
    """Return a pattern typed as `NAME=PATTERN`.

    Raises:
        Failure: it is not of this form.
    """
    name, sign, pattern = text.partition("=")
    if not sign or not name or not pattern:
        raise wrong_usage(f"{text!r} is not a pattern", "Write it like staff-number=EMP-[0-9]{6}.")
    return pb.DataPattern(name=name.removeprefix("custom:"), pattern=pattern)


def _policy(file: Path) -> pb.DataPolicy:
    try:
        policy = Parse(_text(file), pb.DataPolicy())
    except ParseError as error:
        raise wrong_usage(f"{file} is not a data policy: {error}") from error
    for name in ("name", "etag", "create_time", "update_time"):
        policy.ClearField(name)
    return policy


def _lines(file: Path) -> list[str]:
    return [line.strip() for line in _text(file).splitlines() if line.strip()]


def _text(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except OSError as error:
        raise wrong_usage(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise wrong_usage(f"{file} is not UTF-8 text") from error
