"""`tollhouse devices`: what runs models itself, and reports it with signed receipts."""

from collections.abc import Sequence
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from tollhouse.admin.v1 import devices_pb2 as pb
from tollhouse.admin.v1.devices_pb2_grpc import DeviceServiceStub
from tollhouse.v1 import devices_pb2 as v1
from tollhouse.v1.generation_pb2_grpc import GenerationServiceStub

from tollhouse_admin import device_receipts
from tollhouse_admin.amounts import dollars_of, dollars_text
from tollhouse_admin.command import CHANGE, DESTROY, LIST, READ, Options, Session, command, local_command, noun
from tollhouse_admin.failures import ExitCode, Failure, wrong_usage
from tollhouse_admin.names import last_id, named, tenant_of
from tollhouse_admin.output import Format, Layout, note, write_csv, write_fields, write_json, write_table
from tollhouse_admin.rendering import Cell, as_json
from tollhouse_admin.resource import DisplayName, Etag, Kind, NewId, changed, mask
from tollhouse_admin.scopes import Department, Project, Tenant, in_tenant, project_name, scope_of

app = noun("Devices: they run models themselves, and report what they did with signed receipts.")

MOST_IN_A_REPORT = 1000

DeviceId = Annotated[str, typer.Argument(metavar="DEVICE", help="Id or name.")]
Receipts = Annotated[
    int | None,
    typer.Option("--max-daily-receipts", min=1, metavar="N", help="Most receipts in a day; absent: 10,000."),
]
Tokens = Annotated[
    int | None, typer.Option("--max-daily-tokens", min=1, metavar="N", help="Most tokens in a day; absent: 50,000,000.")
]
InDepartment = Annotated[
    str | None,
    typer.Option(
        "--department",
        "-d",
        metavar="ID",
        callback=named,
        help="For who may not do it on the whole tenant: where it is.",
    ),
]


def _stub(session: Session) -> DeviceServiceStub:
    return session.connection.stub(DeviceServiceStub)


def _kind(scope: str = "") -> Kind:
    def read(session: Session, name: str) -> pb.Device:
        return session.connection.call(_stub(session).GetDevice, pb.GetDeviceRequest(name=name, scope=scope))

    return Kind(LAYOUT, read)


LAYOUT = Layout(
    [
        *("name", "display_name", "project", "state", "public_key_fingerprint", "max_daily_receipts"),
        *("max_daily_tokens", "last_report_time", "create_time"),
    ]
)


def _scope(session: Session, tenant: str | None, department: str | None, project: str | None) -> str:
    """Return the part of the tree that the options name, "" where they name none."""
    if not (department or project):
        return ""
    return scope_of(session, scope=None, tenant=tenant, department=department, project=project)


@command(app, "register", CHANGE)
def register(
    session: Session,
    device: NewId,
    project: Annotated[
        str, typer.Option("--project", "-p", metavar="ID", callback=named, help="Project that its use belongs to.")
    ],
    public_key_file: Annotated[
        Path, typer.Option(metavar="FILE", help="Its Ed25519 public key: PEM, or 32 bytes as they are.")
    ],
    *,
    department: Department = None,
    tenant: Tenant = None,
    display_name: DisplayName = None,
    max_daily_receipts: Receipts = None,
    max_daily_tokens: Tokens = None,
) -> None:
    """Register a device, or one key for an installation or a fleet, by its public key."""
    owner = project_name(session, project, department, tenant)
    parent = tenant_of(owner)
    name = in_tenant(session, device, "devices", parent)
    resource = pb.Device(
        project=owner,
        public_key=device_receipts.read_public_key(public_key_file),
        display_name=display_name or "",
        max_daily_receipts=max_daily_receipts or 0,
        max_daily_tokens=max_daily_tokens or 0,
    )
    request = pb.CreateDeviceRequest(parent=parent, device_id=last_id(name), device=resource)
    _kind().create(session, name, _stub(session).CreateDevice, request)


