"""Catalogue files (TOML): tiers, models, aliases and API versions, checked whole before any of it is used."""

import tomllib
from importlib.resources import files
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from tollhouse_server.errors import FieldViolation, PriceFileInvalid
from tollhouse_server.routing.complexity import AUTO
from tollhouse_server.routing.models import Capability
from tollhouse_server.upstream.protocol import UpstreamKind

_Id = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.\-]{0,127}$")]
_Text = Annotated[str, Field(min_length=1, max_length=500)]
_Tokens = Annotated[int, Field(ge=0, le=2**31, strict=True)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


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

    tier: Annotated[_Id, AfterValidator(_not_auto)]
    display_name: _Text
    description: _Text
    targets: Annotated[tuple[TargetEntry, ...], Field(min_length=1)]


class CatalogueFile(_Part):
    """A catalogue file without defects."""

    revision: Annotated[int, Field(ge=1, strict=True)]
    api_versions: dict[UpstreamKind, dict[str, _Text]]
    tiers: tuple[TierEntry, ...]
    models: Annotated[tuple[ModelEntry, ...], Field(min_length=1)]


def parse_catalogue(text: str) -> CatalogueFile:
    """Parse a catalogue file; pure.

    Raises:
        PriceFileInvalid: it has defects, each named by the path of its field; nothing of it is used.
    """
    try:
        parsed = CatalogueFile.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise _refused(("", f"is not TOML: {error}")) from None
    except ValidationError as error:
        raise _refused(*((_path(defect["loc"]), defect["msg"]) for defect in error.errors())) from None
    defects = [*_duplicates(parsed), *_dangling(parsed)]
    if defects:
        raise _refused(*defects)
    return parsed


def packaged_catalogue() -> CatalogueFile:
    """Return the catalogue that comes with this version of Tollhouse."""
    return parse_catalogue(files(__package__).joinpath("catalogue.toml").read_text(encoding="utf-8"))


def _refused(*defects: tuple[str, str]) -> PriceFileInvalid:
    return PriceFileInvalid(violations=tuple(FieldViolation(path=path, description=what) for path, what in defects))


def _path(location: tuple[int | str, ...]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location).lstrip(".")


def _duplicates(parsed: CatalogueFile) -> list[tuple[str, str]]:
    models = [(f"models[{index}].model", one.model) for index, one in enumerate(parsed.models)]
    aliases = [
        (f"models[{index}].aliases", other.alias) for index, one in enumerate(parsed.models) for other in one.aliases
    ]
    tiers = [(f"tiers[{index}].tier", one.tier) for index, one in enumerate(parsed.tiers)]
    return [*_repeated([*models, *aliases]), *_repeated(tiers)]


def _repeated(names: list[tuple[str, str]]) -> list[tuple[str, str]]:
    seen: dict[str, str] = {}
    return [
        (path, f"{name} is there already, as {seen[name]}")
        for path, name in names
        if seen.setdefault(name, path) != path
    ]


def _dangling(parsed: CatalogueFile) -> list[tuple[str, str]]:
    known = {one.model for one in parsed.models}
    named = [
        (f"tiers[{index}].targets[{position}].model", target.model)
        for index, tier in enumerate(parsed.tiers)
        for position, target in enumerate(tier.targets)
    ]
    named += [(f"models[{index}].successor", one.successor) for index, one in enumerate(parsed.models) if one.successor]
    defects = [(path, f"{model} is not in this file") for path, model in named if model not in known]
    defects += [
        (f"api_versions.{kind}", 'has no version for "*"')
        for kind in UpstreamKind
        if "*" not in parsed.api_versions.get(kind, {})
    ]
    return defects
