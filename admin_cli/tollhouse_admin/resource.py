"""What the commands of every noun do alike: show, list and change one kind of resource."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, TypeAlias

import grpc
import typer
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from tollhouse_admin.command import Session
from tollhouse_admin.dry_run import Change, MutatingRequest, carry_out
from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.names import last_id, named
from tollhouse_admin.output import Layout, show_list, show_one
from tollhouse_admin.scopes import complete_principals, require_place

_ID_FORM = "2 to 63 lower-case letters, digits and hyphens, a letter first"


def checked_id(context: typer.Context, typed: str) -> str:
    """Return an id, or a full name, of something new.

    Raises:
        typer.BadParameter: nothing can be called so.
    """
    # At a Tab there may be none yet.
    if not context.resilient_parsing and not re.fullmatch(r"[a-z][a-z0-9-]{1,62}", last_id(typed)):
        raise typer.BadParameter(f"{typed!r} cannot be an id. Write {_ID_FORM}.")
    return typed


NewId = Annotated[str, typer.Argument(metavar="ID", help=f"Its id: {_ID_FORM}.", callback=checked_id)]
DisplayName = Annotated[str | None, typer.Option(metavar="TEXT", help="Name for people.")]
Etag = Annotated[str | None, typer.Option(metavar="ETAG", help="Only if it is still in this version.")]
CostCentre = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Cost centre in the books of finance; an empty text clears it.")
]
Owner = Annotated[
    str | None,
    typer.Option(
        metavar="PRINCIPAL",
        help="Who answers for it, an active principal; an empty text: nobody.",
        autocompletion=complete_principals,
    ),
]
OnlyCostCentre = Annotated[str | None, typer.Option("--cost-centre", metavar="TEXT", help="Only of this cost centre.")]
OnlyOwner = Annotated[
    str | None,
    typer.Option(
        "--owner", metavar="PRINCIPAL", callback=named, help="Only of this owner.", autocompletion=complete_principals
    ),
]
ShowDeleted = Annotated[bool, typer.Option("--show-deleted", help="Deleted ones too.")]

Method: TypeAlias = "grpc.UnaryUnaryMultiCallable[Any, Any]"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of resource: how lists of it look, and how one is read by its full name."""

    layout: Layout
    read: Callable[[Session, str], Message]

    def show(self, session: Session, name: str) -> None:
        """Read and write one resource."""
        show_one(session.options.output, self.layout, self.read(session, name))

    def show_pages(self, session: Session, method: Method, request: Any, field: str, *, within: str = "") -> None:
        """Write the entries of all pages, or as many as --limit says.

        Raises:
            Failure: there are none, for the department or project that they were to be `within` does not exist.
        """
        pages: Iterable[Message] = session.connection.pages(method, request, field, limit=session.options.limit)
        found = list(pages)
        if not found:
            require_place(session, within)
        show_list(session.options.output, self.layout, found)

    def create(self, session: Session, name: str, method: Method, request: MutatingRequest) -> None:
        """Carry out a change before which the resource does not exist."""
        carry_out(session, Change(verb="create", subject=name, method=method, request=request, layout=self.layout))

    def change(
        self, session: Session, verb: str, name: str, method: Method, request: MutatingRequest, *, warning: str = ""
    ) -> None:
        """Carry out a change of a resource that exists; `warning` is what a person must agree to."""
        change = Change(
            verb=verb,
            subject=name,
            method=method,
            request=request,
            layout=self.layout,
            before=partial(self.read, session, name),
            warning=warning,
        )
        carry_out(session, change)


def changed(**values: Any) -> dict[str, Any]:
    """Return the fields that an update was given values for.

    Raises:
        Failure: it was given none.
    """
    given = {name: value for name, value in values.items() if value is not None}
    if not given:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in values)
        raise wrong_usage("Nothing to change was given", f"Give at least one of {options}.")
    return given


def mask(fields: Iterable[str]) -> FieldMask:
    """Return an update mask of these fields."""
    return FieldMask(paths=list(fields))
