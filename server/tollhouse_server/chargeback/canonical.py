"""A statement as canonical JSON, the text that is sealed, and back: the same statement is the same bytes every time.

Names are those of the dataclasses, by the alphabet, without blanks; money is integer nano-dollars; no number has a
fraction. Left out is what is not of the statement itself: when it was made, and its seal.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from functools import cache
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import orjson

from tollhouse_server.chargeback.statement import Seal, Statement
from tollhouse_server.names import DepartmentName, ProjectName, TenantName, parse_scope

VERSION: Final = "tollhouse.statement/1"
"""The member `version` of every statement: a text of another version is to be read by other rules."""

_AS_THEY_ARE: Final = frozenset({str, int, bool, type(None)})
_NOT_SEALED: Final = ("generated_at", "seal")


def canonical_json(statement: Statement) -> bytes:
    """Return the text that is sealed."""
    document = encoded(statement)
    for name in _NOT_SEALED:
        del document[name]
    document["version"] = VERSION
    try:
        return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        # Sums beyond 64 bits, of amounts that were entered wrongly: slower, the same text otherwise.
        return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(text: bytes) -> str:
    """Return the SHA-256 of a canonical text in hexadecimal."""
    return hashlib.sha256(text).hexdigest()


def signed_text(sha256: str, *, closed_at: datetime, closed_by: str) -> bytes:
    """Return what is signed for a sealed statement: its digest, and when and by whom its month was closed."""
    return "\n".join((sha256, _text(closed_at), closed_by)).encode()


def statement_of(text: bytes, *, generated_at: datetime, seal: Seal | None) -> Statement:
    """Return the statement that a canonical text is of.

    Raises:
        ValueError: it is of another version.
    """
    # Not by orjson, which reads numbers beyond 64 bits as fractions.
    document = json.loads(text)
    if document.pop("version") != VERSION:
        raise ValueError("a statement of another version")
    values = _members(document, Statement)
    return Statement(**values, generated_at=generated_at, seal=seal)


def encoded(value: Any) -> Any:
    """Return a value of a statement as JSON has it."""
    # A large month has millions of these: they are told first, and the members of a class are looked up once.
    kind: Any = type(value)
    if kind in _AS_THEY_ARE:
        return value
    if isinstance(value, Mapping):
        return {str(key): encoded(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [encoded(each) for each in value]
    members = _names_of(kind)
    return {name: encoded(getattr(value, name)) for name in members} if members else _text(value)


@cache
def _names_of(kind: type) -> tuple[str, ...]:
    """Return the members of a class that is written as an object; none of one that is written as a text."""
    if not is_dataclass(kind) or issubclass(kind, TenantName | DepartmentName | ProjectName):
        return ()
    return tuple(field.name for field in fields(kind))


def _text(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, date):
        return value.isoformat()
    return str(value) if isinstance(value, TenantName | DepartmentName | ProjectName | StrEnum) else value


def _members(document: Mapping[str, Any], kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {name: _decoded(value, hints[name]) for name, value in document.items() if name in hints}


def _decoded(value: Any, kind: Any) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if set(arguments) == {TenantName, DepartmentName, ProjectName}:
            return parse_scope(value)
        inner = next(each for each in arguments if each is not type(None))
        return None if value is None else _decoded(value, inner)
    if origin is tuple:
        return tuple(_decoded(each, arguments[0]) for each in value)
    if origin is not None:
        return {_decoded(key, arguments[0]): _decoded(each, arguments[1]) for key, each in value.items()}
    return _plain(value, kind)


def _plain(value: Any, kind: type) -> Any:
    if is_dataclass(kind):
        return kind(**_members(value, kind))
    if kind in (datetime, date):
        return kind.fromisoformat(value)
    return kind(value) if issubclass(kind, StrEnum) else value
