"""`tollhouse tenants`: the companies or subsidiaries that share one Tollhouse."""

from typing import Annotated

import typer
from tollhouse.admin.v1 import tenants_pb2 as pb
from tollhouse.admin.v1.tenants_pb2_grpc import TenantServiceStub

from tollhouse_admin.command import CHANGE, DESTROY, LIST, READ, Session, command, noun
from tollhouse_admin.names import full_name, last_id
from tollhouse_admin.output import Layout
from tollhouse_admin.resource import DisplayName, Etag, Kind, NewId, ShowDeleted, changed, mask
from tollhouse_admin.scopes import complete_tenants

app = noun("Tenants: the companies or subsidiaries that share one Tollhouse.")

TenantId = Annotated[str, typer.Argument(metavar="TENANT", autocompletion=complete_tenants, help="Id or name.")]
TimeZone = Annotated[
    str | None, typer.Option(metavar="ZONE", help="IANA time zone of its days and months; absent on creation: UTC.")
]

FiscalDay = Annotated[
    int | None,
    typer.Option(
        "--fiscal-month-start-day",
        metavar="DAY",
        help="Day (1 to 28) on which its fiscal months begin; absent on creation: 1.",
    ),
]


def _stub(session: Session) -> TenantServiceStub:
    return session.connection.stub(TenantServiceStub)


def _read(session: Session, name: str) -> pb.Tenant:
    return session.connection.call(_stub(session).GetTenant, pb.GetTenantRequest(name=name))


TENANT = Kind(Layout(["name", "display_name", "time_zone", "state", "create_time", "purge_time"]), _read)


@command(app, "create", CHANGE)
def create(
    session: Session,
    tenant: NewId,
    *,
    display_name: DisplayName = None,
    time_zone: TimeZone = None,
    fiscal_month_start_day: FiscalDay = None,
) -> None:
    """Create a tenant."""
    name = full_name(tenant, "tenants")
    resource = pb.Tenant(
        display_name=display_name or "",
        time_zone=time_zone or "",
        fiscal_month_start_day=fiscal_month_start_day or 0,
    )
    request = pb.CreateTenantRequest(tenant_id=last_id(name), tenant=resource)
    TENANT.create(session, name, _stub(session).CreateTenant, request)


@command(app, "list", LIST)
def list_tenants(session: Session, *, show_deleted: ShowDeleted = False) -> None:
    """List tenants."""
    request = pb.ListTenantsRequest(show_deleted=show_deleted)
    TENANT.show_pages(session, _stub(session).ListTenants, request, "tenants")


@command(app, "show", READ)
def show(session: Session, tenant: TenantId) -> None:
    """Show one tenant."""
    TENANT.show(session, full_name(tenant, "tenants"))


@command(app, "update", CHANGE)
def update(
    session: Session,
    tenant: TenantId,
    *,
    display_name: DisplayName = None,
    time_zone: TimeZone = None,
    fiscal_month_start_day: FiscalDay = None,
    etag: Etag = None,
) -> None:
    """Change a tenant's display name, time zone or fiscal month."""
    name = full_name(tenant, "tenants")
    fields = changed(display_name=display_name, time_zone=time_zone, fiscal_month_start_day=fiscal_month_start_day)
    request = pb.UpdateTenantRequest(tenant=pb.Tenant(name=name, etag=etag or "", **fields), update_mask=mask(fields))
    TENANT.change(session, "update", name, _stub(session).UpdateTenant, request)


@command(app, "suspend", DESTROY)
def suspend(session: Session, tenant: TenantId, *, etag: Etag = None) -> None:
    """Refuse every call of a tenant's credentials until it is resumed."""
    name = full_name(tenant, "tenants")
    warning = f"Every call of {name} will be refused until it is resumed."
    request = pb.SuspendTenantRequest(name=name, etag=etag or "")
    TENANT.change(session, "suspend", name, _stub(session).SuspendTenant, request, warning=warning)


@command(app, "resume", CHANGE)
def resume(session: Session, tenant: TenantId, *, etag: Etag = None) -> None:
    """End the suspension of a tenant."""
    name = full_name(tenant, "tenants")
    TENANT.change(
        session, "resume", name, _stub(session).ResumeTenant, pb.ResumeTenantRequest(name=name, etag=etag or "")
    )


@command(app, "delete", DESTROY)
def delete(
    session: Session,
    tenant: TenantId,
    *,
    retention_days: Annotated[
        int | None,
        typer.Option(min=0, max=3650, metavar="DAYS", help="How long it can be undeleted; absent: 30, 0: not at all."),
    ] = None,
    etag: Etag = None,
) -> None:
    """Delete a tenant: its credentials are refused, after some days the names of its people go; its records stay."""
    name = full_name(tenant, "tenants")
    days = 30 if retention_days is None else retention_days
    until = f"for {days} days it can be undeleted" if days else "it cannot be undeleted"
    warning = f"Every credential of {name} will be refused; {until}, then it is purged."
    request = pb.DeleteTenantRequest(name=name, retention_days=retention_days, etag=etag or "")
    TENANT.change(session, "delete", name, _stub(session).DeleteTenant, request, warning=warning)


@command(app, "undelete", CHANGE)
def undelete(session: Session, tenant: TenantId, *, etag: Etag = None) -> None:
    """Take the deletion of a tenant back before its purge time: its credentials work as they did."""
    name = full_name(tenant, "tenants")
    TENANT.change(
        session, "undelete", name, _stub(session).UndeleteTenant, pb.UndeleteTenantRequest(name=name, etag=etag or "")
    )
