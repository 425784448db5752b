"""What the commands about models of the catalogue take, and how models become messages."""

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp
from tollhouse.admin.v1 import models_pb2 as pb
from tollhouse.admin.v1.models_pb2_grpc import ModelServiceStub
from tollhouse.v1 import catalog_pb2, generation_pb2

from tollhouse_admin.account_options import Upstream
from tollhouse_admin.amounts import parse_count, parse_moment
from tollhouse_admin.catalog import complete_models
from tollhouse_admin.command import Session
from tollhouse_admin.names import full_name, named
from tollhouse_admin.output import Layout
from tollhouse_admin.rendering import enum_number
from tollhouse_admin.resource import Kind


class Capability(StrEnum):
    """What a model can do."""

    GENERATE_CONTENT = "generate-content"
    STREAM_GENERATE_CONTENT = "stream-generate-content"
    COUNT_TOKENS = "count-tokens"
    EMBED_CONTENT = "embed-content"
    IMAGE_INPUT = "image-input"
    AUDIO_INPUT = "audio-input"
    VIDEO_INPUT = "video-input"
    DOCUMENT_INPUT = "document-input"
    IMAGE_OUTPUT = "image-output"
    AUDIO_OUTPUT = "audio-output"
    FUNCTION_CALLING = "function-calling"
    STRUCTURED_OUTPUT = "structured-output"
    THINKING = "thinking"
    CONTEXT_CACHING = "context-caching"
    BATCH = "batch"


class Origin(StrEnum):
    """Where an entry of the catalogue comes from."""

    PACKAGED = "packaged"
    EDITED = "edited"


class Clearable(StrEnum):
    """What can be said of a model no more."""

    SHUTDOWN_TIME = "shutdown-time"
    NOTICE_TIME = "notice-time"
    SUCCESSOR = "successor"
    TOOL_PROMPT_TOKENS = "tool-prompt-tokens"


_WHEN = "a date, a moment such as 2027-03-01T12:00Z, a span from now such as 90d, or now"

ModelId = Annotated[
    str, typer.Argument(metavar="MODEL", autocompletion=complete_models, help="Id or name of the model.")
]
NewModelId = Annotated[str, typer.Argument(metavar="MODEL", help="Its id, as its upstream calls it.")]
Upstreams = Annotated[
    list[Upstream] | None, typer.Option("--upstream", help="What can serve it; all of them, repeatable.")
]
Capabilities = Annotated[
    list[Capability] | None, typer.Option("--capability", help="What it can do; all of it, repeatable.")
]
InputTokens = Annotated[
    str | None, typer.Option("--input-tokens", metavar="N", help="Most tokens of a prompt, such as 8192 or 1M.")
]
OutputTokens = Annotated[
    str | None, typer.Option("--output-tokens", metavar="N", help="Most tokens of an answer, thinking included.")
]
Images = Annotated[int | None, typer.Option(min=0, metavar="N", help="Most images in one answer.")]
GroundingQueries = Annotated[
    int | None, typer.Option(min=0, metavar="N", help="Most searches to hold money for in one call.")
]
ToolPromptTokens = Annotated[
    str | None,
    typer.Option(metavar="N", help="Most tokens that the upstream's own tools add; unknown: a whole context is held."),
]
Shutdown = Annotated[
    str | None, typer.Option("--shutdown", metavar="WHEN", help=f"From when on calls are refused: {_WHEN}.")
]
Notice = Annotated[
    str | None,
    typer.Option(metavar="WHEN", help="From when on callers are told of its shutdown; absent: 30 days before."),
]
Successor = Annotated[
    str | None,
    typer.Option(metavar="MODEL", callback=named, autocompletion=complete_models, help="Model that takes its place."),
]
Source = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Where its limits and dates are published: a URL or a sentence.")
]


def stub(session: Session) -> ModelServiceStub:
    """Return the stub of the catalogue's administration."""
    return session.connection.stub(ModelServiceStub)


def _read_model(session: Session, name: str) -> pb.Model:
    return session.connection.call(stub(session).GetModel, pb.GetModelRequest(name=name))


def _read_alias(session: Session, name: str) -> pb.ModelAlias:
    return session.connection.call(stub(session).GetAlias, pb.GetAliasRequest(name=name))


def _alias_ids(model: pb.Model) -> str:
    return ", ".join(alias.name.removeprefix("aliases/") for alias in model.aliases)


MODEL = Kind(
    Layout(
        [
            *("name", "display_name", "upstreams", "input_token_limit", "output_token_limit", "shutdown_time"),
            *("successor", "origin", "etag", "update_time", "source"),
            ("aliases", _alias_ids),
        ]
    ),
    _read_model,
)
ALIAS = Kind(Layout(["name", "model", "shutdown_time", "origin", "etag", "update_time"]), _read_alias)


def model_name(typed: str) -> str:
    """Return the full name of a model."""
    return full_name(typed, "models")


def moment(typed: str) -> Timestamp:
    """Return a moment typed as a date, a time, a span from now, or `now`.

    Raises:
        Failure: it is none of them.
    """
    return parse_moment("0s" if typed == "now" else typed, now=datetime.now(UTC), past=False)


def tokens(typed: str | None) -> int | None:
    """Return a number of tokens, None for none typed.

    Raises:
        Failure: it is not a count.
    """
    return None if typed is None else parse_count(typed)


def upstream_numbers(upstreams: Iterable[Upstream]) -> list["generation_pb2.UpstreamKind.ValueType"]:
    """Return kinds of upstream as the server has them, each once."""
    kind = generation_pb2.UpstreamKind
    return [kind.ValueType(enum_number(kind.DESCRIPTOR, one.value)) for one in dict.fromkeys(upstreams)]


def capability_numbers(capabilities: Iterable[Capability]) -> list["catalog_pb2.Capability.ValueType"]:
    """Return capabilities as the server has them, each once."""
    kind = catalog_pb2.Capability
    return [kind.ValueType(enum_number(kind.DESCRIPTOR, one.value)) for one in dict.fromkeys(capabilities)]


def origin_number(origin: Origin | None) -> "pb.CatalogueOrigin.ValueType":
    """Return an origin as the server has it, unspecified for any."""
    if origin is None:
        return pb.CATALOGUE_ORIGIN_UNSPECIFIED
    return pb.CatalogueOrigin.ValueType(enum_number(pb.CatalogueOrigin.DESCRIPTOR, origin.value))
