"""`tollhouse labels`: labels that the server puts on every record of a project or key, and those that callers bring."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from tollhouse.admin.v1 import bound_labels_pb2 as pb
from tollhouse.admin.v1.bound_labels_pb2_grpc import BoundLabelServiceStub

from tollhouse_admin.amounts import parse_month
from tollhouse_admin.charge_options import parse_pairs
from tollhouse_admin.command import CHANGE, LIST, READ, Session, command, noun
from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.names import full_name, named
from tollhouse_admin.output import Layout, note
from tollhouse_admin.resource import Etag, Kind
from tollhouse_admin.scopes import Department, Tenant, complete_projects, project_name, tenant_name

app = noun("Labels: those bound to projects and keys, whatever callers say, and those that callers bring.")

ProjectId = Annotated[str, typer.Argument(metavar="PROJECT", help="Id or name.", autocompletion=complete_projects)]
Key = Annotated[
    str | None, typer.Option("--key", metavar="ID", callback=named, help="An API key of the project, by its id.")
]


def _stub(session: Session) -> BoundLabelServiceStub:
    return session.connection.stub(BoundLabelServiceStub)


def _read(session: Session, name: str) -> pb.BoundLabels:
    return session.connection.call(_stub(session).GetBoundLabels, pb.GetBoundLabelsRequest(name=name))


LABELS = Kind(Layout(["name", "labels", "update_time"]), _read)


def _named(session: Session, project: str, department: str | None, tenant: str | None, key: str | None) -> str:
    holder = project_name(session, project, department, tenant)
    return f"{full_name(key, 'apiKeys', holder) if key else holder}/boundLabels"


@command(app, "show", READ)
def show(
    session: Session, project: ProjectId, *, key: Key = None, department: Department = None, tenant: Tenant = None
) -> None:
    """Show what is bound to a project, or to a key of it."""
    LABELS.show(session, _named(session, project, department, tenant, key))


@command(app, "bind", CHANGE)
def bind(
    session: Session,
    project: ProjectId,
    *,
    labels: Annotated[
        list[str] | None, typer.Option("--label", metavar="NAME=VALUE", help="A label; up to 16 times.")
    ] = None,
    none: Annotated[bool, typer.Option("--none", help="None any more.")] = False,
    key: Key = None,
    department: Department = None,
    tenant: Tenant = None,
    etag: Etag = None,
) -> None:
    """Bind these labels to a project or a key of it, instead of all that it had."""
    if bool(labels) is none:
        raise wrong_usage("Which labels is not said", "Give --label NAME=VALUE, or --none.")
    name = _named(session, project, department, tenant, key)
    pairs = parse_pairs(labels or [], example="cost_center=4711")
    request = pb.UpdateBoundLabelsRequest(bound_labels=pb.BoundLabels(name=name, labels=pairs, etag=etag or ""))
    LABELS.change(session, "bind", name, _stub(session).UpdateBoundLabels, request)


FREE = Kind(Layout(["label", ("values", lambda one: one.value_count)]), _read)


@command(app, "list", LIST)
def list_free(
    session: Session,
    *,
    month: Annotated[str, typer.Option(metavar="YYYY-MM", help="The month, of UTC; `this` or `last`.")] = "this",
    tenant: Tenant = None,
) -> None:
    """List the labels that callers have brought in a month, and say whether there is room for more values."""
    wanted = parse_month(month, today=datetime.now(UTC).date())
    request = pb.ListFreeLabelsRequest(parent=tenant_name(session, tenant), month=wanted)
    method = _stub(session).ListFreeLabels
    total = session.connection.call(method, pb.ListFreeLabelsRequest(parent=request.parent, month=wanted, page_size=1))
    FREE.show_pages(session, method, request, "free_labels")
    note(f"{total.value_count} of {total.most_values} values in {wanted}")
    if total.value_count >= total.most_values:
        note("no further value is kept: calls with one are booked under `other`")
