"""What the protos' rules say of single requests, said of entries: evaluated as CEL they would take minutes for a tree.

A test holds that both say the same.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from tollhouse.admin.v1 import trees_pb2 as pb

from tollhouse_server.api.trees.entries import SECTIONS, entries_of, key_of, place
from tollhouse_server.errors import FieldViolation, InvalidRequest

_ID: Final = re.compile(r"[a-z][a-z0-9-]{1,62}")
_SELECTOR: Final = re.compile(r"(tiers|models)/[a-zA-Z0-9][a-zA-Z0-9._-]{0,99}")
_NODE: Final = r"tenants/[a-z][a-z0-9-]{1,62}(/departments/[a-z][a-z0-9-]{1,62}(/projects/[a-z][a-z0-9-]{1,62}%s)?)?"
_GRANTED: Final = re.compile("platform|" + _NODE % "")
_LIMITED: Final = re.compile(_NODE % "(/apiKeys/[a-z2-7]{12})?")
_ROLE: Final = re.compile(r"(tenants/[a-z][a-z0-9-]{1,62}/)?roles/[a-z][a-z0-9-]{1,62}")
_PERMISSION: Final = re.compile(r"[a-z][A-Za-z]{1,62}\.[a-z][A-Za-z]{1,62}")

_LONGEST: Final[Mapping[str, int]] = {
    "display_name": 200,
    "description": 500,
    "cost_centre": 64,
    "time_zone": 64,
    "email": 254,
    "issuer": 512,
    "subject": 255,
}
_IDS: Final = frozenset({"id", "parent", "owner", "department", "principal", "group"})
_PATTERNS: Final[Mapping[tuple[str, str], re.Pattern[str]]] = {
    ("TreeLimit", "selector"): _SELECTOR,
    ("TreeLimit", "scope"): _LIMITED,
    ("TreeRoleGrant", "scope"): _GRANTED,
    ("TreeRoleGrant", "role"): _ROLE,
}
_REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {"TreeTenant": (), "TreeRoleGrant": ("role", "scope")}
"""What an entry is nothing without; where nothing else is said, its id."""

_MOST_THRESHOLDS: Final = 10
_MOST_PERCENT: Final = 1000
_MOST_PERMISSIONS: Final = 500


def check_entries(tree: pb.Tree) -> None:
    """Return if every value in a tree may be written so; whether they go together the acts find.

    Raises:
        InvalidRequest: each field that is wrong, and why.
    """
    violations = tuple(
        FieldViolation(path=f"{place(section, key_of(entry))}{path}", description=description)
        for section in SECTIONS
        for entry in entries_of(tree, section)
        for path, description in _defects(entry)
    )
    if violations:
        raise InvalidRequest(violations=violations)


def _defects(entry: Any) -> Iterator[tuple[str, str]]:
    for name in _REQUIRED.get(entry.DESCRIPTOR.name, ("id",)):
        if not getattr(entry, name):
            yield f".{name}", "is required"
    for field, value in entry.ListFields():
        name = field.name
        if name in _LONGEST and len(value) > _LONGEST[name]:
            yield f".{name}", f"must have at most {_LONGEST[name]} characters"
        elif name in _IDS and value and not _ID.fullmatch(value):
            yield f".{name}", "must be 2 to 63 lower-case letters, digits and hyphens, a letter first"
        elif (pattern := _PATTERNS.get((entry.DESCRIPTOR.name, name))) and not pattern.fullmatch(value):
            yield f".{name}", f"must match {pattern.pattern}"
        elif name in _LISTS:
            yield from ((f".{name}{place_in}", text) for place_in, text in _LISTS[name](value))


def _thresholds(value: pb.TreeThresholds) -> Iterator[tuple[str, str]]:
    if len(value.percents) > _MOST_THRESHOLDS:
        yield "", f"must have at most {_MOST_THRESHOLDS} entries"
    if len(set(value.percents)) != len(value.percents):
        yield "", "must have each one once"
    for index, percent in enumerate(value.percents):
        if not 1 <= percent <= _MOST_PERCENT:
            yield f"[{index}]", f"must be from 1 to {_MOST_PERCENT}"


def _members(value: pb.TreeIds) -> Iterator[tuple[str, str]]:
    yield from _each(value, _ID)


def _permissions(value: pb.TreeIds) -> Iterator[tuple[str, str]]:
    if len(value.ids) > _MOST_PERMISSIONS:
        yield "", f"must have at most {_MOST_PERMISSIONS} entries"
    yield from _each(value, _PERMISSION)


def _each(value: pb.TreeIds, pattern: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    if len(set(value.ids)) != len(value.ids):
        yield "", "must have each one once"
    for index, one in enumerate(value.ids):
        if not pattern.fullmatch(one):
            yield f"[{index}]", f"must match {pattern.pattern}"


_LISTS: Final[Mapping[str, Callable[[Any], Iterator[tuple[str, str]]]]] = {
    "thresholds": _thresholds,
    "members": _members,
    "permissions": _permissions,
}
