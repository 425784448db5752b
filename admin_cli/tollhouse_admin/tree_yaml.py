"""A tenant's tree as YAML: read strictly, with the line of whatever is wrong; written so that it reads back alike."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeAlias

import yaml
from tollhouse.admin.v1 import limits_pb2, principals_pb2
from tollhouse.admin.v1 import trees_pb2 as pb

from tollhouse_admin.amounts import dollars_of, dollars_text
from tollhouse_admin.failures import Failure, wrong_usage
from tollhouse_admin.limit_options import amount_of
from tollhouse_admin.names import scope_name
from tollhouse_admin.plain_text import is_unicode
from tollhouse_admin.rendering import enum_number, enum_text

SECTIONS: Final[Mapping[str, "pb.TreeSection.ValueType"]] = {
    "tenant": pb.TREE_SECTION_TENANT,
    "principals": pb.TREE_SECTION_PRINCIPALS,
    "groups": pb.TREE_SECTION_GROUPS,
    "roles": pb.TREE_SECTION_ROLES,
    "departments": pb.TREE_SECTION_DEPARTMENTS,
    "projects": pb.TREE_SECTION_PROJECTS,
    "role_grants": pb.TREE_SECTION_ROLE_GRANTS,
    "limits": pb.TREE_SECTION_LIMITS,
}
"""The keys of a file, in the order in which they are written."""

_ENTRIES: Final[Mapping[str, type]] = {
    "principals": pb.TreePrincipal,
    "groups": pb.TreeGroup,
    "roles": pb.TreeRole,
    "departments": pb.TreeDepartment,
    "projects": pb.TreeProject,
    "role_grants": pb.TreeRoleGrant,
    "limits": pb.TreeLimit,
}
_TEXT_TAG: Final = "tag:yaml.org,2002:str"
_INT_TAG: Final = "tag:yaml.org,2002:int"
_NULL_TAG: Final = "tag:yaml.org,2002:null"
_NUMBER: Final = re.compile(r"\d{1,9}", re.ASCII)

_ENUMS: Final[Mapping[tuple[str, str], Any]] = {
    ("principals", "kind"): principals_pb2.Principal.Kind.DESCRIPTOR,
    ("limits", "metric"): limits_pb2.LimitMetric.DESCRIPTOR,
    ("limits", "window"): limits_pb2.LimitWindow.DESCRIPTOR,
    ("limits", "mode"): limits_pb2.LimitMode.DESCRIPTOR,
}

Node: TypeAlias = yaml.Node


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeFile:
    """What a file says: of which tenant, and the sections that it has, be they empty."""

    tenant: str
    tree: pb.Tree
    sections: list["pb.TreeSection.ValueType"]


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads nodes of one file; `tenant` is its resource name."""

    file: str
    tenant: str

    def fault(self, node: Node, message: str) -> Failure:
        return wrong_usage(f"{self.file}, line {node.start_mark.line + 1}: {message}")

    def members(self, node: Node, known: Mapping[str, Any]) -> dict[str, Node]:
        """Return the members of a mapping by their keys, each of which must be known and there once."""
        if not isinstance(node, yaml.MappingNode):
            raise self.fault(node, f"a mapping belongs here, with {', '.join(known)}")
        found: dict[str, Node] = {}
        for key, value in node.value:
            name = str(key.value)
            if name not in known:
                raise self.fault(key, f"{name!r} is not known; there are {', '.join(known)}")
            if name in found:
                raise self.fault(key, f"{name!r} is there twice")
            found[name] = value
        return found

    def text(self, node: Node) -> str:
        """Return a text; an id or a number need not be quoted, but no, null and dates must."""
        if isinstance(node, yaml.ScalarNode):
            if node.tag == _NULL_TAG:
                return ""
            if not is_unicode(node.value):
                raise self.fault(node, "half a character is escaped here")
            if node.tag in (_TEXT_TAG, _INT_TAG):
                return str(node.value)
        raise self.fault(node, "a text belongs here; put it in quotes")

    def number(self, node: Node) -> int:
        """Return a whole number of up to nine digits, which every field has room for."""
        if isinstance(node, yaml.ScalarNode) and node.tag == _INT_TAG and _NUMBER.fullmatch(node.value):
            return int(node.value)
        raise self.fault(node, "a whole number belongs here")

    def list(self, node: Node) -> list[Node]:
        """Return the entries of a list."""
        if not isinstance(node, yaml.SequenceNode):
            raise self.fault(node, "a list belongs here")
        return list(node.value)

    def choice(self, node: Node, kind: Any) -> int:
        """Return the number of an enum value as people type it."""
        text = self.text(node)
        try:
            return enum_number(kind, text)
        except KeyError:
            known = ", ".join(enum_text(kind, one) for one in kind.values_by_number if one)
            raise self.fault(node, f"{text!r} is not one of {known}") from None

    def scope(self, node: Node) -> str:
        """Return the full name of a scope."""
        try:
            return scope_name(self.tenant, self.text(node))
        except Failure as failure:
            raise self.fault(node, failure.message) from failure

    def amount(self, node: Node, metric: int) -> limits_pb2.LimitAmount:
        """Return an amount in the unit of its metric."""
        if not isinstance(node, yaml.ScalarNode):
            raise self.fault(node, "an amount belongs here, such as $100 or 5000")
        try:
            return amount_of(str(node.value), metric)
        except Failure as failure:
            raise self.fault(node, failure.message) from failure


