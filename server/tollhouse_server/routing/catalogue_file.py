"""Catalogue files (TOML): tiers, models, aliases and API versions, checked whole before any of it is used.

The one source of what a model, an alias or a tier may be, however it comes in.
"""

import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from tollhouse_server.errors import FieldViolation, InvalidRequest
from tollhouse_server.routing.complexity import AUTO
from tollhouse_server.routing.models import Capability
from tollhouse_server.upstream.protocol import UpstreamKind

_Id = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.\-]{0,127}$")]
_TierId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.\-]{0,62}$")]
# PostgreSQL has no NUL in texts.
_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500, pattern=r"^[^\x00]+$")]
_Tokens = Annotated[int, Field(ge=0, le=2**31, strict=True)]
# It becomes a part of the upstream's address.
_ApiVersion = Annotated[str, Field(pattern=r"^v[0-9][a-z0-9]{0,30}$")]
_Method = Literal["*", "generateContent", "streamGenerateContent", "countTokens", "embedContent", "batchEmbedContents"]

_GENERATES: Final = frozenset({Capability.GENERATE_CONTENT, Capability.STREAM_GENERATE_CONTENT})


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_Entry = TypeVar("_Entry", bound=_Part)


def _not_auto(tier: str) -> str:
    if tier == AUTO:
        raise ValueError("stands for the tier that a request's complexity leads to")
    return tier


class AliasEntry(_Part):
    """Another name of the model it stands with."""

    alias: _Id
    shutdown_at: AwareDatetime | None = None


class ModelEntry(_Part):
    """A model."""

    model: _Id
    display_name: _Text
    upstreams: Annotated[tuple[UpstreamKind, ...], Field(min_length=1)]
    capabilities: tuple[Capability, ...]
    input_token_limit: Annotated[_Tokens, Field(gt=0)]
    output_token_limit: _Tokens
    images_per_answer: Annotated[_Tokens, Field(le=100)] = 0
    grounding_queries: Annotated[_Tokens, Field(le=1_000)] = 0
    tool_prompt_tokens: _Tokens | None = None
    aliases: tuple[AliasEntry, ...] = ()
    shutdown_at: AwareDatetime | None = None
    notice_at: AwareDatetime | None = None
    successor: _Id | None = None
    source: _Text


class TargetEntry(_Part):
    """One choice of a tier; without a rank it comes after those before it."""

    model: _Id
    account_id: str = ""
    region: str = ""
    rank: Annotated[int, Field(ge=0, le=1_000, strict=True)] | None = None
    weight: Annotated[int, Field(ge=1, le=1_000, strict=True)] = 1


class TierEntry(_Part):
    """A tier."""

    tier: Annotated[_TierId, AfterValidator(_not_auto)]
    display_name: _Text
    description: _Text
    targets: Annotated[tuple[TargetEntry, ...], Field(min_length=1, max_length=50)]


