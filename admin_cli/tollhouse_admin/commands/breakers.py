"""`tollhouse breakers`: which targets are left alone because they fail, and what operators order."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from tollhouse.admin.v1 import traffic_pb2 as pb
from tollhouse.admin.v1.traffic_pb2_grpc import TrafficServiceStub

from tollhouse_admin.account_options import complete_accounts
from tollhouse_admin.amounts import parse_moment
from tollhouse_admin.catalog import complete_models
from tollhouse_admin.command import CHANGE, DESTROY, LIST, Session, command, noun
from tollhouse_admin.dry_run import Change, carry_out
from tollhouse_admin.names import full_name, named
from tollhouse_admin.output import Layout, show_list
from tollhouse_admin.resource import Etag
from tollhouse_admin.traffic_layouts import BREAKER, ORDER

app = noun("Breakers: targets that keep failing are left alone for a while, by themselves or by order.")

AccountId = Annotated[
    str, typer.Argument(metavar="ACCOUNT", autocompletion=complete_accounts, help="Id or name of the account.")
]
OnlyAccount = Annotated[
    str | None,
    typer.Option(
        "--account", metavar="ACCOUNT", callback=named, autocompletion=complete_accounts, help="Only of this account."
    ),
]
Region = Annotated[
    str | None, typer.Option(metavar="REGION", callback=named, help="The account's region; absent: all.")
]
Model = Annotated[
    str | None,
    typer.Option(metavar="MODEL", callback=named, autocompletion=complete_models, help="Only this model; absent: all."),
]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why, for those who come later.")]
Until = Annotated[
    str | None,
    typer.Option("--until", metavar="WHEN", help="When it ends by itself: 2h (from now), 2026-11-30T08:00Z."),
]


def _stub(session: Session) -> TrafficServiceStub:
    return session.connection.stub(TrafficServiceStub)


@command(app, "list", LIST)
def list_breakers(
    session: Session,
    *,
    account: OnlyAccount = None,
    troubled: Annotated[bool, typer.Option("--troubled", help="Only those that are not simply closed.")] = False,
) -> None:
    """List breakers as all processes together see them."""
    request = pb.ListBreakersRequest(account=_name(account), troubled_only=troubled)
    _show(session, BREAKER, _stub(session).ListBreakers, request, "breakers")


@command(app, "orders", LIST)
def orders(session: Session, *, account: OnlyAccount = None) -> None:
    """List the orders in force: who holds what open or closed, why, and until when."""
    request = pb.ListBreakerOrdersRequest(account=_name(account))
    _show(session, ORDER, _stub(session).ListBreakerOrders, request, "breaker_orders")


@command(app, "open", DESTROY)
def open_breaker(
    session: Session,
    account: AccountId,
    *,
    reason: Reason,
    region: Region = None,
    model: Model = None,
    until: Until = None,
    etag: Etag = None,
) -> None:
    """Let no call go there until it is ordered otherwise; calls in flight end normally."""
    request = pb.OpenBreakerRequest(account=_name(account), region=region or "", model=model or "")
    _complete(request, reason, until, etag)
    subject = _subject(request)
    warning = f"No call will go to {subject} until 'tollhouse breakers auto' or its time is over."
    _order(session, "open", _stub(session).OpenBreaker, request, warning=warning)


@command(app, "close", CHANGE)
def close_breaker(
    session: Session,
    account: AccountId,
    *,
    reason: Reason,
    region: Region = None,
    model: Model = None,
    until: Until = None,
    etag: Etag = None,
) -> None:
    """Let calls go there whatever becomes of them, until it is ordered otherwise."""
    request = pb.CloseBreakerRequest(account=_name(account), region=region or "", model=model or "")
    _complete(request, reason, until, etag)
    _order(session, "close", _stub(session).CloseBreaker, request)


@command(app, "auto", CHANGE)
def auto(
    session: Session, account: AccountId, *, region: Region = None, model: Model = None, etag: Etag = None
) -> None:
    """Take an order back: the breakers go by what they see again."""
    request = pb.ReleaseBreakerRequest(account=_name(account), region=region or "", model=model or "", etag=etag or "")
    _order(session, "release", _stub(session).ReleaseBreaker, request)


def _name(account: str | None) -> str:
    return full_name(account, "accounts") if account else ""


def _complete(request: Any, reason: str, until: str | None, etag: str | None) -> None:
    request.reason, request.etag = reason, etag or ""
    if until:
        request.expire_time.CopyFrom(parse_moment(until, now=datetime.now(UTC), past=False))


def _show(session: Session, layout: Layout, method: Callable[..., Any], request: Any, field: str) -> None:
    pages = session.connection.pages(method, request, field, limit=session.options.limit)  # type: ignore[arg-type]
    show_list(session.options.output, layout, pages)


def _subject(request: Any) -> str:
    region = [f"region {request.region}"] if request.region else []
    model = [f"model {request.model}"] if request.model else []
    return ", ".join([request.account, *region, *model])


def _order(session: Session, verb: str, method: Any, request: Any, *, warning: str = "") -> None:
    def before() -> pb.BreakerOrder:
        """Return the order in force on the same breakers, empty where there is none."""
        question = pb.ListBreakerOrdersRequest(account=request.account)
        for one in session.connection.pages(_stub(session).ListBreakerOrders, question, "breaker_orders"):
            if (one.region, one.model) == (request.region, request.model.removeprefix("models/")):
                found: pb.BreakerOrder = one
                return found
        return pb.BreakerOrder()

    change = Change(
        verb=verb,
        subject=f"the breakers of {_subject(request)}",
        method=method,
        request=request,
        layout=ORDER,
        before=before,
        warning=warning,
    )
    carry_out(session, change)