def read_yaml(file: str, content: str, *, tenant: str | None) -> TreeFile:
    """Return what a YAML file says; `tenant` is whose it is if it does not say so itself.

    Raises:
        Failure: it is not YAML, or something is not known, there twice, or of the wrong type; each with its line.
    """
    try:
        root = yaml.compose(content, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise wrong_usage(f"{file}{where}: is not YAML: {getattr(error, 'problem', error)}") from error
    if root is None:
        raise wrong_usage(f"{file} is empty")
    _refuse_aliases(file, root)
    return _file(file, root, tenant)


def _file(file: str, root: Node, tenant: str | None) -> TreeFile:
    outline = _Reader(file, "").members(root, SECTIONS)
    said = ""
    if "tenant" in outline:
        reader = _Reader(file, "")
        members = reader.members(outline["tenant"], _TENANT)
        said = reader.text(members["id"]) if "id" in members else ""
    name = said or (tenant or "").removeprefix("tenants/")
    if not name:
        raise wrong_usage(f"{file} does not say whose it is", "Give tenant.id in it, or --tenant.")
    if said and tenant and said != tenant.removeprefix("tenants/"):
        raise wrong_usage(f"{file} is of tenant {said}, not of {tenant.removeprefix('tenants/')}")
    reader = _Reader(file, f"tenants/{name}")
    tree = pb.Tree()
    for section, node in outline.items():
        if section == "tenant":
            _fill(reader, section, tree.tenant, reader.members(node, _TENANT))
            tree.tenant.SetInParent()
        else:
            for entry in reader.list(node) if not _is_null(node) else ():
                _fill(reader, section, getattr(tree, section).add(), reader.members(entry, _fields(section)))
    return TreeFile(tenant=reader.tenant, tree=tree, sections=[SECTIONS[section] for section in outline])


def _is_null(node: Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == _NULL_TAG


def _refuse_aliases(file: str, root: Node) -> None:
    """Refuse a node that is there by reference: a file that grows when it is read is none of an administrator."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            raise wrong_usage(f"{file}, line {node.start_mark.line + 1}: anchors and aliases are not read")
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            waiting += [part for pair in node.value for part in pair]


_TENANT: Final = {"id": None, "display_name": None, "time_zone": None, "fiscal_month_start_day": None}


def _fields(section: str) -> dict[str, Any]:
    return {field.name: field for field in _ENTRIES[section].DESCRIPTOR.fields}  # type: ignore[attr-defined]


def _fill(reader: _Reader, section: str, entry: Any, members: Mapping[str, Node]) -> None:
    """Set the fields of an entry; the metric of a limit first, by which its amounts are read."""
    for name in sorted(members, key=lambda one: one != "metric"):
        node = members[name]
        if name == "id" and section == "tenant":
            continue
        if (section, name) in _ENUMS:
            setattr(entry, name, reader.choice(node, _ENUMS[section, name]))
        elif name in ("amount", "overshoot"):
            if "metric" not in members:
                raise reader.fault(node, "the metric is needed to read an amount")
            getattr(entry, name).CopyFrom(reader.amount(node, entry.metric))
        elif name == "thresholds":
            entry.thresholds.CopyFrom(pb.TreeThresholds(percents=[reader.number(one) for one in reader.list(node)]))
        elif name in ("members", "permissions"):
            getattr(entry, name).CopyFrom(pb.TreeIds(ids=[reader.text(one) for one in reader.list(node)]))
        elif name == "scope":
            entry.scope = reader.scope(node)
        elif name == "role":
            entry.role = _role_name(reader.text(node), reader.tenant)
        elif name == "fiscal_month_start_day":
            entry.fiscal_month_start_day = reader.number(node)
        else:
            setattr(entry, name, reader.text(node))


def _role_name(typed: str, tenant: str) -> str:
    """Return the name of a role: `caller` is everyone's, `own/teller` the tenant's own."""
    if typed.startswith(("roles/", "tenants/")):
        return typed
    if typed.startswith("own/"):
        return f"{tenant}/roles/{typed.removeprefix('own/')}"
    return f"roles/{typed}"


# --- writing ----------------------------------------------------------------------------------------------------------


def write_yaml(tenant: str, tree: pb.Tree, sections: Collection[int]) -> str:
    """Return a tree as YAML that reads back alike."""
    document: dict[str, Any] = {}
    for section, number in SECTIONS.items():
        if number not in sections:
            continue
        if section == "tenant":
            document["tenant"] = {"id": tenant.removeprefix("tenants/"), **_plain(section, tree.tenant, tenant)}
        else:
            document[section] = [_plain(section, entry, tenant) for entry in getattr(tree, section)]
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)


def _represented(dumper: yaml.SafeDumper, text: str) -> Node:
    # What cannot be seen is escaped: as it is, it would be read back as a line end or not at all.
    return dumper.represent_scalar(_TEXT_TAG, text, style=None if text.isprintable() else '"')


class _Dumper(yaml.SafeDumper):
    """Indents lists, as people do."""

    yaml_representers: ClassVar[dict[Any, Any]] = {**yaml.SafeDumper.yaml_representers, str: _represented}

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: FBT001, FBT002, ARG002
        super().increase_indent(flow, indentless=False)


def _plain(section: str, entry: Any, tenant: str) -> dict[str, Any]:
    return dict(_members(section, entry, tenant))


def _members(section: str, entry: Any, tenant: str) -> Iterator[tuple[str, Any]]:
    for field, value in entry.ListFields():
        name = field.name
        if (section, name) in _ENUMS:
            yield name, enum_text(_ENUMS[section, name], value)
        elif name in _WRITERS:
            if name != "thresholds" or value.percents:
                yield name, _WRITERS[name](value, tenant)
        elif value != "":
            yield name, value


def _amount(value: limits_pb2.LimitAmount, _: str) -> str | int:
    return f"${dollars_text(dollars_of(value.money))}" if value.HasField("money") else int(value.units)


def _scope(value: str, tenant: str) -> str:
    return "tenant" if value == tenant else value.removeprefix(f"{tenant}/")


def _role(value: str, tenant: str) -> str:
    own = f"{tenant}/roles/"
    return f"own/{value.removeprefix(own)}" if value.startswith(own) else value.removeprefix("roles/")


_WRITERS: Final[Mapping[str, Callable[[Any, str], Any]]] = {
    "amount": _amount,
    "overshoot": _amount,
    "thresholds": lambda value, _: list(value.percents),
    "members": lambda value, _: list(value.ids),
    "permissions": lambda value, _: list(value.ids),
    "scope": _scope,
    "role": _role,
}