@command(app, "list", LIST)
def list_devices(
    session: Session, *, tenant: Tenant = None, department: Department = None, project: Project = None
) -> None:
    """List a tenant's devices, or those of a department with everything below it, or of a project."""
    scope = _scope(session, tenant, department, project)
    parent = tenant_of(scope) if scope else tenant_of(in_tenant(session, "all", "devices", tenant))
    request = pb.ListDevicesRequest(parent=parent, scope=scope)
    _kind().show_pages(session, _stub(session).ListDevices, request, "devices")


@command(app, "show", READ)
def show(session: Session, device: DeviceId, *, tenant: Tenant = None, department: InDepartment = None) -> None:
    """Show one device, never its key."""
    scope = _scope(session, tenant, department, None)
    _kind(scope).show(session, in_tenant(session, device, "devices", tenant))


@command(app, "update", CHANGE)
def update(
    session: Session,
    device: DeviceId,
    *,
    tenant: Tenant = None,
    department: InDepartment = None,
    display_name: DisplayName = None,
    max_daily_receipts: Receipts = None,
    max_daily_tokens: Tokens = None,
    etag: Etag = None,
) -> None:
    """Change a device's name for people, or what it may report in a day."""
    fields = changed(
        display_name=display_name, max_daily_receipts=max_daily_receipts, max_daily_tokens=max_daily_tokens
    )
    name, scope = in_tenant(session, device, "devices", tenant), _scope(session, tenant, department, None)
    resource = pb.Device(name=name, etag=etag or "", **fields)
    request = pb.UpdateDeviceRequest(device=resource, update_mask=mask(fields), scope=scope)
    _kind(scope).change(session, "update", name, _stub(session).UpdateDevice, request)


@command(app, "revoke", DESTROY)
def revoke(
    session: Session, device: DeviceId, *, tenant: Tenant = None, department: InDepartment = None, etag: Etag = None
) -> None:
    """Refuse all further receipts of a device, for good; what it has reported stays."""
    name, scope = in_tenant(session, device, "devices", tenant), _scope(session, tenant, department, None)
    request = pb.RevokeDeviceRequest(name=name, scope=scope, etag=etag or "")
    warning = f"No receipt of {name} will ever be taken again."
    _kind(scope).change(session, "revoke", name, _stub(session).RevokeDevice, request, warning=warning)


@command(app, "delete", DESTROY)
def delete(
    session: Session, device: DeviceId, *, tenant: Tenant = None, department: InDepartment = None, etag: Etag = None
) -> None:
    """Take a device out of sight; what it has reported stays, its id and key cannot be used again."""
    name, scope = in_tenant(session, device, "devices", tenant), _scope(session, tenant, department, None)
    request = pb.DeleteDeviceRequest(name=name, scope=scope, etag=etag or "")
    warning = f"{name} will be gone for good."
    _kind(scope).change(session, "delete", name, _stub(session).DeleteDevice, request, warning=warning)


@local_command(app, "keygen")
def keygen(
    options: Options,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="New file for the private key; FILE.pub is the other.")],
) -> None:
    """Make a key pair for a backend or a test: the private key in FILE (0600), the public one in FILE.pub."""
    public_file, fingerprint = device_receipts.write_key_pair(file)
    fields: dict[str, Cell] = {
        "private_key_file": str(file),
        "public_key_file": str(public_file),
        "public_key_fingerprint": fingerprint,
    }
    if options.output is Format.JSON:
        write_json(
            {"privateKeyFile": str(file), "publicKeyFile": str(public_file), "publicKeyFingerprint": fingerprint}
        )
    elif options.output is Format.CSV:
        write_csv(list(fields), [list(fields.values())])
    else:
        write_fields(fields)


