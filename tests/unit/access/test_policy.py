"""Decisions of one policy."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tollhouse_server.access.policy import Policy, chain
from tollhouse_server.access.rights import TenantRights
from tollhouse_server.access.roles import ROLES

from tests.unit.access.build import policy_of, principal

ANN, ROOT = principal("acme", "ann"), principal("platform", "root")
TREE = {
    ("acme", "sales"): ("sales",),
    ("acme", "emea"): ("sales", "emea"),
    ("acme", "salesforce"): ("salesforce",),
    ("bolt", "sales"): ("sales",),
}


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("tenants/acme/departments/sales", True),
        ("tenants/acme/departments/emea", True),
        ("tenants/acme/departments/emea/projects/crm", True),
        ("tenants/acme/departments/salesforce", False),
        ("tenants/acme", False),
        ("tenants/bolt/departments/sales", False),
        ("platform", False),
    ],
)
def test_a_grant_holds_on_its_node_and_below(scope: str, expected: bool) -> None:
    """It reaches down the tree, never up, never beside, never into another tenant, never by a like name."""
    policy = policy_of([("acme", "ann", "department-admin", "tenants/acme/departments/sales")], TREE)

    assert policy.allows(ANN, "projects.create", scope) is expected


@pytest.mark.parametrize("below", ["", "/projects/crm"])
def test_every_scope_above_one_is_named_once(below: str) -> None:
    """A department is the last of its own path, and not above itself."""
    rights = TenantRights()
    rights.add_department("emea", ("sales", "emea"))
    emea, sales = "tenants/acme/departments/emea", "tenants/acme/departments/sales"

    found = chain(rights, emea + below)

    assert found == (*([emea + below] if below else []), emea, sales, "tenants/acme")


def test_a_platform_grant_holds_everywhere() -> None:
    """The platform is above every tenant, its own included."""
    policy = policy_of([("platform", "root", "platform-admin", "platform")], TREE)

    for scope in ("platform", "tenants/platform", "tenants/acme/departments/emea/projects/crm"):
        assert policy.allows(ROOT, "projects.create", scope)


def test_a_tenants_grant_is_nothing_on_the_platform() -> None:
    """An administrator of one tenant makes no tenants, and of the tenant `platform` neither."""
    policy = policy_of(
        [("acme", "ann", "tenant-admin", "tenants/acme"), ("platform", "root", "tenant-admin", "tenants/platform")],
        TREE,
    )

    assert not policy.allows(ANN, "tenants.create", "platform")
    assert not policy.allows(ROOT, "tenants.get", "platform")
    assert not policy.allows(ROOT, "tenants.get", "tenants/acme")


def test_an_empty_policy_allows_nothing() -> None:
    """Before the first load everyone is refused."""
    assert not Policy({}).allows(ANN, "tenants.get", "tenants/acme")


def test_what_a_group_has_its_members_have() -> None:
    """By membership, and by the word of the credential; who is in another tenant's group of that name has nothing."""
    policy = policy_of(
        [("acme", "groups/staff", "caller", "tenants/acme/departments/sales")], TREE, members=[("acme", "staff", "ann")]
    )
    scope = "tenants/acme/departments/emea"

    assert policy.allows(ANN, "generation.generate", scope)
    assert policy.allows(principal("acme", "eve", groups=("staff",)), "generation.generate", scope)
    assert not policy.allows(principal("acme", "eve"), "generation.generate", scope)
    assert not policy.allows(principal("bolt", "bob", groups=("staff",)), "generation.generate", scope)


def test_a_group_of_the_name_of_a_principal_is_someone_else() -> None:
    """Group ann and principal ann have nothing of one another."""
    policy = policy_of([("acme", "groups/ann", "caller", "tenants/acme")], TREE)

    assert not policy.allows(ANN, "generation.generate", "tenants/acme")


def test_who_is_disabled_has_nothing_by_his_groups_either() -> None:
    """Not even by those that his credential names."""
    policy = policy_of(
        [("acme", "ann", "caller", "tenants/acme"), ("acme", "groups/staff", "caller", "tenants/acme")],
        TREE,
        members=[("acme", "staff", "ann")],
        barred=[("acme", "ann")],
    )

    assert not policy.allows(ANN, "generation.generate", "tenants/acme")
    assert not policy.allows(principal("acme", "ann", groups=("staff",)), "generation.generate", "tenants/acme")


def test_a_tenants_role_is_its_own() -> None:
    """A role that a tenant has made gives what it lists, and nothing to another tenant's people."""
    role = "tenants/acme/roles/tester"
    policy = policy_of(
        [("acme", "ann", role, "tenants/acme"), ("bolt", "bob", role, "tenants/bolt")],
        TREE,
        roles={("acme", role): frozenset({"limits.get"})},
    )

    assert policy.allows(ANN, "limits.get", "tenants/acme/departments/emea")
    assert not policy.allows(ANN, "limits.list", "tenants/acme")
    assert not policy.allows(principal("bolt", "bob"), "limits.get", "tenants/bolt")


def test_a_row_that_reaches_into_another_tenant_gives_nothing_there() -> None:
    """Whatever a grant says its scope is: it belongs to the tenant of its principal."""
    policy = policy_of(
        [("acme", "ann", "tenant-admin", "tenants/bolt"), ("acme", "ann", "platform-admin", "platform")], TREE
    )

    assert not policy.allows(ANN, "tenants.get", "tenants/bolt")
    assert not policy.allows(ANN, "tenants.create", "platform")
    assert not policy.allows(ANN, "tenants.get", "tenants/acme")


subjects = st.sampled_from([("acme", "ann"), ("bolt", "bob")])
nodes = st.sampled_from(["", "/departments/sales", "/departments/emea", "/departments/emea/projects/crm"])
permissions = st.sampled_from(["generation.generate", "limits.create", "accounts.list", "usageRecords.list"])


def _plainly(grants: list[tuple[str, str, str, str]], who: tuple[str, str], permission: str, scope: str) -> bool:
    """Decide by walking up the tree by hand."""
    above = {scope}
    if "/departments/emea" in scope:
        above |= {f"tenants/{who[0]}/departments/emea", f"tenants/{who[0]}/departments/sales"}
    if "/departments/" in scope:
        above.add("/".join(scope.split("/")[:4]))
    above.add("/".join(scope.split("/")[:2]))
    return scope.split("/")[1] == who[0] and any(
        (tenant, principal) == who and permission in ROLES[role].permissions and node in above
        for tenant, principal, role, node in grants
    )


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(subjects, st.sampled_from(sorted(ROLES)), nodes), max_size=6),
    subjects,
    permissions,
    nodes,
    st.sampled_from(["acme", "bolt"]),
)
def test_decisions_equal_a_walk_up_the_tree(
    grants: list[tuple[tuple[str, str], str, str]], who: tuple[str, str], permission: str, node: str, tenant: str
) -> None:
    """Casbin answers as a plain model does, for random grants and questions."""
    rows = [(subject[0], subject[1], role, f"tenants/{subject[0]}{where}") for subject, role, where in grants]
    tree = TREE | {("bolt", "emea"): ("sales", "emea")}
    scope = f"tenants/{tenant}{node}"

    decided = policy_of(rows, tree).allows(principal(*who), permission, scope)

    assert decided is _plainly(rows, who, permission, scope)
