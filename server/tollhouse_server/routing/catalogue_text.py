"""A catalogue written as the file that `catalogue_file.py` reads."""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from tollhouse_server.routing.catalogue_file import CatalogueFile

_HEAD = """\
# The catalogue of models as it was in force. Importing this file changes nothing, and importing it edited changes what
# was edited: `tollhouse catalogue import FILE`. What it does not name stays as it is.
"""


def catalogue_toml(catalogue: CatalogueFile) -> str:
    """Return a catalogue file that reads as `catalogue`; pure."""
    return "\n".join(_lines(catalogue)) + "\n"


def _lines(catalogue: CatalogueFile) -> Iterator[str]:
    yield _HEAD
    if catalogue.revision is not None:
        yield f"revision = {catalogue.revision}"
    for kind, versions in catalogue.api_versions.items():
        yield f"\n[api_versions.{kind.value}]"
        yield from (f"{_text(method)} = {_text(version)}" for method, version in versions.items())
    for name, entries in (("tiers", catalogue.tiers), ("models", catalogue.models)):
        for entry in entries:
            yield f"\n[[{name}]]"
            values = entry.model_dump(exclude_defaults=True)
            yield from (f"{field} = {_value(value)}" for field, value in values.items())


def _value(value: Any) -> str:
    """Return a value in TOML, which has no null: what is None is left out by who calls."""
    match value:
        case StrEnum():
            return _text(value.value)
        case str():
            return _text(value)
        case int():
            return str(value)
        case datetime():
            return value.isoformat()
        case Mapping():
            return "{ " + ", ".join(f"{key} = {_value(one)}" for key, one in value.items()) + " }"
        case list() | tuple():
            return "[" + ", ".join(map(_value, value)) + "]"
    raise TypeError(f"no value of a catalogue file: {type(value).__name__}")


def _text(text: str) -> str:
    # JSON's escapes are TOML's, but for DEL, which TOML does not let stand unescaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
