"""`tollhouse departments`: the tree of departments to which cost is charged."""

from collections.abc import Iterable
from enum import StrEnum
from functools import partial
from typing import Annotated
from zoneinfo import ZoneInfo

import typer
from tollhouse.admin.v1 import departments_pb2 as pb
from tollhouse.admin.v1 import tenants_pb2
from tollhouse.admin.v1.departments_pb2_grpc import DepartmentServiceStub
from tollhouse.admin.v1.tenants_pb2_grpc import TenantServiceStub

from tollhouse_admin.command import CHANGE, DESTROY, LIST, READ, Session, command, noun
from tollhouse_admin.connection import Connection
from tollhouse_admin.dry_run import Change, perform
from tollhouse_admin.effective import moment_of, parse_day_or_moment, zone_of
from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.names import full_name, last_id, named, tenant_of
from tollhouse_admin.output import Layout, show_one
from tollhouse_admin.rendering import enum_number
from tollhouse_admin.resource import (
    CostCentre,
    DisplayName,
    Etag,
    Kind,
    NewId,
    OnlyCostCentre,
    OnlyOwner,
    Owner,
    ShowDeleted,
    changed,
    mask,
)
from tollhouse_admin.scopes import (
    OFFERED,
    Tenant,
    complete_departments,
    complete_in_tenant,
    department_name,
    in_tenant,
    owner_name,
    tenant_name,
)

app = noun("Departments: the tree to which cost is charged.")

DepartmentId = Annotated[
    str, typer.Argument(metavar="DEPARTMENT", autocompletion=complete_departments, help="Id or name.")
]
Under = Annotated[
    str | None,
    typer.Option(
        metavar="DEPARTMENT", callback=named, autocompletion=complete_departments, help="Department above it."
    ),
]
To = Annotated[
    str | None,
    typer.Option(
        "--to",
        "--under",
        metavar="DEPARTMENT",
        callback=named,
        autocompletion=complete_departments,
        help="The new department above it.",
    ),
]
Effective = Annotated[
    str | None,
    typer.Option(
        metavar="WHEN",
        help="2027-01-01 (midnight in the tenant's time zone) or 2027-01-01T06:00+02:00; absent: at once.",
    ),
]


def _stub(session: Session) -> DepartmentServiceStub:
    return session.connection.stub(DepartmentServiceStub)


def _read(session: Session, name: str) -> pb.Department:
    return session.connection.call(_stub(session).GetDepartment, pb.GetDepartmentRequest(name=name))


def _read_move(session: Session, name: str) -> pb.DepartmentMove:
    return session.connection.call(_stub(session).GetDepartmentMove, pb.GetDepartmentMoveRequest(name=name))


class MoveState(StrEnum):
    """Where a move is in its life."""

    SCHEDULED = "scheduled"
    APPLIED = "applied"
    CANCELLED = "cancelled"
    FAILED = "failed"


MOVE = Kind(
    Layout(["name", "department", "parent_department", "effective_time", "state", "failure", "creator", "kind"]),
    _read_move,
)
DEPARTMENT = Kind(
    Layout(
        ["name", "display_name", "parent_department", "cost_centre", "owner", "state", "merged_into", "create_time"]
    ),
    _read,
)


class DepartmentState(StrEnum):
    """Where a department is in its life."""

    ACTIVE = "active"
    DELETED = "deleted"
    MERGED = "merged"


class OwnLimits(StrEnum):
    """What becomes of a merged department's own limits."""

    TRANSFER = "transfer"
    END = "end"


@command(app, "create", CHANGE)
def create(
    session: Session,
    department: NewId,
    *,
    tenant: Tenant = None,
    under: Under = None,
    display_name: DisplayName = None,
    cost_centre: CostCentre = None,
    owner: Owner = None,
) -> None:
    """Create a department below the tenant, or below another department."""
    name = department_name(session, department, tenant)
    parent = full_name(under, "departments", tenant_of(name)) if under else ""
    resource = pb.Department(
        display_name=display_name or "",
        parent_department=parent,
        cost_centre=cost_centre or "",
        owner=owner_name(owner, tenant_of(name)) or "",
    )
    request = pb.CreateDepartmentRequest(parent=tenant_of(name), department_id=last_id(name), department=resource)
    DEPARTMENT.create(session, name, _stub(session).CreateDepartment, request)


