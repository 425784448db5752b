"""Models and aliases of the catalogue on the wire and in here."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from tollhouse.admin.v1 import models_pb2 as pb
from tollhouse.v1 import catalog_pb2

from tollhouse_server.api.routing_messages import KIND_NUMBERS, KINDS
from tollhouse_server.api.values import etag, moment_of, timestamp
from tollhouse_server.errors import FieldViolation, InvalidRequest
from tollhouse_server.names import AliasName, ModelName
from tollhouse_server.routing.catalogue_import import EntryChange
from tollhouse_server.routing.model_store import Origin
from tollhouse_server.routing.tables import ModelAliasRow, ModelRow
from tollhouse_server.upstream.protocol import UpstreamKind

_CAPABILITY: Final = "CAPABILITY_"
_MODEL: Final = "models/"

_RENAMED: Final = {"shutdown_time": "shutdown_at", "notice_time": "notice_at"}
_AS_THEY_ARE: Final = (
    *("display_name", "input_token_limit", "output_token_limit", "images_per_answer", "grounding_queries", "source"),
)
CHANGEABLE: Final = (*_AS_THEY_ARE, *_RENAMED, "upstreams", "capabilities", "tool_prompt_tokens", "successor")
ALIAS_CHANGEABLE: Final = ("model", "shutdown_time")

_READERS: Final[Mapping[str, Callable[[pb.Model], Any]]] = {
    "upstreams": lambda model: tuple(KINDS[kind] for kind in model.upstreams),
    "capabilities": lambda model: tuple(
        catalog_pb2.Capability.Name(one).removeprefix(_CAPABILITY) for one in model.capabilities
    ),
    "tool_prompt_tokens": lambda model: model.tool_prompt_tokens if model.HasField("tool_prompt_tokens") else None,
    "successor": lambda model: model.successor.removeprefix(_MODEL) or None,
}


def model_values(model: pb.Model, fields: Iterable[str]) -> dict[str, Any]:
    """Return these fields of a model, named and written as in a catalogue file; one that is not set is None or empty.

    Raises:
        InvalidRequest: a moment is beyond what a calendar holds.
    """
    return dict(_value(model, field) for field in fields)


def _value(model: pb.Model, field: str) -> tuple[str, Any]:
    if field in _RENAMED:
        is_set = model.HasField(field)  # type: ignore[arg-type]
        return _RENAMED[field], moment_of(getattr(model, field), f"model.{field}") if is_set else None
    return field, _READERS[field](model) if field in _READERS else getattr(model, field)


def alias_values(alias: pb.ModelAlias, fields: Iterable[str]) -> dict[str, Any]:
    """Return these fields of an alias as its row has them.

    Raises:
        InvalidRequest: no model is named, or a moment is beyond what a calendar holds.
    """
    values: dict[str, Any] = {}
    if "model" in fields:
        values["model"] = ModelName.parse(alias.model, "alias.model").model
    if "shutdown_time" in fields:
        is_set = alias.HasField("shutdown_time")
        values["shutdown_at"] = moment_of(alias.shutdown_time, "alias.shutdown_time") if is_set else None
    return values


@contextmanager
def named_as_in(resource: str) -> Iterator[None]:
    """Name the fields that are wrong as the request has them: `shutdown_at` of a file is `model.shutdown_time`."""
    try:
        yield
    except InvalidRequest as error:
        raise InvalidRequest(
            violations=tuple(
                FieldViolation(path=_renamed(resource, violation.path), description=violation.description)
                for violation in error.violations
            )
        ) from None


def _renamed(resource: str, path: str) -> str:
    if path.startswith(f"{resource}."):
        return path
    for field, column in _RENAMED.items():
        if path == column:
            return f"{resource}.{field}"
    return f"{resource}.{path}"


def model_message(row: ModelRow, aliases: Sequence[ModelAliasRow]) -> pb.Model:
    """Return the message of a model with its aliases."""
    return pb.Model(
        name=str(ModelName(row.model)),
        display_name=row.display_name,
        upstreams=[KIND_NUMBERS[UpstreamKind(kind)] for kind in row.upstreams],
        capabilities=[catalog_pb2.Capability.Value(f"{_CAPABILITY}{one}") for one in row.capabilities],
        input_token_limit=row.input_token_limit,
        output_token_limit=row.output_token_limit,
        images_per_answer=row.images_per_answer,
        grounding_queries=row.grounding_queries,
        tool_prompt_tokens=row.tool_prompt_tokens,
        shutdown_time=timestamp(row.shutdown_at),
        notice_time=timestamp(row.notice_at),
        successor=str(ModelName(row.successor)) if row.successor else "",
        source=row.source,
        aliases=map(alias_message, aliases),
        origin=_origin_number(row.origin),
        update_time=timestamp(row.updated_at),
        etag=etag(row.version),
    )


def alias_message(row: ModelAliasRow) -> pb.ModelAlias:
    """Return the message of an alias."""
    return pb.ModelAlias(
        name=str(AliasName(row.alias)),
        model=str(ModelName(row.model)),
        shutdown_time=timestamp(row.shutdown_at),
        origin=_origin_number(row.origin),
        update_time=timestamp(row.updated_at),
        etag=etag(row.version),
    )


def change_message(change: EntryChange) -> pb.CatalogueChange:
    """Return the message of an entry that an import adds or changes."""
    return pb.CatalogueChange(
        name=change.name,
        added=change.before is None,
        fields=[
            pb.CatalogueFieldChange(field=field, before=before, after=after) for field, before, after in change.fields()
        ],
    )


def origin_of(number: "pb.CatalogueOrigin.ValueType") -> Origin | None:
    """Return an origin that a request names, None for any."""
    name = pb.CatalogueOrigin.Name(number).removeprefix("CATALOGUE_ORIGIN_")
    return None if name == "UNSPECIFIED" else Origin(name)


def _origin_number(origin: str) -> "pb.CatalogueOrigin.ValueType":
    return pb.CatalogueOrigin.Value(f"CATALOGUE_ORIGIN_{origin}")
