"""`tollhouse prices`: the price book, what a unit of each model costs, with effective dates."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated
from uuid import uuid4

import typer
from google.protobuf.timestamp_pb2 import Timestamp
from tollhouse.admin.v1 import prices_pb2 as pb
from tollhouse.admin.v1.prices_pb2_grpc import PriceProposalServiceStub, PriceServiceStub, RerateServiceStub

from tollhouse_admin.amounts import parse_moment, parse_month
from tollhouse_admin.catalog import complete_models
from tollhouse_admin.command import CHANGE, LIST, READ, Session, command, noun
from tollhouse_admin.names import named
from tollhouse_admin.output import Format, Layout, note, show_list, show_one, write_json
from tollhouse_admin.price_files import (
    AllowJumps,
    Base,
    File,
    Form,
    From,
    MaxJump,
    Models,
    Source,
    Why,
    allowances,
    draft_of,
    file_from,
    show_changes,
)
from tollhouse_admin.rendering import as_json, enum_number
from tollhouse_admin.rerates import set_prices, show_rerated
from tollhouse_admin.resource import Etag, Kind
from tollhouse_admin.scopes import Department, Project, Scope, Tenant, scope_of

app = noun("Prices: what a unit of each model costs, with effective dates.")

PRICES = Layout(
    [
        *("endpoint", "model", "sku", "percent", "amount", "per_units", "unit", "above_prompt_tokens"),
        *("service_tier", "effective_time", "end_time", "source"),
    ]
)
BOOK = Layout(["name", "version", "import_time", "importer", "approver", "source", "price_count", "content_sha256"])
EPISODES = Layout(
    [
        *("price.model", "price.sku", "price.amount", "price.per_units", "price.effective_time"),
        *("version", "known_time", "until_version", "known_until_time"),
    ]
)
PROPOSAL = Layout(
    [
        *("name", "state", "base_version", "source", "proposer", "allowances.reason", "expire_time"),
        *("decider", "decision_reason", "price_book"),
    ]
)
_REPORT_TIMEOUT_SECONDS = 120.0


class State(StrEnum):
    """How far a proposal has come."""

    REQUESTED = "requested"
    APPROVED = "approved"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


class ServiceTier(StrEnum):
    """Google's service tiers."""

    STANDARD = "standard"
    BATCH = "batch"
    FLEX = "flex"
    PRIORITY = "priority"


Version = Annotated[str, typer.Argument(metavar="VERSION", help="Number of a version, or current.")]
Proposal = Annotated[str, typer.Argument(metavar="PROPOSAL", help="Id or name.")]
DecisionReason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for the trail.")]


def _stub(session: Session) -> PriceServiceStub:
    return session.connection.stub(PriceServiceStub)


def _proposals(session: Session) -> PriceProposalServiceStub:
    return session.connection.stub(PriceProposalServiceStub)


# --- what the book says, and said -------------------------------------------------------------------------------------


@command(app, "list", LIST)
def list_prices(
    session: Session,
    *,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", callback=named, autocompletion=complete_models, help="Only those of this model."),
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Only those that hold then; `now` for today's.")
    ] = None,
    known_at: Annotated[
        str | None, typer.Option("--known-at", metavar="WHEN", help="As the book said then; 3d is three days ago.")
    ] = None,
    version: Annotated[int, typer.Option(min=0, metavar="N", help="Of this version of the book; 0: in force.")] = 0,
) -> None:
    """List the prices of the book in force, past and future ones too; or as they were known at a moment."""
    request = pb.ListPricesRequest(
        model=(model or "").removeprefix("models/"),
        effective_at=_moment(at) if at else None,
        known_at=_moment(known_at, past=True) if known_at else None,
        version=version,
    )
    pages = session.connection.pages(_stub(session).ListPrices, request, "prices", limit=session.options.limit)
    show_list(session.options.output, PRICES, pages)


def _moment(text: str, *, past: bool = False) -> Timestamp:
    return parse_moment("0s" if text == "now" else text, now=datetime.now(UTC), past=past)


