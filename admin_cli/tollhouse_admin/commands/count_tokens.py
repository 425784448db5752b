"""`tollhouse count-tokens`: count the tokens of a prompt with Google's own tokeniser."""

from pathlib import Path
from typing import Annotated

import typer
from tollhouse.v1 import generation_pb2
from tollhouse.v1.generation_pb2_grpc import GenerationServiceStub

from tollhouse_admin.catalog import complete_models, complete_tiers
from tollhouse_admin.command import READ, Session, command, single
from tollhouse_admin.names import named
from tollhouse_admin.output import Format, Layout, show_list, show_one
from tollhouse_admin.prompts import destination, instruction, read_prompt, read_tools, user_turn
from tollhouse_admin.scopes import Department, Project, Tenant, chosen_project

app = single("Count the tokens of a prompt.")

DEFAULT_TIER = "flash"
LAYOUT = Layout(["total_tokens", "cached_content_token_count", "outcome.route.model"])


@command(app, None, READ, as_caller=True)
def count_tokens(
    session: Session,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="The prompt; - reads it from stdin.")],
    *,
    tier: Annotated[
        str | None,
        typer.Option(metavar="TIER", callback=named, autocompletion=complete_tiers, help="Tier; flash by default."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", callback=named, autocompletion=complete_models, help="Model or alias, not a tier."
        ),
    ] = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="System instruction.")] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", exists=True, dir_okay=False, help="Image or other media; repeatable."),
    ] = None,
    tools: Annotated[Path | None, typer.Option(metavar="FILE", help="Tools as Gemini's JSON.")] = None,
    project: Project = None,
    department: Department = None,
    tenant: Tenant = None,
) -> None:
    """Count the tokens of a prompt; free of charge."""
    where = destination(tier, model, default=DEFAULT_TIER)
    request = generation_pb2.CountTokensRequest(
        contents=[user_turn(read_prompt(prompt), file or [])],
        system_instruction=instruction(system),
        tools=read_tools(tools),
        parent=chosen_project(session, project, department, tenant),
        tier=where.tier,
        model=where.model,
    )
    response = session.connection.call(session.connection.stub(GenerationServiceStub).CountTokens, request)
    # A person wants the number, a program the whole answer.
    if session.options.output is Format.JSON:
        show_one(Format.JSON, LAYOUT, response)
    else:
        show_list(session.options.output, LAYOUT, [response])