class CatalogueFile(_Part):
    """A catalogue file without defects; `revision` is that of a packaged one."""

    revision: Annotated[int, Field(ge=1, strict=True)] | None = None
    api_versions: Mapping[UpstreamKind, Mapping[_Method, _ApiVersion]] = Field(default_factory=dict)
    tiers: tuple[TierEntry, ...] = ()
    models: tuple[ModelEntry, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenNames:
    """The names that a catalogue has already."""

    models: Collection[str] = ()
    aliases: Collection[str] = ()


def parse_catalogue(text: str) -> CatalogueFile:
    """Parse a catalogue file that is a whole catalogue; pure.

    Raises:
        InvalidRequest: it has defects, each named by the path of its field; nothing of it is used.
    """
    parsed = _parse(text)
    _refuse([*_incomplete(parsed), *_repeated(parsed), *_dangling(parsed, ())])
    return parsed


def parse_edits(text: str, taken: TakenNames) -> CatalogueFile:
    """Parse a catalogue file whose entries come over those of a catalogue that has the names in `taken`; pure.

    Raises:
        InvalidRequest: it has defects, each named by the path of its field; nothing of it is used.
    """
    parsed = _parse(text)
    _refuse([*_repeated(parsed), *_dangling(parsed, taken.models), *_clashes(parsed, taken)])
    return parsed


def checked(kind: type[_Entry], values: Mapping[str, Any]) -> _Entry:
    """Return one entry with these values.

    Raises:
        InvalidRequest: it has defects, each named by the path of its field.
    """
    try:
        entry = kind.model_validate(values)
    except ValidationError as error:
        raise _refused(_defects_found(error)) from None
    if isinstance(entry, ModelEntry):
        _refuse(list(_contradictions(entry)))
    return entry


def packaged_catalogue() -> CatalogueFile:
    """Return the catalogue that comes with this version of Tollhouse."""
    return parse_catalogue(files(__package__).joinpath("catalogue.toml").read_text(encoding="utf-8"))


def _parse(text: str) -> CatalogueFile:
    try:
        parsed = CatalogueFile.model_validate(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise _refused([("", f"is not TOML: {error}")]) from None
    except ValidationError as error:
        raise _refused(_defects_found(error)) from None
    _refuse(
        [
            (f"models[{index}].{path}", what)
            for index, one in enumerate(parsed.models)
            for path, what in _contradictions(one)
        ]
    )
    return parsed


def _refuse(defects: list[tuple[str, str]]) -> None:
    if defects:
        raise _refused(defects)


def _refused(defects: list[tuple[str, str]]) -> InvalidRequest:
    return InvalidRequest(violations=tuple(FieldViolation(path=path, description=what) for path, what in defects))


def _defects_found(error: ValidationError) -> list[tuple[str, str]]:
    return [(_path(defect["loc"]), defect["msg"]) for defect in error.errors()]


def _path(location: tuple[int | str, ...]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location).lstrip(".")


def _contradictions(entry: ModelEntry) -> Iterator[tuple[str, str]]:
    """Yield what the fields of a model, each right by itself, do not let stand together."""
    for name in ("upstreams", "capabilities"):
        listed = getattr(entry, name)
        if len(listed) > len(set(listed)):
            yield name, "names something twice"
    if entry.output_token_limit == 0 and not _GENERATES.isdisjoint(entry.capabilities):
        yield "output_token_limit", "must be more than 0 for a model that generates"
    if entry.images_per_answer == 0 and Capability.IMAGE_OUTPUT in entry.capabilities:
        yield "images_per_answer", "must be more than 0 for a model with IMAGE_OUTPUT"
    if entry.successor == entry.model:
        yield "successor", "is the model itself"
    if entry.notice_at is not None and (entry.shutdown_at is None or entry.notice_at >= entry.shutdown_at):
        yield "notice_at", "must come before shutdown_at"


def _incomplete(parsed: CatalogueFile) -> Iterator[tuple[str, str]]:
    if parsed.revision is None:
        yield "revision", "is missing"
    if not parsed.models:
        yield "models", "is missing"
    for kind in UpstreamKind:
        if "*" not in parsed.api_versions.get(kind, {}):
            yield f"api_versions.{kind}", 'has no version for "*"'


def _repeated(parsed: CatalogueFile) -> Iterator[tuple[str, str]]:
    models = [(f"models[{index}].model", one.model) for index, one in enumerate(parsed.models)]
    tiers = [(f"tiers[{index}].tier", one.tier) for index, one in enumerate(parsed.tiers)]
    for names in ([*models, *_aliases(parsed)], tiers):
        seen: dict[str, str] = {}
        for path, name in names:
            if (first := seen.setdefault(name, path)) != path:
                yield path, f"{name} is there already, as {first}"


def _aliases(parsed: CatalogueFile) -> Iterator[tuple[str, str]]:
    for index, one in enumerate(parsed.models):
        for place, other in enumerate(one.aliases):
            yield f"models[{index}].aliases[{place}].alias", other.alias


def _dangling(parsed: CatalogueFile, elsewhere: Collection[str]) -> Iterator[tuple[str, str]]:
    known = {one.model for one in parsed.models}
    named = [
        (f"tiers[{index}].targets[{position}].model", target.model)
        for index, tier in enumerate(parsed.tiers)
        for position, target in enumerate(tier.targets)
    ]
    named += [(f"models[{index}].successor", one.successor) for index, one in enumerate(parsed.models) if one.successor]
    where = "nor in the catalogue" if elsewhere else ""
    for path, model in named:
        if model not in known and model not in elsewhere:
            yield path, f"{model} is not in this file {where}".rstrip()


def _clashes(parsed: CatalogueFile, taken: TakenNames) -> Iterator[tuple[str, str]]:
    for index, one in enumerate(parsed.models):
        if one.model in taken.aliases:
            yield f"models[{index}].model", f"{one.model} is an alias in the catalogue; delete or rename that first"
    for path, alias in _aliases(parsed):
        if alias in taken.models:
            yield path, f"{alias} is a model of the catalogue"
