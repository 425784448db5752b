"""`tollhouse generate`: send a prompt and see the answer, its price and the way it took."""

import sys
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer
from google.protobuf.struct_pb2 import Value
from tollhouse.v1 import content_pb2, generation_pb2
from tollhouse.v1.generation_pb2_grpc import GenerationServiceStub

from tollhouse_admin.answers import AnswerWriter, answer_text, compact_json, outcome_row, show_outcome
from tollhouse_admin.catalog import complete_models, complete_tiers
from tollhouse_admin.command import GENERATE, GENERATION_TIMEOUT_SECONDS, Session, command, single
from tollhouse_admin.names import named
from tollhouse_admin.output import Format, note, write_csv, write_json
from tollhouse_admin.prompts import (
    destination,
    instruction,
    read_labels,
    read_prompt,
    read_schema,
    read_tools,
    user_turn,
)
from tollhouse_admin.rendering import as_json
from tollhouse_admin.scopes import Department, Project, Tenant, chosen_project

app = single("Send a prompt to a tier or model.")

Prompt = Annotated[str, typer.Argument(metavar="PROMPT", help="The prompt; - reads it from stdin.")]
Tier = Annotated[
    str | None,
    typer.Option(
        metavar="TIER", callback=named, autocompletion=complete_tiers, help="Tier to route by; flash by default."
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL", callback=named, autocompletion=complete_models, help="Model or alias instead of a tier."
    ),
]
Readable = typer.Option(metavar="FILE", exists=True, dir_okay=False)

DEFAULT_TIER = "flash"


@command(app, None, GENERATE, as_caller=True, timeout_seconds=GENERATION_TIMEOUT_SECONDS)
def generate(
    session: Session,
    prompt: Prompt,
    *,
    tier: Tier = None,
    model: Model = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="System instruction.")] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", exists=True, dir_okay=False, help="Image or other media; repeatable."),
    ] = None,
    json_schema: Annotated[Path | None, typer.Option(metavar="FILE", help="Answer in this JSON shape.")] = None,
    tools: Annotated[Path | None, typer.Option(metavar="FILE", help="Tools as Gemini's JSON.")] = None,
    max_output_tokens: Annotated[int | None, typer.Option(min=1, metavar="N", help="Longest answer.")] = None,
    thinking_budget: Annotated[int | None, typer.Option(min=-1, metavar="N", help="Tokens to think with.")] = None,
    thinking_level: Annotated[str | None, typer.Option(metavar="LEVEL", help="low, medium or high.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, metavar="T", help="Randomness.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Seed of the randomness.")] = None,
    modality: Annotated[list[str] | None, typer.Option(metavar="KIND", help="text, image or audio out.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Label for chargeback.")] = None,
    stream: Annotated[bool | None, typer.Option("--stream/--no-stream", help="As it comes, or whole.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Write images of the answer to files here.")] = None,
    project: Project = None,
    department: Department = None,
    tenant: Tenant = None,
) -> None:
    """Send a prompt and show the answer; usage, cost, route and receipt follow on stderr."""
    where = destination(tier, model, default=DEFAULT_TIER)
    config = generation_config(
        schema=read_schema(json_schema),
        thinking=_thinking(thinking_budget, thinking_level),
        modalities=modality or [],
        max_output_tokens=max_output_tokens,
        temperature=temperature,
        seed=seed,
    )
    request = generation_pb2.GenerateContentRequest(
        contents=[user_turn(read_prompt(prompt), file or [])],
        system_instruction=instruction(system),
        tools=read_tools(tools),
        generation_config=config,
        parent=chosen_project(session, project, department, tenant),
        request_id=session.options.request_id or str(uuid4()),
        labels=read_labels(label or []),
        tier=where.tier,
        model=where.model,
    )
    try:
        _answer(session, request, stream=stream, out=out)
    except KeyboardInterrupt:
        note(f"cut off; what was produced is charged: tollhouse usage receipt {request.request_id}")
        raise


def generation_config(
    *,
    schema: Value | None,
    thinking: content_pb2.ThinkingConfig | None,
    modalities: list[str],
    max_output_tokens: int | None,
    temperature: float | None,
    seed: int | None,
) -> content_pb2.GenerationConfig | None:
    """Return the settings that were given, and None when none was: absent means the model's own."""
    config = content_pb2.GenerationConfig(
        response_mime_type="application/json" if schema is not None else None,
        response_json_schema=schema,
        thinking_config=thinking,
        response_modalities=[each.upper() for each in modalities],
        max_output_tokens=max_output_tokens,
        temperature=temperature,
        seed=seed,
    )
    return config if config.ByteSize() else None


def _thinking(budget: int | None, level: str | None) -> content_pb2.ThinkingConfig | None:
    if budget is None and level is None:
        return None
    return content_pb2.ThinkingConfig(thinking_budget=budget, thinking_level=level.upper() if level else None)


def _answer(
    session: Session, request: generation_pb2.GenerateContentRequest, *, stream: bool | None, out: Path | None
) -> None:
    stub = session.connection.stub(GenerationServiceStub)
    form = session.options.output
    # A table is read by a person as it comes; JSON and CSV are read by programs, whole, unless a stream is asked for.
    if stream if stream is not None else form is Format.TABLE:
        responses = session.connection.stream(stub.StreamGenerateContent, request)
    else:
        responses = iter([session.connection.call(stub.GenerateContent, request)])
    writer = AnswerWriter(directory=out, stem=f"tollhouse-{request.request_id[:8]}")
    if form is Format.TABLE:
        last = generation_pb2.GenerateContentResponse()
        for response in responses:
            writer.write(response)
            last = response
        writer.finish()
        show_outcome(last.outcome)
    elif form is Format.CSV:
        _write_csv(list(responses))
    else:
        for response in responses:
            sys.stdout.write(compact_json(response) + "\n") if stream else write_json(as_json(response))


def _write_csv(responses: list[generation_pb2.GenerateContentResponse]) -> None:
    row = {"text": answer_text(responses), **outcome_row(responses[-1].outcome)} if responses else {}
    write_csv(list(row), [list(row.values())])
