"""`tollhouse deliveries`: statements that go out by themselves, and what has become of each."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

import typer
from tollhouse.admin.v1 import deliveries_pb2 as pb
from tollhouse.admin.v1.deliveries_pb2_grpc import DeliveryServiceStub

from tollhouse_admin.command import CHANGE, DESTROY, LIST, READ, Session, command, noun
from tollhouse_admin.connection import Connection
from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.output import Layout
from tollhouse_admin.rendering import enum_number
from tollhouse_admin.resource import Etag, Kind
from tollhouse_admin.scopes import (
    OFFERED,
    Department,
    Tenant,
    complete_in_tenant,
    department_name,
    in_tenant,
    tenant_name,
)

app = noun("Deliveries: statements that go out after the close or on a day, to a folder, bucket or by e-mail, once.")


class State(StrEnum):
    """What has become of a delivery."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


def _schedules(connection: Connection, tenant: str) -> Iterable[pb.DeliverySchedule]:
    stub = connection.stub(DeliveryServiceStub)
    request = pb.ListDeliverySchedulesRequest(parent=tenant)
    return connection.pages(stub.ListDeliverySchedules, request, "delivery_schedules", limit=OFFERED)


def _failed(connection: Connection, tenant: str) -> Iterable[pb.Delivery]:
    stub = connection.stub(DeliveryServiceStub)
    request = pb.ListDeliveriesRequest(parent=tenant, state=pb.Delivery.STATE_FAILED)
    return connection.pages(stub.ListDeliveries, request, "deliveries", limit=OFFERED)


ScheduleId = Annotated[
    str, typer.Argument(metavar="SCHEDULE", help="Id or name.", autocompletion=complete_in_tenant(_schedules))
]
DeliveryId = Annotated[
    str, typer.Argument(metavar="DELIVERY", help="Id or name.", autocompletion=complete_in_tenant(_failed))
]


def _stub(session: Session) -> DeliveryServiceStub:
    return session.connection.stub(DeliveryServiceStub)


def _read_schedule(session: Session, name: str) -> pb.DeliverySchedule:
    return session.connection.call(_stub(session).GetDeliverySchedule, pb.GetDeliveryScheduleRequest(name=name))


def _read_delivery(session: Session, name: str) -> pb.Delivery:
    return session.connection.call(_stub(session).GetDelivery, pb.GetDeliveryRequest(name=name))


SCHEDULE = Kind(
    Layout(["name", "scope", "formats", "language", "day", "to_folder", "to_bucket", "recipients", "creator"]),
    _read_schedule,
)
DELIVERY = Kind(
    Layout(["name", "schedule", "month", "way", "state", "attempts", "deliver_time", "next_attempt_time", "fault"]),
    _read_delivery,
)


@command(app, "schedule", CHANGE)
def schedule(
    session: Session,
    *,
    formats: Annotated[
        list[str], typer.Option("--format", metavar="FORMAT", help="pdf, xlsx, html, csv, json, focus; several times.")
    ],
    folder: Annotated[bool, typer.Option("--folder", help="Into the deployment's directory.")] = False,
    bucket: Annotated[bool, typer.Option("--bucket", help="Into the deployment's bucket.")] = False,
    to: Annotated[
        list[str] | None, typer.Option("--to", metavar="ADDRESS", help="By e-mail to this address; several times.")
    ] = None,
    day: Annotated[
        int,
        typer.Option(
            metavar="DAY", min=0, max=28, help="On this day of the following month, closed or not; 0: after its close."
        ),
    ] = 0,
    department: Department = None,
    language: Annotated[
        str, typer.Option(metavar="TAG", help="Language of the documents, such as zh-Hans; absent: English.")
    ] = "",
    schedule_id: Annotated[str | None, typer.Argument(metavar="ID", help="Its id; absent: the server chooses.")] = None,
    tenant: Tenant = None,
) -> None:
    """Have the statements of a tenant, or of a department, sent out from now on."""
    if not (folder or bucket or to):
        raise wrong_usage("Nowhere to deliver was given", "Give --folder, --bucket, --to, or several of them.")
    parent = tenant_name(session, tenant)
    wanted = pb.DeliverySchedule(
        scope=department_name(session, department, parent) if department else parent,
        formats=formats,
        language=language,
        day=day,
        to_folder=folder,
        to_bucket=bucket,
        recipients=to or [],
    )
    name = in_tenant(session, schedule_id, "deliverySchedules", parent) if schedule_id else f"a schedule of {parent}"
    request = pb.CreateDeliveryScheduleRequest(
        parent=parent, delivery_schedule_id=schedule_id or "", delivery_schedule=wanted
    )
    SCHEDULE.create(session, name, _stub(session).CreateDeliverySchedule, request)


@command(app, "schedules", LIST)
def list_schedules(session: Session, *, tenant: Tenant = None) -> None:
    """List a tenant's schedules."""
    request = pb.ListDeliverySchedulesRequest(parent=tenant_name(session, tenant))
    SCHEDULE.show_pages(session, _stub(session).ListDeliverySchedules, request, "delivery_schedules")


@command(app, "unschedule", DESTROY)
def unschedule(session: Session, schedule_id: ScheduleId, *, tenant: Tenant = None, etag: Etag = None) -> None:
    """End a schedule; what is under way still goes out."""
    name = in_tenant(session, schedule_id, "deliverySchedules", tenant)
    request = pb.DeleteDeliveryScheduleRequest(name=name, etag=etag or "")
    warning = f"{name} will send nothing any more, and its id cannot be used again."
    SCHEDULE.change(session, "delete", name, _stub(session).DeleteDeliverySchedule, request, warning=warning)


@command(app, "list", LIST)
def list_deliveries(
    session: Session,
    *,
    state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    tenant: Tenant = None,
) -> None:
    """List what was and is to be delivered, with what stands against it."""
    number = enum_number(pb.Delivery.State.DESCRIPTOR, state.value) if state else 0
    request = pb.ListDeliveriesRequest(parent=tenant_name(session, tenant), state=pb.Delivery.State.ValueType(number))
    DELIVERY.show_pages(session, _stub(session).ListDeliveries, request, "deliveries")


@command(app, "show", READ)
def show(session: Session, delivery: DeliveryId, *, tenant: Tenant = None) -> None:
    """Show one delivery."""
    DELIVERY.show(session, in_tenant(session, delivery, "deliveries", tenant))


@command(app, "retry", CHANGE)
def retry(session: Session, delivery: DeliveryId, *, tenant: Tenant = None, etag: Etag = None) -> None:
    """Have a failed delivery tried anew, at once."""
    name = in_tenant(session, delivery, "deliveries", tenant)
    request = pb.RetryDeliveryRequest(name=name, etag=etag or "")
    DELIVERY.change(session, "retry", name, _stub(session).RetryDelivery, request)
