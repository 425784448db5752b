"""Entries of a tree: which is which, what of one is said, and what differs between two. No database in sight."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

from tollhouse.admin.v1 import trees_pb2 as pb

from tollhouse_server.api.values import nanos_of
from tollhouse_server.errors import FieldViolation, InvalidRequest
from tollhouse_server.money import NANOS_PER_DOLLAR

Entry: TypeAlias = Any
"""A message `Tree*`."""

SECTIONS: Final[Mapping["pb.TreeSection.ValueType", str]] = {
    pb.TREE_SECTION_TENANT: "tenant",
    pb.TREE_SECTION_PRINCIPALS: "principals",
    pb.TREE_SECTION_GROUPS: "groups",
    pb.TREE_SECTION_ROLES: "roles",
    pb.TREE_SECTION_DEPARTMENTS: "departments",
    pb.TREE_SECTION_PROJECTS: "projects",
    pb.TREE_SECTION_ROLE_GRANTS: "role_grants",
    pb.TREE_SECTION_LIMITS: "limits",
}
"""The field of each section in a tree, in an order in which nothing needs what comes after it."""

WITHIN_DEPARTMENTS: Final = frozenset(
    {
        pb.TREE_SECTION_DEPARTMENTS,
        pb.TREE_SECTION_PROJECTS,
        pb.TREE_SECTION_ROLE_GRANTS,
        pb.TREE_SECTION_LIMITS,
    }
)
"""Sections that a part of the tree has too; the others belong to the tenant as a whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One field, in words, before and after."""

    field: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One entry that has to change: `wanted` is None for a deletion, `current` for a creation."""

    section: "pb.TreeSection.ValueType"
    key: str
    wanted: Entry | None
    current: Entry | None
    differences: tuple[Difference, ...]

    @property
    def fields(self) -> set[str]:
        """Return the names of the fields that differ."""
        return {one.field for one in self.differences}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What has to be done, in order, and how many entries are right already."""

    steps: tuple[Step, ...]
    unchanged_count: int


def entries_of(tree: pb.Tree, section: "pb.TreeSection.ValueType") -> list[Entry]:
    """Return the entries of one section."""
    if section == pb.TREE_SECTION_TENANT:
        return [tree.tenant] if tree.HasField("tenant") else []
    return list(getattr(tree, SECTIONS[section]))


def key_of(entry: Entry) -> str:
    """Return what an entry is known by within its section."""
    if isinstance(entry, pb.TreeTenant):
        return ""
    if isinstance(entry, pb.TreeRoleGrant):
        holder = f"principals/{entry.principal}" if entry.principal else f"groups/{entry.group}"
        return f"{holder} {entry.role} {entry.scope}"
    return str(entry.id)


def by_key(tree: pb.Tree, section: "pb.TreeSection.ValueType") -> dict[str, Entry]:
    """Return the entries of a section by their keys.

    Raises:
        InvalidRequest: two have the same.
    """
    found: dict[str, Entry] = {}
    for entry in entries_of(tree, section):
        key = key_of(entry)
        if key in found:
            raise InvalidRequest(violations=(FieldViolation(path=place(section, key), description="is there twice"),))
        found[key] = entry
    return found


def place(section: "pb.TreeSection.ValueType", key: str) -> str:
    """Return where in the request an entry is."""
    return f"tree.{SECTIONS[section]}" + (f"[{key}]" if key else "")


def plan(wanted: pb.Tree, current: pb.Tree, *, exists: bool, prune: Collection[int]) -> Plan:
    """Return what has to be done to make `current` what `wanted` says; what is only in a section of `prune` goes.

    Raises:
        InvalidRequest: two entries have the same key, or departments are below one another in a ring.
    """
    steps: list[Step] = []
    deletions: list[Step] = []
    unchanged = 0
    for section in SECTIONS:
        there = by_key(current, section)
        named = by_key(wanted, section)
        if section == pb.TREE_SECTION_TENANT and not exists:
            named, there = named or {"": pb.TreeTenant()}, {}
        if section == pb.TREE_SECTION_DEPARTMENTS:
            named = _parents_first(named)
        found = list(_changes(section, named, there))
        steps += found
        unchanged += len(named) - len(found)
        if section in prune and section != pb.TREE_SECTION_TENANT:
            # The last first: a department after those below it.
            deletions = [*reversed(list(_deletions(section, named, there))), *deletions]
    return Plan(steps=(*steps, *deletions), unchanged_count=unchanged)


def _changes(
    section: "pb.TreeSection.ValueType", named: Mapping[str, Entry], there: Mapping[str, Entry]
) -> Iterator[Step]:
    for key, entry in named.items():
        current = there.get(key)
        differences = tuple(differing(entry, current))
        if current is None or differences:
            yield Step(section=section, key=key, wanted=entry, current=current, differences=differences)


def _deletions(
    section: "pb.TreeSection.ValueType", named: Mapping[str, Entry], there: Mapping[str, Entry]
) -> Iterator[Step]:
    for key, current in there.items():
        if key not in named:
            differences = tuple(
                Difference(field=one.field, before=one.after, after="") for one in differing(current, None)
            )
            yield Step(section=section, key=key, wanted=None, current=current, differences=differences)


def _parents_first(departments: Mapping[str, Entry]) -> dict[str, Entry]:
    """Return departments in an order in which each comes after those above it that are named too."""
    ordered: dict[str, Entry] = {}
    for key in departments:
        way: list[str] = []
        step: str = key
        while step in departments and step not in ordered:
            if step in way:
                violation = FieldViolation(
                    path=place(pb.TREE_SECTION_DEPARTMENTS, step) + ".parent", description="is below itself"
                )
                raise InvalidRequest(violations=(violation,))
            way.append(step)
            step = departments[step].parent
        ordered.update((one, departments[one]) for one in reversed(way))
    return ordered


def differing(wanted: Entry, current: Entry | None) -> Iterator[Difference]:
    """Yield the fields that `wanted` says and that are not so in `current`; None has nothing."""
    for field in wanted.DESCRIPTOR.fields:
        if not is_said(wanted, field):
            continue
        before = _text(current, field) if current is not None else ""
        after = _text(wanted, field)
        if before != after:
            yield Difference(field=field.name, before=before, after=after)


def is_said(entry: Entry, field: Any) -> bool:
    """Tell whether an entry says something of a field; its key it says by being there."""
    if field.name == "id":
        return False
    return bool(entry.HasField(field.name) if field.has_presence else getattr(entry, field.name))


def _text(entry: Entry, field: Any) -> str:
    """Return a field as a person reads it; equal texts are equal values."""
    value = getattr(entry, field.name)
    if field.enum_type is not None:
        prefix = field.enum_type.values_by_number[0].name.removesuffix("UNSPECIFIED")
        return str(field.enum_type.values_by_number[value].name.removeprefix(prefix)) if value else ""
    if field.message_type is None:
        return str(value)
    if field.has_presence and not entry.HasField(field.name):
        return ""
    return _READERS[field.message_type.name](value)


def _amount(value: Any) -> str:
    if value.WhichOneof("amount") != "money":
        return str(value.units)
    whole, rest = divmod(nanos_of(value.money, "amount"), NANOS_PER_DOLLAR)
    return f"${whole}.{str(rest).zfill(9).rstrip('0').ljust(2, '0')}"


def _joined(value: Any, *, field: str, order: Callable[[Any], Any] = str) -> str:
    return ", ".join(str(one) for one in sorted(getattr(value, field), key=order))


_READERS: Final[Mapping[str, Callable[[Any], str]]] = {
    "LimitAmount": _amount,
    "TreeIds": partial(_joined, field="ids"),
    "TreeThresholds": partial(_joined, field="percents", order=int),
}