@command(app, "show", READ)
def show(
    session: Session,
    *,
    version: Version = "current",
    changes: Annotated[bool, typer.Option("--changes", help="What it changed, too.")] = False,
    base: Annotated[int, typer.Option(min=0, metavar="N", help="Against this version; 0: the one before.")] = 0,
) -> None:
    """Show what is known about one version of the price book, with --changes what it changed."""
    name = f"priceBooks/{version.removeprefix('priceBooks/')}"
    book = session.connection.call(_stub(session).GetPriceBook, pb.GetPriceBookRequest(name=name))
    if not changes:
        show_one(session.options.output, BOOK, book)
        return
    request = pb.ListPriceChangesRequest(parent=book.name, base_version=base)
    found = list(session.connection.pages(_stub(session).ListPriceChanges, request, "changes", limit=None))
    if session.options.output is Format.JSON:
        write_json(as_json(pb.ImportPricesResponse(price_book=book, changes=found)))
        return
    note(f"version {book.version}: {len(found)} changed")
    show_changes(session.options.output, found)


@command(app, "history", LIST)
def history(
    session: Session,
    *,
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Its prices; absent: the book's versions.")
    ] = None,
    sku: Annotated[str, typer.Option(metavar="SKU", help="Only this SKU.")] = "",
) -> None:
    """List every price that a model ever had and when the book said it; without a model, the versions of the book."""
    limit = session.options.limit
    if model is None:
        books = session.connection.pages(
            _stub(session).ListPriceBooks, pb.ListPriceBooksRequest(), "price_books", limit=limit
        )
        show_list(session.options.output, BOOK, books)
        return
    request = pb.ListPriceHistoryRequest(model=model.removeprefix("models/"), sku=sku)
    episodes = session.connection.pages(_stub(session).ListPriceHistory, request, "episodes", limit=limit)
    show_list(session.options.output, EPISODES, episodes)


# --- files ------------------------------------------------------------------------------------------------------------


@command(app, "draft", READ)
def draft(
    session: Session,
    *,
    source: Annotated[Source, typer.Option("--from", help="Where from.")] = Source.GENAI_PRICES,
    model: Models = None,
) -> None:
    """Write a price file (TOML) with what a public source says otherwise than the book, to look at and import."""
    found = draft_of(session, source, model or [])
    if session.options.output is Format.JSON:
        write_json(as_json(found))
    else:
        typer.echo(found.content, nl=False)


@command(app, "import", CHANGE)
def import_prices(
    session: Session,
    file: File = None,
    *,
    source: From = None,
    model: Models = None,
    notation: Form = None,
    base_version: Base = 0,
    max_jump: MaxJump = 0,
    allow_jumps: AllowJumps = False,
    reason: Why = "",
) -> None:
    """Put a price file in force as the next version, or with --dry-run show what it would change."""
    found = file_from(session, file, source, notation=notation, models=model or [])
    request = pb.ImportPricesRequest(
        format=found.format,
        content=found.content,
        base_version=base_version or found.base_version,
        allowances=allowances(max_jump=max_jump, allow_jumps=allow_jumps, reason=reason),
        request_id=session.options.request_id or str(uuid4()),
        validate_only=session.options.dry_run,
    )
    response = session.connection.call(_stub(session).ImportPrices, request)
    _say_import(session, response)
    if session.options.output is Format.JSON:
        write_json(as_json(response))
    else:
        show_changes(session.options.output, response.changes)


def _say_import(session: Session, response: pb.ImportPricesResponse) -> None:
    counts = f"{len(response.changes)} changed, {response.unchanged_count} unchanged"
    done = "would become" if session.options.dry_run else "is"
    if response.HasField("proposal"):
        waits = "would wait" if session.options.dry_run else "waits"
        note(f"{response.proposal.name} {waits} for another person's approval, nothing is in force: {counts}")
    else:
        note(f"version {response.price_book.version} {done} the price book: {counts}")


# --- a second person --------------------------------------------------------------------------------------------------


def _proposal_name(typed: str) -> str:
    return f"priceProposals/{typed.removeprefix('priceProposals/')}"


def _read_proposal(session: Session, name: str) -> pb.PriceProposal:
    return session.connection.call(_proposals(session).GetPriceProposal, pb.GetPriceProposalRequest(name=name))


def _bare(session: Session, name: str) -> pb.PriceProposal:
    """Return a proposal without its differences, which every step leaves as they are."""
    proposal = _read_proposal(session, name)
    proposal.ClearField("changes")
    return proposal


_KIND = Kind(PROPOSAL, _bare)


