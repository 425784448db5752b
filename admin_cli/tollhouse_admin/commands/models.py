"""`tollhouse models`: which tiers and models there are, what they can do, and what they cost today."""

from typing import Annotated, Any

import typer
from tollhouse.v1 import catalog_pb2 as pb
from tollhouse.v1.catalog_pb2_grpc import CatalogServiceStub

from tollhouse_admin.amounts import dollars_of_nanos, dollars_text
from tollhouse_admin.catalog import complete_models, complete_tiers
from tollhouse_admin.command import LIST, READ, Session, command, noun
from tollhouse_admin.names import full_name
from tollhouse_admin.output import Layout, show_list, show_one

app = noun("Models: which tiers and models there are, and what they cost today.")

TIERS = Layout(["name", "display_name", "description", "models"])


def price_of(direction: str) -> Any:
    """Return a column: dollars for a million tokens of plain text in that direction, or nothing where unknown."""

    def cell(model: pb.Model) -> str:
        for price in model.prices:
            plain = price.service_tier in ("", "standard") and price.above_prompt_tokens == 0
            if plain and price.sku.rpartition("/")[2] == f"{direction}_text":
                return f"${dollars_text(dollars_of_nanos(price.nanos_per_million_units))}"
        return ""

    return cell


MODELS = Layout(
    [
        *("name", "display_name", "tiers", "input_token_limit", "output_token_limit"),
        ("input_per_million", price_of("input")),
        ("output_per_million", price_of("output")),
        *("shutdown_time", "aliases"),
    ]
)


def _stub(session: Session) -> CatalogServiceStub:
    return session.connection.stub(CatalogServiceStub)


@command(app, "tiers", LIST, as_caller=True)
def tiers(session: Session) -> None:
    """List the tiers, each with its models, the first choice first."""
    request = pb.ListTiersRequest()
    pages = session.connection.pages(_stub(session).ListTiers, request, "tiers", limit=session.options.limit)
    show_list(session.options.output, TIERS, pages)


@command(app, "list", LIST, as_caller=True)
def list_models(
    session: Session,
    *,
    tier: Annotated[
        str | None, typer.Option(metavar="TIER", autocompletion=complete_tiers, help="Only those behind this tier.")
    ] = None,
    show_shut_down: Annotated[bool, typer.Option("--show-shut-down", help="Those that are shut down too.")] = False,
) -> None:
    """List the models with the price of a million text tokens."""
    request = pb.ListModelsRequest(tier=full_name(tier, "tiers") if tier else None, show_shut_down=show_shut_down)
    pages = session.connection.pages(_stub(session).ListModels, request, "models", limit=session.options.limit)
    show_list(session.options.output, MODELS, pages)


@command(app, "show", READ, as_caller=True)
def show(
    session: Session,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", autocompletion=complete_models, help="A model, an alias, or tiers/TIER.")
    ],
) -> None:
    """Show one model, by its name or an alias, or one tier."""
    if model.startswith("tiers/"):
        tier = session.connection.call(_stub(session).GetTier, pb.GetTierRequest(name=model))
        show_one(session.options.output, TIERS, tier)
        return
    request = pb.GetModelRequest(name=full_name(model, "models"))
    show_one(session.options.output, MODELS, session.connection.call(_stub(session).GetModel, request))
