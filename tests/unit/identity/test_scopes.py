"""What keys are narrowed to."""

from tollhouse_server.api.permissions import rules
from tollhouse_server.identity.scopes import SETS, permissions_in

PERMISSIONS = {rule.permission for rule in rules().values() if rule.permission}


def test_sets_name_permissions_that_there_are() -> None:
    """A set with a permission that nothing asks for would narrow to less than it says."""
    assert {permission for names in SETS.values() for permission in names} <= PERMISSIONS


def test_generation_has_every_permission_of_calls() -> None:
    """A key for calls goes on working for calls that are added later."""
    assert {permission for permission in PERMISSIONS if permission.startswith("generation.")} <= SETS["generation"]


def test_scopes_add_up_and_none_narrow_nothing() -> None:
    """Sets and single permissions together; a key without scopes is as wide as its principal."""
    assert permissions_in([]) is None
    assert permissions_in(["usage", "tenants.get"]) == SETS["usage"] | {"tenants.get"}
