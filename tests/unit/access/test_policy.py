"""Decisions of one policy."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tollhouse_server.access.policy import Policy
from tollhouse_server.access.roles import ROLES

ANN, BOB, ROOT = "tenants/acme/principals/ann", "tenants/bolt/principals/bob", "tenants/platform/principals/root"
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
    policy = Policy([("acme", "ann", "department-admin", "tenants/acme/departments/sales")], TREE)

    assert policy.allows(ANN, "projects.create", scope) is expected


def test_a_platform_grant_holds_everywhere() -> None:
    """The platform is above every tenant, its own included."""
    policy = Policy([("platform", "root", "platform-admin", "platform")], TREE)

    for scope in ("platform", "tenants/platform", "tenants/acme/departments/emea/projects/crm"):
        assert policy.allows(ROOT, "projects.create", scope)


def test_a_tenants_grant_is_nothing_on_the_platform() -> None:
    """An administrator of one tenant makes no tenants, and of the tenant `platform` neither."""
    policy = Policy(
        [("acme", "ann", "tenant-admin", "tenants/acme"), ("platform", "root", "tenant-admin", "tenants/platform")],
        TREE,
    )

    assert not policy.allows(ANN, "tenants.create", "platform")
    assert not policy.allows(ROOT, "tenants.get", "platform")
    assert not policy.allows(ROOT, "tenants.get", "tenants/acme")


def test_an_empty_policy_allows_nothing() -> None:
    """Before the first load everyone is refused."""
    assert not Policy((), {}).allows(ANN, "tenants.get", "tenants/acme")


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

    decided = Policy(rows, tree).allows(f"tenants/{who[0]}/principals/{who[1]}", permission, scope)

    assert decided is _plainly(rows, who, permission, scope)
