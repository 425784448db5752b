"""`tollhouse embed`: embed texts."""

from typing import Annotated
from uuid import uuid4

import typer
from tollhouse.v1 import generation_pb2
from tollhouse.v1.generation_pb2_grpc import GenerationServiceStub

from tollhouse_admin.answers import show_outcome
from tollhouse_admin.catalog import complete_models, complete_tiers
from tollhouse_admin.command import GENERATE, GENERATION_TIMEOUT_SECONDS, Session, command, single
from tollhouse_admin.names import named
from tollhouse_admin.output import Format, write_csv, write_json, write_table
from tollhouse_admin.prompts import destination, read_labels, read_prompt, user_turn
from tollhouse_admin.rendering import Cell, as_json
from tollhouse_admin.scopes import Department, Project, Tenant, chosen_project

app = single("Embed texts.")

DEFAULT_TIER = "embedding"
SHOWN_VALUES = 4


@command(app, None, GENERATE, as_caller=True, timeout_seconds=GENERATION_TIMEOUT_SECONDS)
def embed(
    session: Session,
    text: Annotated[list[str], typer.Argument(metavar="TEXT...", help="What to embed; - reads it from stdin.")],
    *,
    tier: Annotated[
        str | None,
        typer.Option(metavar="TIER", callback=named, autocompletion=complete_tiers, help="Tier; embedding by default."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", callback=named, autocompletion=complete_models, help="Model or alias, not a tier."
        ),
    ] = None,
    dimensions: Annotated[int | None, typer.Option(min=1, metavar="N", help="Length of the vectors.")] = None,
    task_type: Annotated[str | None, typer.Option(metavar="TYPE", help="Such as retrieval-query.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Label for chargeback.")] = None,
    project: Project = None,
    department: Department = None,
    tenant: Tenant = None,
) -> None:
    """Embed one or more texts; the vectors are whole in JSON and CSV, and shortened in a table."""
    where = destination(tier, model, default=DEFAULT_TIER)
    task = task_type.upper().replace("-", "_") if task_type else None
    request = generation_pb2.EmbedContentRequest(
        requests=[
            generation_pb2.EmbedContentItem(
                content=user_turn(read_prompt(each)), task_type=task, output_dimensionality=dimensions
            )
            for each in text
        ],
        parent=chosen_project(session, project, department, tenant),
        request_id=session.options.request_id or str(uuid4()),
        labels=read_labels(label or []),
        tier=where.tier,
        model=where.model,
    )
    response = session.connection.call(session.connection.stub(GenerationServiceStub).EmbedContent, request)
    _show(session.options.output, response)


def _show(form: Format, response: generation_pb2.EmbedContentResponse) -> None:
    if form is Format.JSON:
        write_json(as_json(response))
        return
    embeddings = list(response.embeddings) or [response.embedding]
    shown = None if form is Format.CSV else SHOWN_VALUES
    rows: list[list[Cell]] = [
        [index, len(embedding.values), " ".join(repr(value) for value in embedding.values[:shown])]
        for index, embedding in enumerate(embeddings)
    ]
    titles = ["index", "dimensions", "values"]
    write_csv(titles, rows) if form is Format.CSV else write_table(titles, rows)
    show_outcome(response.outcome)
