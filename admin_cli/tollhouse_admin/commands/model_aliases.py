"""`tollhouse models alias`: other names of models."""

from typing import Annotated, Any

import typer
from tollhouse.admin.v1 import models_pb2 as pb

from tollhouse_admin.catalog import complete_models
from tollhouse_admin.command import CHANGE, DESTROY, READ, Session, command, noun
from tollhouse_admin.model_options import ALIAS, ModelId, model_name, moment, stub
from tollhouse_admin.names import full_name, last_id, named
from tollhouse_admin.resource import Etag, changed, mask

app = noun("Aliases: other names under which callers may name a model.")

AliasId = Annotated[str, typer.Argument(metavar="ALIAS", help="The other name.")]
Ending = Annotated[
    str | None,
    typer.Option("--shutdown", metavar="WHEN", help="From when on calls by it are refused, naming the model."),
]
OtherModel = Annotated[
    str | None,
    typer.Option(metavar="MODEL", callback=named, autocompletion=complete_models, help="The model that it stands for."),
]


def _name(typed: str) -> str:
    return full_name(typed, "aliases")


@command(app, "add", CHANGE)
def add(session: Session, alias: AliasId, model: ModelId, *, shutdown: Ending = None) -> None:
    """Give a model another name."""
    name = _name(alias)
    resource = pb.ModelAlias(model=model_name(model), shutdown_time=moment(shutdown) if shutdown else None)
    request = pb.CreateAliasRequest(alias_id=last_id(name), alias=resource)
    ALIAS.create(session, name, stub(session).CreateAlias, request)


@command(app, "show", READ)
def show(session: Session, alias: AliasId) -> None:
    """Show one alias."""
    ALIAS.show(session, _name(alias))


@command(app, "update", CHANGE)
def update(
    session: Session,
    alias: AliasId,
    *,
    model: OtherModel = None,
    shutdown: Ending = None,
    etag: Etag = None,
) -> None:
    """Let an alias stand for another model, in one step, or date its end."""
    name = _name(alias)
    fields: dict[str, Any] = changed(
        model=model_name(model) if model else None, shutdown=moment(shutdown) if shutdown else None
    )
    if "shutdown" in fields:
        fields["shutdown_time"] = fields.pop("shutdown")
    request = pb.UpdateAliasRequest(
        alias=pb.ModelAlias(name=name, etag=etag or "", **fields), update_mask=mask(sorted(fields))
    )
    ALIAS.change(session, "update", name, stub(session).UpdateAlias, request)


@command(app, "delete", DESTROY)
def delete(session: Session, alias: AliasId, *, etag: Etag = None) -> None:
    """Delete an alias that an administrator added; one that comes with Tollhouse is ended by date."""
    name = _name(alias)
    request = pb.DeleteAliasRequest(name=name, etag=etag or "")
    warning = f"Calls that name {last_id(name)} will be refused."
    ALIAS.change(session, "delete", name, stub(session).DeleteAlias, request, warning=warning)