@command(app, "propose", CHANGE)
def propose(
    session: Session,
    file: File = None,
    *,
    source: From = None,
    model: Models = None,
    notation: Form = None,
    base_version: Base = 0,
    max_jump: MaxJump = 0,
    allow_jumps: AllowJumps = False,
    reason: Why = "",
    expires: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Until when it can be decided: 14d or 2026-12-31; absent: 14d.")
    ] = None,
) -> None:
    """Propose a price file, which somebody else approves; nothing is in force until then."""
    found = file_from(session, file, source, notation=notation, models=model or [])
    request = pb.ProposePricesRequest(
        format=found.format,
        content=found.content,
        base_version=base_version or found.base_version,
        allowances=allowances(max_jump=max_jump, allow_jumps=allow_jumps, reason=reason),
        expire_time=_moment(expires) if expires else None,
        request_id=session.options.request_id or str(uuid4()),
        validate_only=session.options.dry_run,
    )
    _show_proposal(session, session.connection.call(_proposals(session).ProposePrices, request))


@command(app, "proposals", LIST)
def list_proposals(
    session: Session,
    *,
    state: Annotated[State | None, typer.Option(help="Only those in this state now.")] = None,
) -> None:
    """List proposals, the newest first."""
    kind = pb.PriceProposal.State
    number = kind.ValueType(enum_number(kind.DESCRIPTOR, state.value)) if state else kind.STATE_UNSPECIFIED
    request = pb.ListPriceProposalsRequest(state=number)
    _KIND.show_pages(session, _proposals(session).ListPriceProposals, request, "price_proposals")


@command(app, "proposal", READ)
def show_proposal(session: Session, proposal: Proposal) -> None:
    """Show one proposal with everything that it changes."""
    _show_proposal(session, _read_proposal(session, _proposal_name(proposal)))


def _show_proposal(session: Session, proposal: pb.PriceProposal) -> None:
    form = session.options.output
    if form is Format.TABLE:
        changes = list(proposal.changes)
        proposal.ClearField("changes")
        show_one(form, PROPOSAL, proposal)
        show_changes(form, changes)
    else:
        show_one(form, PROPOSAL, proposal)


@command(app, "approve", CHANGE)
def approve(session: Session, proposal: Proposal, *, reason: DecisionReason = "", etag: Etag = None) -> None:
    """Put prices in force that somebody else proposed."""
    name = _proposal_name(proposal)
    request = pb.ApprovePriceProposalRequest(name=name, decision_reason=reason, etag=etag or "")
    _KIND.change(session, "approve", name, _proposals(session).ApprovePriceProposal, request)


@command(app, "reject", CHANGE)
def reject(session: Session, proposal: Proposal, *, reason: DecisionReason = "", etag: Etag = None) -> None:
    """Turn a proposal down for good."""
    name = _proposal_name(proposal)
    request = pb.RejectPriceProposalRequest(name=name, decision_reason=reason, etag=etag or "")
    _KIND.change(session, "reject", name, _proposals(session).RejectPriceProposal, request)


@command(app, "withdraw", CHANGE)
def withdraw(session: Session, proposal: Proposal, *, reason: DecisionReason = "", etag: Etag = None) -> None:
    """Take back a proposal of your own before it is decided."""
    name = _proposal_name(proposal)
    request = pb.WithdrawPriceProposalRequest(name=name, decision_reason=reason, etag=etag or "")
    _KIND.change(session, "withdraw", name, _proposals(session).WithdrawPriceProposal, request)


# --- what if ----------------------------------------------------------------------------------------------------------


@command(app, "rerate", READ, timeout_seconds=_REPORT_TIMEOUT_SECONDS)
def rerate(
    session: Session,
    *,
    month: Annotated[str, typer.Option(metavar="YYYY-MM", help="The month, `this` or `last`.")],
    prices: Annotated[
        str | None,
        typer.Option(metavar="FILE|VERSION", help="A price file or a version of the book; absent: each call's own."),
    ] = None,
    service_tier: Annotated[
        ServiceTier | None, typer.Option("--service-tier", "--tier", help="Google's service tier for every call.")
    ] = None,
    prices_at: Annotated[
        str | None, typer.Option("--prices-at", metavar="WHEN", help="The prices of this moment, whenever a call was.")
    ] = None,
    scope: Scope = None,
    tenant: Tenant = None,
    department: Department = None,
    project: Project = None,
) -> None:
    """Report what a month would have cost at other prices; nothing booked changes. --scope platform: all tenants."""
    parent = scope_of(session, scope=scope, tenant=tenant, department=department, project=project)
    request = pb.GetRerateReportRequest(
        parent="" if parent == "platform" else parent,
        month=parse_month(month, today=datetime.now(UTC).date()),
        service_tier=service_tier.value if service_tier else "",
        prices_at=_moment(prices_at) if prices_at else None,
    )
    if prices is not None:
        set_prices(request, prices)
    stub = session.connection.stub(RerateServiceStub)
    show_rerated(session.options.output, session.connection.call(stub.GetRerateReport, request))
