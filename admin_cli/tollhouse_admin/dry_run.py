"""Carries a change out, or has the server check it and shows what it would do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import uuid4

import grpc
import typer
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from tollhouse_admin.command import Session
from tollhouse_admin.failures import ExitCode, Failure, wrong_usage
from tollhouse_admin.output import Format, Layout, note, show_one, write_csv, write_json, write_table
from tollhouse_admin.rendering import Cell, as_json, cells

# These differ after every change and say nothing about this one.
_SILENT_FIELDS = frozenset({"etag", "update_time"})


class MutatingRequest(Protocol):
    """What every request that changes something has."""

    request_id: str
    validate_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change: what to call it (`create`, `delete`), the call, and how to show what comes back.

    `subject` is the name that a person reads; `before` reads the resource as it is, where there is one; `warning` is
    what a person must agree to first.
    """

    verb: str
    subject: str
    method: grpc.UnaryUnaryMultiCallable[Any, Any]
    request: MutatingRequest
    layout: Layout
    before: Callable[[], Message] | None = None
    warning: str = ""


def carry_out(session: Session, change: Change) -> None:
    """Make the change and show the result; with --dry-run only show what it would be.

    Raises:
        Failure: the server refused, the person did, or nobody is there to confirm.
    """
    response = perform(session, change)
    if response is not None:
        _show(session.options.output, change, response)


def perform(session: Session, change: Change) -> Message | None:
    """Do as `carry_out` and return what the server answered for the caller to show; None after a dry run."""
    change.request.request_id = session.options.request_id or str(uuid4())
    if session.options.dry_run:
        _preview(session, change)
        return None
    if change.warning and not session.options.yes:
        confirm(f"{change.verb} {change.subject}", change.warning)
    response: Message = session.connection.call(change.method, change.request)
    note(f"{change.verb} {change.subject}: done")
    return response


def _show(form: Format, change: Change, response: Message) -> None:
    if not isinstance(response, Empty):
        show_one(form, change.layout, response)
    elif form is Format.JSON:
        write_json({"name": change.subject})
    elif form is Format.CSV:
        write_csv(["name"], [[change.subject]])


def confirm(what: str, warning: str) -> None:
    """Ask the person at the terminal to agree to a warning.

    Raises:
        Failure: nobody is there, or he does not agree.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise wrong_usage(f"{what} needs a confirmation", "Add --yes, or look with --dry-run.")
    if not typer.confirm(f"{warning} Go on?", err=True):
        raise Failure(reason="NOT_CONFIRMED", message="Nothing was changed", exit_code=ExitCode.GENERAL)


def _preview(session: Session, change: Change) -> None:
    change.request.validate_only = True
    before = change.before() if change.before else None
    response: Message = session.connection.call(change.method, change.request)
    after = None if isinstance(response, Empty) else response
    note(f"dry run: {change.verb} {change.subject} would be accepted; nothing was changed")
    show_difference(session.options.output, before, after)


def show_difference(form: Format, before: Message | None, after: Message | None) -> None:
    """Write what differs between two states of a resource; None is a resource that does not exist."""
    if form is Format.JSON:
        states = {"before": before and as_json(before), "after": after and as_json(after)}
        write_json({"dryRun": True, **states})
        return
    rows = differences(before, after)
    titles = ["field", "before", "after"]
    if form is Format.CSV:
        write_csv(titles, rows)
    elif rows:
        write_table(titles, rows)
    else:
        note("nothing would differ")


def differences(before: Message | None, after: Message | None) -> list[list[Cell]]:
    """Return path, old and new value of every field that differs."""
    old = cells(before) if before is not None else {}
    new = cells(after) if after is not None else {}
    paths = [path for path in {**old, **new} if path not in _SILENT_FIELDS]
    changed = [path for path in paths if old.get(path, "") != new.get(path, "")]
    return [[path, old.get(path, ""), new.get(path, "")] for path in changed]
