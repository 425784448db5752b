"""`tollhouse wallets`: money paid in advance."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated

import typer
from tollhouse.admin.v1 import wallets_pb2 as pb
from tollhouse.admin.v1.wallets_pb2_grpc import WalletServiceStub

from tollhouse_admin.amounts import money_of, parse_dollars, parse_moment
from tollhouse_admin.command import CHANGE, LIST, READ, Session, command, noun
from tollhouse_admin.connection import Connection
from tollhouse_admin.dry_run import Change, carry_out
from tollhouse_admin.names import is_full, tenant_of
from tollhouse_admin.output import Layout
from tollhouse_admin.resource import DisplayName, Etag, Kind
from tollhouse_admin.scopes import (
    OFFERED,
    Department,
    Project,
    Scope,
    Tenant,
    complete_in_tenant,
    in_tenant,
    scope_of,
    tenant_name,
)

app = noun("Wallets: money paid in advance; nothing is spent that was not paid.")


def _wallets(connection: Connection, tenant: str) -> Iterable[pb.Wallet]:
    stub = connection.stub(WalletServiceStub)
    return connection.pages(stub.ListWallets, pb.ListWalletsRequest(parent=tenant), "wallets", limit=OFFERED)


WalletId = Annotated[
    str, typer.Argument(metavar="WALLET", help="Id or name.", autocompletion=complete_in_tenant(_wallets))
]


def _stub(session: Session) -> WalletServiceStub:
    return session.connection.stub(WalletServiceStub)


def _read(session: Session, name: str) -> pb.Wallet:
    return session.connection.call(_stub(session).GetWallet, pb.GetWalletRequest(name=name))


WALLET = Kind(
    Layout(["name", "scope", "display_name", "paid", "expired", "spent", "held", "balance", "low_balance_percent"]),
    _read,
)
TOP_UP = Kind(
    Layout(
        [
            *("top_up_id", "amount", "spent", "expired", "remaining"),
            *("expire_time", "reference", "creator", "create_time"),
        ]
    ),
    _read,
)


@command(app, "create", CHANGE)
def create(
    session: Session,
    *,
    wallet: Annotated[
        str | None, typer.Argument(metavar="ID", help="Its id, and its limit's; absent: the server chooses.")
    ] = None,
    display_name: DisplayName = None,
    low_balance: Annotated[
        int,
        typer.Option(
            "--low-balance",
            min=1,
            max=99,
            metavar="PERCENT",
            help="Alert when no more than this part of what was paid in is left.",
        ),
    ] = 20,
    scope: Scope = None,
    tenant: Tenant = None,
    department: Department = None,
    project: Project = None,
) -> None:
    """Create an empty wallet: until it is topped up, no call of its scope that costs money is served."""
    where = scope_of(session, scope=scope, tenant=tenant, department=department, project=project)
    parent = tenant_of(where) if is_full(where) else tenant_name(session, tenant)
    resource = pb.Wallet(scope=where, display_name=display_name or "", low_balance_percent=low_balance)
    name = in_tenant(session, wallet, "wallets", parent) if wallet else f"a wallet of {where}"
    request = pb.CreateWalletRequest(parent=parent, wallet_id=wallet or "", wallet=resource)
    WALLET.create(session, name, _stub(session).CreateWallet, request)


@command(app, "list", LIST)
def list_wallets(
    session: Session,
    *,
    scope: Scope = None,
    tenant: Tenant = None,
    department: Department = None,
    project: Project = None,
) -> None:
    """List a tenant's wallets with their balances; with a scope only those of exactly that."""
    parent = tenant_name(session, tenant)
    narrowed = scope or department or project
    where = scope_of(session, scope=scope, tenant=parent, department=department, project=project) if narrowed else ""
    request = pb.ListWalletsRequest(parent=parent, scope=where)
    WALLET.show_pages(session, _stub(session).ListWallets, request, "wallets")


@command(app, "show", READ)
def show(session: Session, wallet: WalletId, *, tenant: Tenant = None) -> None:
    """Show one wallet with its balance."""
    WALLET.show(session, in_tenant(session, wallet, "wallets", tenant))


@command(app, "top-up", CHANGE)
def top_up(
    session: Session,
    wallet: WalletId,
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="US dollars: 500, $500 or 0.10.")],
    *,
    expires: Annotated[
        str | None, typer.Option(metavar="WHEN", help="When the rest expires: 365d, 2027-12-31; absent: never.")
    ] = None,
    reference: Annotated[str, typer.Option(metavar="TEXT", help="What it was paid by, such as an invoice.")] = "",
    top_up_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Its id; absent: the server chooses.")
    ] = None,
    tenant: Tenant = None,
    etag: Etag = None,
) -> None:
    """Put money into a wallet."""
    name = in_tenant(session, wallet, "wallets", tenant)
    put_in = pb.WalletTopUp(
        amount=money_of(parse_dollars(amount)),
        expire_time=parse_moment(expires, now=datetime.now(UTC), past=False) if expires else None,
        reference=reference,
    )
    request = pb.TopUpWalletRequest(name=name, top_up_id=top_up_id or "", top_up=put_in, etag=etag or "")
    method = _stub(session).TopUpWallet
    change = Change(verb="top up", subject=name, method=method, request=request, layout=TOP_UP.layout)
    carry_out(session, change)


@command(app, "top-ups", LIST)
def top_ups(session: Session, wallet: WalletId, *, tenant: Tenant = None) -> None:
    """List what was put into a wallet, the newest first, with what is left of each."""
    request = pb.ListWalletTopUpsRequest(name=in_tenant(session, wallet, "wallets", tenant))
    TOP_UP.show_pages(session, _stub(session).ListWalletTopUps, request, "top_ups")
