"""The rules of entries of trees that are written out say what the protos say of the single methods' requests."""

from collections.abc import Iterator, Sequence
from typing import Any

import protovalidate
from google.protobuf.message import Message
from google.type.money_pb2 import Money
from tollhouse.admin.v1 import limits_pb2, principals_pb2
from tollhouse.admin.v1 import trees_pb2 as pb
from tollhouse_server.api.trees.checks import check_entries
from tollhouse_server.api.trees.entries import SECTIONS, Step, differing, entries_of, key_of
from tollhouse_server.api.trees.requests import requests_of
from tollhouse_server.errors import InvalidRequest

ACME = "tenants/acme"
GOOD = pb.Tree(
    tenant=pb.TreeTenant(display_name="Acme", time_zone="UTC", fiscal_month_start_day=1),
    principals=[
        pb.TreePrincipal(
            id="ann",
            kind=principals_pb2.Principal.KIND_USER,
            display_name="Ann",
            email="ann@acme.example",
            issuer="https://id.acme.example",
            subject="0815",
        )
    ],
    groups=[pb.TreeGroup(id="staff", display_name="Staff", members=pb.TreeIds(ids=["ann"]))],
    roles=[pb.TreeRole(id="teller", description="Counts.", permissions=pb.TreeIds(ids=["usage.get"]))],
    departments=[pb.TreeDepartment(id="emea", parent="sales", display_name="E", cost_centre="4711", owner="ann")],
    projects=[pb.TreeProject(id="crm", department="emea", display_name="C", cost_centre="4712", owner="ann")],
    role_grants=[
        pb.TreeRoleGrant(principal="ann", role="roles/caller", scope=f"{ACME}/departments/emea"),
        pb.TreeRoleGrant(group="staff", role=f"{ACME}/roles/teller", scope=ACME),
    ],
    limits=[
        pb.TreeLimit(
            id="monthly",
            scope=ACME,
            metric=limits_pb2.LIMIT_METRIC_COST,
            window=limits_pb2.LIMIT_WINDOW_MONTH,
            selector="tiers/flash",
            mode=limits_pb2.LIMIT_MODE_STRICT,
            amount=limits_pb2.LimitAmount(money=Money(currency_code="USD", units=100)),
            thresholds=pb.TreeThresholds(percents=[50, 80]),
        )
    ],
)
TEXTS = (
    *("", "a", "ok", "UP", "a\n", "é", "tiers/flash", "models/x y", "roles/caller", "platform", "usage.get"),
    *(f"{ACME}/roles/x1", f"{ACME}/departments/d1", f"{ACME}/departments/d1/projects/p1/apiKeys/{'a' * 12}"),
    *("x" * most for most in (63, 64, 65, 200, 201, 254, 255, 256, 500, 501, 512, 513)),
)
NUMBERS = (-1, 0, 1, 100, 1000, 1001)


def entries(tree: pb.Tree) -> Iterator[tuple[str, Any]]:
    """Yield every entry with the name of its section."""
    for section, name in SECTIONS.items():
        yield from ((name, entry) for entry in entries_of(tree, section))


def changed() -> Iterator[pb.Tree]:
    """Yield each entry of the good tree alone, with one of its values changed."""
    for section, entry in entries(GOOD):
        for field in entry.DESCRIPTOR.fields:
            for value in values(field):
                tree = pb.Tree()
                if section == "tenant":
                    tree.tenant.CopyFrom(entry)
                else:
                    getattr(tree, section).append(entry)
                put(next(entries(tree))[1], field.name, value)
                yield tree


def values(field: Any) -> Sequence[Any]:
    """Return what may stand in a field, and what may not."""
    if field.message_type is not None:
        lists = {"TreeIds": TEXTS, "TreeThresholds": NUMBERS}.get(field.message_type.name, ())
        return [[one] for one in lists] + ([["usage.get", "usage.get"], ["ann", "ann"]] if lists is TEXTS else [])
    return TEXTS if field.type == field.TYPE_STRING else ()


def put(entry: Any, name: str, value: Any) -> None:
    """Set a field, a list too."""
    if isinstance(value, list):
        part = getattr(entry, name)
        (held,) = part.DESCRIPTOR.fields
        part.ClearField(held.name)
        getattr(part, held.name).extend(value)
    else:
        setattr(entry, name, value)


def requests(tree: pb.Tree) -> Iterator[Message]:
    """Yield the requests of the single methods that make a tree of which nothing is there yet."""
    for section in SECTIONS:
        for entry in entries_of(tree, section):
            step = Step(
                section=section,
                key=key_of(entry),
                wanted=entry,
                current=None,
                differences=tuple(differing(entry, None)),
            )
            yield from requests_of(step, "acme", {})


def is_refused(tree: pb.Tree) -> bool:
    """Tell whether a tree does not get as far as the single methods."""
    try:
        check_entries(tree)
        list(requests(tree))
    except InvalidRequest:
        return True
    return False


def test_a_tree_is_refused_where_a_request_of_a_single_method_would_be() -> None:
    """For each field of each entry, whatever is in it."""
    by_rules = protovalidate.Validator()  # type: ignore[no-untyped-call]

    let_in = [
        str(tree)
        for tree in changed()
        if not is_refused(tree) and any(by_rules.collect_violations(request) for request in requests(tree))
    ]

    assert not is_refused(GOOD)
    assert let_in == []