@command(app, "list", LIST)
def list_departments(
    session: Session,
    *,
    tenant: Tenant = None,
    under: Under = None,
    cost_centre: OnlyCostCentre = None,
    owner: OnlyOwner = None,
    state: Annotated[DepartmentState | None, typer.Option(help="Only departments in this state.")] = None,
    show_deleted: ShowDeleted = False,
) -> None:
    """List a tenant's departments, or those below one of them."""
    parent = tenant_name(session, tenant)
    root = full_name(under, "departments", parent) if under else ""
    states = pb.Department.State
    request = pb.ListDepartmentsRequest(
        parent=parent,
        root=root,
        show_deleted=show_deleted,
        cost_centre=cost_centre or "",
        owner=owner_name(owner, parent) or "",
        state=states.ValueType(enum_number(states.DESCRIPTOR, state.value)) if state else states.STATE_UNSPECIFIED,
    )
    DEPARTMENT.show_pages(session, _stub(session).ListDepartments, request, "departments")


@command(app, "show", READ)
def show(session: Session, department: DepartmentId, *, tenant: Tenant = None) -> None:
    """Show one department."""
    DEPARTMENT.show(session, department_name(session, department, tenant))


@command(app, "update", CHANGE)
def update(
    session: Session,
    department: DepartmentId,
    *,
    tenant: Tenant = None,
    display_name: DisplayName = None,
    cost_centre: CostCentre = None,
    owner: Owner = None,
    etag: Etag = None,
) -> None:
    """Change a department's display name, cost centre or owner."""
    name = department_name(session, department, tenant)
    fields = changed(display_name=display_name, cost_centre=cost_centre, owner=owner_name(owner, tenant_of(name)))
    resource = pb.Department(name=name, etag=etag or "", **fields)
    request = pb.UpdateDepartmentRequest(department=resource, update_mask=mask(fields))
    DEPARTMENT.change(session, "update", name, _stub(session).UpdateDepartment, request)


@command(app, "move", CHANGE)
def move(
    session: Session,
    department: DepartmentId,
    *,
    tenant: Tenant = None,
    to: To = None,
    top: Annotated[bool, typer.Option("--top", help="Directly below the tenant.")] = False,
    effective: Effective = None,
    etag: Etag = None,
) -> None:
    """Put a department, with all that is below it, under another one, at once or from a date on."""
    if (to is None) == (not top):
        raise wrong_usage("Where to is not said", "Give either --to DEPARTMENT or --top.")
    day = parse_day_or_moment(effective) if effective else None
    name = department_name(session, department, tenant)
    parent = full_name(to, "departments", tenant_of(name)) if to else ""
    moment = moment_of(day, partial(_zone, session, tenant_of(name))) if day else None
    request = pb.MoveDepartmentRequest(name=name, parent_department=parent, etag=etag or "", effective_time=moment)
    change = Change(
        verb="move",
        subject=name,
        method=_stub(session).MoveDepartment,
        request=request,
        layout=DEPARTMENT.layout,
        before=partial(_read, session, name),
    )
    moved = perform(session, change)
    if isinstance(moved, pb.Department):
        _show_moved(session, moved)