@command(app, "report", ("dry_run", *READ), as_caller=True)
def report(
    session: Session,
    key_file: Annotated[Path, typer.Option(metavar="FILE", help="The device's private key in PEM.")],
    file: Annotated[
        typer.FileText,
        typer.Option(metavar="FILE", help="Receipts as JSON lines with sequence, startedAt, model ...; - is stdin."),
    ],
    *,
    device: Annotated[
        str | None, typer.Option(metavar="DEVICE", help="Id or name, for lines that do not name theirs.")
    ] = None,
    project: Project = None,
    department: Department = None,
    tenant: Tenant = None,
) -> None:
    """Sign receipts and report them; each is answered for itself, and a repetition counts nothing twice."""
    parent = project_name(session, project, department, tenant) if project else None
    owner = tenant or (tenant_of(parent) if parent else None)
    name = in_tenant(session, device, "devices", owner) if device else ""
    receipts = list(device_receipts.receipts_in(file.read(), name))
    if not receipts:
        raise wrong_usage("There are no receipts to report")
    key = device_receipts.read_private_key(key_file)
    method = session.connection.stub(GenerationServiceStub).ReportOnDeviceUsage
    outcomes: list[v1.ReceiptOutcome] = []
    waiting = iter(receipts)
    while some := [device_receipts.signed(receipt, key) for receipt in islice(waiting, MOST_IN_A_REPORT)]:
        request = v1.ReportOnDeviceUsageRequest(parent=parent, receipts=some, validate_only=session.options.dry_run)
        outcomes += session.connection.call(method, request).outcomes
    _show_outcomes(session.options.output, receipts, outcomes)
    _judge(outcomes, dry_run=session.options.dry_run)


def _show_outcomes(form: Format, receipts: Sequence[v1.OnDeviceReceipt], outcomes: Sequence[v1.ReceiptOutcome]) -> None:
    pairs = list(zip(receipts, outcomes, strict=True))
    if form is Format.JSON:
        numbers = ({"sequence": one.sequence, "receiptId": one.receipt_id} for one in receipts)
        write_json([ours | as_json(outcome) for ours, outcome in zip(numbers, outcomes, strict=True)])
        return
    titles = ["sequence", "verdict", "refusal", "avoided_cost", "avoided_model", "message"]
    rows = [_row(receipt, outcome) for receipt, outcome in pairs]
    if form is Format.CSV:
        write_csv(titles, rows)
    else:
        write_table(titles, rows)


def _row(receipt: v1.OnDeviceReceipt, outcome: v1.ReceiptOutcome) -> list[Cell]:
    verdict = v1.ReceiptVerdict.Name(outcome.verdict).removeprefix("RECEIPT_VERDICT_").lower()
    refusal = v1.ReceiptRefusal.Name(outcome.refusal).removeprefix("RECEIPT_REFUSAL_").lower()
    cost: Cell = dollars_of(outcome.avoided_cost) if outcome.HasField("avoided_cost") else ""
    return [
        receipt.sequence,
        verdict,
        refusal if outcome.refusal else "",
        cost,
        outcome.avoided_model,
        outcome.message,
    ]


def _judge(outcomes: Sequence[v1.ReceiptOutcome], *, dry_run: bool) -> None:
    """Say what became of the receipts, and fail the command where one was refused."""
    verdicts = [one.verdict for one in outcomes]
    accepted, refused = verdicts.count(v1.RECEIPT_VERDICT_ACCEPTED), verdicts.count(v1.RECEIPT_VERDICT_REFUSED)
    avoided = sum((dollars_of(one.avoided_cost) for one in outcomes), start=Decimal(0))
    mark = "dry run, nothing was booked: " if dry_run else ""
    duplicates = len(outcomes) - accepted - refused
    note(f"{mark}{accepted} accepted, {duplicates} booked before, {refused} refused; ${dollars_text(avoided)} avoided")
    if refused:
        message = f"{refused} of {len(outcomes)} receipts were refused"
        raise Failure(reason="RECEIPTS_REFUSED", message=message, exit_code=ExitCode.INVALID)
