"""`tollhouse models`: which tiers and models there are and what they cost today; adding, changing, ending models."""

from typing import Annotated, Any

import typer
from tollhouse.admin.v1 import models_pb2
from tollhouse.v1 import catalog_pb2 as pb
from tollhouse.v1.catalog_pb2_grpc import CatalogServiceStub

from tollhouse_admin.amounts import dollars_of_nanos, dollars_text
from tollhouse_admin.catalog import complete_models, complete_tiers
from tollhouse_admin.command import CHANGE, DESTROY, LIST, READ, Session, command, noun
from tollhouse_admin.commands import model_aliases
from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.model_options import (
    MODEL,
    Capabilities,
    Capability,
    Clearable,
    GroundingQueries,
    Images,
    InputTokens,
    ModelId,
    NewModelId,
    Notice,
    OutputTokens,
    Shutdown,
    Source,
    Successor,
    ToolPromptTokens,
    Upstreams,
    capability_numbers,
    model_name,
    moment,
    tokens,
    upstream_numbers,
)
from tollhouse_admin.model_options import stub as administration
from tollhouse_admin.names import full_name, last_id, named
from tollhouse_admin.output import Layout, show_list, show_one
from tollhouse_admin.resource import DisplayName, Etag, changed, mask

app = noun("Models: which tiers and models there are and what they cost today; adding, changing, ending models.")
app.add_typer(model_aliases.app, name="alias")

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
        str | None,
        typer.Option(
            metavar="TIER", callback=named, autocompletion=complete_tiers, help="Only those behind this tier."
        ),
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


# --- the administrator's part -----------------------------------------------------------------------------------------

_GENERATES = (Capability.GENERATE_CONTENT, Capability.STREAM_GENERATE_CONTENT)


def _fields(
    *,
    display_name: str | None,
    upstream: Upstreams,
    capability: Capabilities,
    input_tokens: str | None,
    output_tokens: str | None,
    images: int | None,
    grounding_queries: int | None,
    tool_prompt_tokens: str | None,
    shutdown: str | None,
    notice: str | None,
    successor: str | None,
    source: str | None,
) -> dict[str, Any]:
    """Return the fields of a model that options were given for."""
    given = {
        "display_name": display_name,
        "upstreams": upstream_numbers(upstream) if upstream else None,
        "capabilities": capability_numbers(capability) if capability else None,
        "input_token_limit": tokens(input_tokens),
        "output_token_limit": tokens(output_tokens),
        "images_per_answer": images,
        "grounding_queries": grounding_queries,
        "tool_prompt_tokens": tokens(tool_prompt_tokens),
        "shutdown_time": moment(shutdown) if shutdown else None,
        "notice_time": moment(notice) if notice else None,
        "successor": model_name(successor) if successor else None,
        "source": source,
    }
    return {name: value for name, value in given.items() if value is not None}


@command(app, "add", CHANGE)
def add(
    session: Session,
    model: NewModelId,
    upstream: Upstreams,
    input_tokens: InputTokens,
    output_tokens: OutputTokens,
    *,
    capability: Capabilities = None,
    display_name: DisplayName = None,
    images: Images = None,
    grounding_queries: GroundingQueries = None,
    tool_prompt_tokens: ToolPromptTokens = None,
    shutdown: Shutdown = None,
    notice: Notice = None,
    successor: Successor = None,
    source: Source = "as an administrator entered it",
) -> None:
    """Add a model: one of a company's own, or Google's newest. Without --capability it generates, streams included.

    It can be called once it has a price (`tollhouse prices import`) and an account that serves it.
    """
    name = model_name(model)
    fields = _fields(
        display_name=display_name,
        upstream=upstream,
        capability=capability or list(_GENERATES),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        images=images,
        grounding_queries=grounding_queries,
        tool_prompt_tokens=tool_prompt_tokens,
        shutdown=shutdown,
        notice=notice,
        successor=successor,
        source=source,
    )
    request = models_pb2.CreateModelRequest(model_id=last_id(name), model=models_pb2.Model(**fields))
    MODEL.create(session, name, administration(session).CreateModel, request)


@command(app, "update", CHANGE)
def update(
    session: Session,
    model: ModelId,
    *,
    display_name: DisplayName = None,
    upstream: Upstreams = None,
    capability: Capabilities = None,
    input_tokens: InputTokens = None,
    output_tokens: OutputTokens = None,
    images: Images = None,
    grounding_queries: GroundingQueries = None,
    tool_prompt_tokens: ToolPromptTokens = None,
    shutdown: Shutdown = None,
    notice: Notice = None,
    successor: Successor = None,
    source: Source = None,
    clear: Annotated[list[Clearable] | None, typer.Option(help="Say nothing of this any more; repeatable.")] = None,
    etag: Etag = None,
) -> None:
    """Change a model; later versions of Tollhouse leave it alone from then on."""
    name = model_name(model)
    fields = _fields(
        display_name=display_name,
        upstream=upstream,
        capability=capability,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        images=images,
        grounding_queries=grounding_queries,
        tool_prompt_tokens=tool_prompt_tokens,
        shutdown=shutdown,
        notice=notice,
        successor=successor,
        source=source,
    )
    cleared = {one.value.replace("-", "_") for one in clear or []}
    if twice := sorted(cleared & fields.keys()):
        raise wrong_usage(f"{twice[0]} is both set and cleared", "Give one of them.")
    if not fields and not cleared:
        raise wrong_usage("Nothing to change was given", "Give at least one option, or --clear.")
    _update(session, "update", name, fields, sorted(cleared), etag=etag)


@command(app, "shut-down", DESTROY)
def shut_down(
    session: Session,
    model: ModelId,
    on: Annotated[str, typer.Option("--on", metavar="WHEN", help="From when on calls are refused; now, 2027-03-01.")],
    *,
    successor: Successor = None,
    notice: Notice = None,
    etag: Etag = None,
) -> None:
    """Date the shutdown of a model; calls after it are refused, and told the successor."""
    name = model_name(model)
    fields = changed(
        shutdown_time=moment(on),
        successor=model_name(successor) if successor else None,
        notice_time=moment(notice) if notice else None,
    )
    _update(session, "shut down", name, fields, [], etag=etag, warning=f"Calls of {name} will be refused: {on}.")


def _update(
    session: Session,
    verb: str,
    name: str,
    fields: dict[str, Any],
    cleared: list[str],
    *,
    etag: str | None,
    warning: str = "",
) -> None:
    resource = models_pb2.Model(name=name, etag=etag or "", **fields)
    request = models_pb2.UpdateModelRequest(model=resource, update_mask=mask([*sorted(fields), *cleared]))
    MODEL.change(session, verb, name, administration(session).UpdateModel, request, warning=warning)


@command(app, "delete", DESTROY)
def delete(session: Session, model: ModelId, *, etag: Etag = None) -> None:
    """Delete a model that was added by mistake and that nothing names; others are shut down by date."""
    name = model_name(model)
    request = models_pb2.DeleteModelRequest(name=name, etag=etag or "")
    warning = f"{name} will be deleted for good."
    MODEL.change(session, "delete", name, administration(session).DeleteModel, request, warning=warning)
