"""`tollhouse targets`: where the calls of each tier can go, and how it is going there."""

from typing import Annotated

import typer
from tollhouse.admin.v1 import traffic_pb2 as pb
from tollhouse.admin.v1.traffic_pb2_grpc import TrafficServiceStub

from tollhouse_admin.account_options import complete_accounts
from tollhouse_admin.catalog import complete_tiers
from tollhouse_admin.command import LIST, Session, command, noun
from tollhouse_admin.names import full_name, named
from tollhouse_admin.output import show_list
from tollhouse_admin.traffic_layouts import TARGET

app = noun("Targets: the accounts and models behind each tier.")


@command(app, "list", LIST)
def list_targets(
    session: Session,
    *,
    tier: Annotated[
        str | None,
        typer.Option(metavar="TIER", callback=named, autocompletion=complete_tiers, help="Only of this tier."),
    ] = None,
    account: Annotated[
        str | None,
        typer.Option(metavar="ACCOUNT", callback=named, autocompletion=complete_accounts, help="Only of this account."),
    ] = None,
) -> None:
    """List targets by tier and rank, with weights, breakers and what is left of their accounts' limits."""
    request = pb.ListTargetsRequest(
        tier=full_name(tier, "tiers") if tier else "", account=full_name(account, "accounts") if account else ""
    )
    method = session.connection.stub(TrafficServiceStub).ListTargets
    pages = session.connection.pages(method, request, "targets", limit=session.options.limit)
    show_list(session.options.output, TARGET, pages)
