"""Catalogue files of an administrator: what one would change, and the catalogue in force as such a file; pure."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tollhouse_server.routing.catalogue_file import CatalogueFile, ModelEntry
from tollhouse_server.routing.catalogue_text import catalogue_toml


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryChange:
    """One entry that an import adds (`before` is None) or changes; fields as a file has them."""

    name: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any]

    def fields(self) -> Iterator[tuple[str, str, str]]:
        """Yield every field that differs with its old and new value as JSON, empty for none."""
        before = self.before or {}
        for field in {**before, **self.after}:
            old, new = before.get(field), self.after.get(field)
            if old != new:
                yield field, _json(old), _json(new)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What an import changes: entries by name in the order in which they are written, and how many stay as they are."""

    changes: tuple[EntryChange, ...]
    unchanged_count: int


def difference(current: CatalogueFile, edits: CatalogueFile) -> Difference:
    """Return what differs where a file's entries come over the catalogue; what the file does not name stays."""
    before, after = dict(_entries(current)), dict(_entries(edits))
    changes = tuple(
        EntryChange(name=name, before=before.get(name), after=values)
        for name, values in after.items()
        if before.get(name) != values
    )
    return Difference(changes=changes, unchanged_count=len(after) - len(changes))


def etag_of(catalogue: CatalogueFile) -> str:
    """Return what tells this state of the whole catalogue from every other one."""
    return hashlib.sha256(catalogue_toml(catalogue).encode()).hexdigest()[:32]


def _entries(catalogue: CatalogueFile) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every entry with its name; an alias is one of its own, as it may pass from model to model."""
    for kind, versions in sorted(catalogue.api_versions.items()):
        for method, version in sorted(versions.items()):
            yield f"apiVersions/{kind.value}/{method}", {"api_version": version}
    for model in sorted(catalogue.models, key=_model):
        yield f"models/{model.model}", model.model_dump(mode="json", exclude={"aliases"})
    for alias, values in sorted(
        (alias.alias, {"model": model.model, **alias.model_dump(mode="json")})
        for model in catalogue.models
        for alias in model.aliases
    ):
        yield f"aliases/{alias}", values
    for tier in sorted(catalogue.tiers, key=lambda one: one.tier):
        yield f"tiers/{tier.tier}", tier.model_dump(mode="json")


def _model(entry: ModelEntry) -> str:
    return entry.model


def _json(value: Any) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False)