@command(app, "merge", DESTROY)
def merge(
    session: Session,
    department: DepartmentId,
    *,
    into: Annotated[
        str,
        typer.Option(
            metavar="DEPARTMENT", callback=named, autocompletion=complete_departments, help="Where everything goes."
        ),
    ],
    tenant: Tenant = None,
    limits: Annotated[
        OwnLimits | None,
        typer.Option(help="What becomes of its own limits; absent: it must have none. Those of its projects go along."),
    ] = None,
    effective: Effective = None,
    etag: Etag = None,
) -> None:
    """Put what is in a department into another one, at once or from a date on, and end it; its records stay."""
    day = parse_day_or_moment(effective) if effective else None
    name = department_name(session, department, tenant)
    target = full_name(into, "departments", tenant_of(name))
    policy = enum_number(pb.MergedLimits.DESCRIPTOR, limits.value) if limits else pb.MERGED_LIMITS_UNSPECIFIED
    request = pb.MergeDepartmentRequest(
        name=name,
        into_department=target,
        limit_policy=pb.MergedLimits.ValueType(policy),
        etag=etag or "",
        effective_time=moment_of(day, partial(_zone, session, tenant_of(name))) if day else None,
    )
    change = Change(
        verb="merge",
        subject=name,
        method=_stub(session).MergeDepartment,
        request=request,
        layout=DEPARTMENT.layout,
        before=partial(_read, session, name),
        warning=f"{name} will end, and what is in it will be in {target}; no merge is undone.",
    )
    merged = perform(session, change)
    if isinstance(merged, pb.Department):
        _show_moved(session, merged)


def _show_moved(session: Session, moved: pb.Department) -> None:
    """Show the department that has moved, or the move that is to come."""
    if moved.move.state == pb.DepartmentMove.STATE_SCHEDULED:
        show_one(session.options.output, MOVE.layout, moved.move)
    else:
        show_one(session.options.output, DEPARTMENT.layout, moved)


def _zone(session: Session, tenant: str) -> ZoneInfo:
    found = session.connection.call(
        session.connection.stub(TenantServiceStub).GetTenant, tenants_pb2.GetTenantRequest(name=tenant)
    )
    return zone_of(found.time_zone)


@command(app, "moves", LIST)
def moves(
    session: Session,
    *,
    tenant: Tenant = None,
    department: Annotated[
        str | None,
        typer.Option(
            "--department",
            "-d",
            metavar="DEPARTMENT",
            callback=named,
            autocompletion=complete_departments,
            help="Only moves of this department itself.",
        ),
    ] = None,
    state: Annotated[MoveState | None, typer.Option(help="Only moves in this state.")] = None,
) -> None:
    """List moves of departments: scheduled, made, cancelled and failed ones."""
    parent = tenant_name(session, tenant)
    states = pb.DepartmentMove.State
    request = pb.ListDepartmentMovesRequest(
        parent=parent,
        department=full_name(department, "departments", parent) if department else "",
        state=states.ValueType(enum_number(states.DESCRIPTOR, state.value)) if state else states.STATE_UNSPECIFIED,
    )
    MOVE.show_pages(session, _stub(session).ListDepartmentMoves, request, "department_moves")


def _scheduled(connection: Connection, tenant: str) -> Iterable[pb.DepartmentMove]:
    stub = connection.stub(DepartmentServiceStub)
    request = pb.ListDepartmentMovesRequest(parent=tenant, state=pb.DepartmentMove.STATE_SCHEDULED)
    return connection.pages(stub.ListDepartmentMoves, request, "department_moves", limit=OFFERED)


@command(app, "cancel-move", DESTROY)
def cancel_move(
    session: Session,
    move: Annotated[
        str,
        typer.Argument(
            metavar="MOVE",
            autocompletion=complete_in_tenant(_scheduled),
            help="Id or name, as `departments moves` shows it.",
        ),
    ],
    *,
    tenant: Tenant = None,
    etag: Etag = None,
) -> None:
    """Call a scheduled move off."""
    name = in_tenant(session, move, "departmentMoves", tenant)
    request = pb.CancelDepartmentMoveRequest(name=name, etag=etag or "")
    warning = f"{name} will not be made."
    MOVE.change(session, "cancel-move", name, _stub(session).CancelDepartmentMove, request, warning=warning)


@command(app, "delete", DESTROY)
def delete(session: Session, department: DepartmentId, *, tenant: Tenant = None, etag: Etag = None) -> None:
    """Delete an empty department; its records stay."""
    name = department_name(session, department, tenant)
    request = pb.DeleteDepartmentRequest(name=name, etag=etag or "")
    warning = f"{name} will be deleted for good."
    DEPARTMENT.change(session, "delete", name, _stub(session).DeleteDepartment, request, warning=warning)
