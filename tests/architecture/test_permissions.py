"""Every RPC of every service has a permission rule that fits its request."""

import importlib
import pkgutil
from collections.abc import Iterator

import pytest
import tollhouse.admin.v1
import tollhouse.v1
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from tollhouse_server.access.roles import ROLES
from tollhouse_server.api.permissions import ASKED_BY_HANDLERS, Rule, rules


def methods() -> Iterator[MethodDescriptor]:
    for package in (tollhouse.v1, tollhouse.admin.v1):
        for module in pkgutil.iter_modules(package.__path__):
            if module.name.endswith("_pb2"):
                loaded = importlib.import_module(f"{package.__name__}.{module.name}")
                for service in loaded.DESCRIPTOR.services_by_name.values():
                    yield from service.methods


METHODS = {method.full_name: method for method in methods()}


def test_every_rpc_has_a_rule_and_every_rule_an_rpc() -> None:
    """An RPC that nobody thought about is not served; a rule for nothing is a mistake."""
    assert set(METHODS) == set(rules())


@pytest.mark.parametrize("rule", rules().values(), ids=lambda rule: rule.rpc)
def test_a_rule_reads_fields_that_are_there(rule: Rule) -> None:
    """Each path leads to a text field of the request."""
    for path in rule.fields:
        field = _field(METHODS[rule.rpc].input_type, path)
        assert field.type == FieldDescriptor.TYPE_STRING


@pytest.mark.parametrize("rule", rules().values(), ids=lambda rule: rule.rpc)
def test_a_request_that_names_a_tenants_resource_is_not_judged_on_the_platform(rule: Rule) -> None:
    """A name or parent in the request takes part in the decision."""
    named = {field.name for field in METHODS[rule.rpc].input_type.fields} & {"name", "parent"}

    if rule.permission is not None and "PriceService" not in rule.rpc:
        assert named <= set(rule.fields)


@pytest.mark.parametrize("rule", rules().values(), ids=lambda rule: rule.rpc)
def test_some_role_has_each_permission(rule: Rule) -> None:
    """A permission that no role has could never be given."""
    assert rule.permission is None or any(rule.permission in role.permissions for role in ROLES.values())


def test_roles_have_no_permission_that_nothing_asks_for() -> None:
    """What a role lists, some RPC or its handler takes."""
    asked = {rule.permission for rule in rules().values()} | ASKED_BY_HANDLERS

    assert {permission for role in ROLES.values() for permission in role.permissions} <= asked


@pytest.mark.parametrize("name", sorted(name for name in METHODS if name.startswith("tollhouse.admin.")))
def test_every_change_can_be_repeated_and_tried(name: str) -> None:
    """Whatever does not only read has request_id and validate_only, and the request is named after the method."""
    method = METHODS[name]
    fields = {field.name for field in method.input_type.fields}

    assert method.input_type.name == f"{method.name}Request"
    if not method.name.startswith(("Get", "List", "Verify", "Explain", "Search", "Tail", "Export", "Test", "Simulate")):
        assert {"request_id", "validate_only"} <= fields


def _field(message: Descriptor, path: str) -> FieldDescriptor:
    *parents, last = path.split(".")
    for parent in parents:
        inner = message.fields_by_name[parent].message_type
        assert inner is not None
        message = inner
    return message.fields_by_name[last]
